"""A chat model as a teacher."""

from __future__ import annotations

import re

from clsgen_dist.chat.interface import Chat, Completion, Message, Request
from clsgen_dist.config.explain import Explain
from clsgen_dist.config.sections import Task
from clsgen_dist.explain.prompts import blind_messages, guidance_of, parse_label, reading_messages, reason_messages
from clsgen_dist.records import Row

_FENCE = re.compile(r"^```[\w-]*\n(.*?)\n?```$", re.DOTALL)
_LEAD = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok)[,.!:]\s*)?here(?: is| are|['\u2019]s)\b[^:\n]{0,80}:\s*"
    r"|^[*_#\s]*(?:the )?(?:reason(?:ing)?|explanation|rationale|justification)[*_]*\s*:[*_]*\s*",
    re.IGNORECASE,
)
_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
    ("\u00ab", "\u00bb"),
    ("\u300c", "\u300d"),
)


class ChatTeacher:
    """Asks a chat model for labels and reasons; see `Teacher`."""

    def __init__(self, chat: Chat, task: Task, explain: Explain) -> None:
        """Takes a chat model, the question with its labels, and the settings."""
        self._chat = chat
        self._task = task
        self._explain = explain
        self._guidance = guidance_of(explain)
        #: Twice the requests that are answered at one time, so that one is ready whenever an answer comes in.
        self.num_at_once = 2 * (explain.requests_in_flight if explain.teacher == "endpoint" else explain.batch_size)

    async def answer_blind(self, row: Row) -> int | None:
        """See `Teacher.answer_blind`."""
        answer = await self._ask(blind_messages(self._task, row.text), temperature=0.0, seed=0)
        return _label_in(answer, self._task)

    async def give_reason(self, row: Row, *, attempt: int, fault: str | None) -> tuple[str, str | None]:
        """See `Teacher.give_reason`."""
        assert row.label is not None, "a row without a label has no reason"
        messages = reason_messages(self._task, row.text, row.label, self._guidance, fault)
        answer = await self._ask(messages, temperature=self._explain.temperature, seed=attempt)
        if answer.fault is not None:
            return "", answer.fault
        reason = tidy(answer.text)
        return (reason, None) if reason else ("", "empty")

    async def read(self, reason: str, *, reading: int = 0) -> int | None:
        """See `Teacher.read`."""
        answer = await self._ask(reading_messages(self._task, reason, reading), temperature=0.0, seed=reading)
        return _label_in(answer, self._task)

    async def close(self) -> None:
        """See `Teacher.close`."""
        await self._chat.close()

    async def _ask(self, messages: tuple[Message, ...], *, temperature: float, seed: int) -> Completion:
        # A label needs few tokens, but a reasoning model thinks before it names one.
        return await self._chat.complete(
            Request(messages=messages, temperature=temperature, max_tokens=self._explain.max_tokens, seed=seed)
        )


def tidy(answer: str) -> str:
    """The reason in an answer: without code fence, a lead as "Reason:" or "Here is why:", and quotes around it all."""
    reason, before = answer.strip(), None
    while reason != before:
        before = reason
        reason = _FENCE.sub(r"\1", reason)
        reason = _LEAD.sub("", reason, count=1).strip()
        for opening, closing in _QUOTES:
            inner = reason[1:-1]
            # '"a" differs from "b"' begins and ends with a quote and is not quoted.
            if reason[:1] == opening and reason[1:].endswith(closing) and opening not in inner and closing not in inner:
                reason = inner.strip()
    return reason


def _label_in(answer: Completion, task: Task) -> int | None:
    return None if answer.fault is not None else parse_label(answer.text, task.labels)
