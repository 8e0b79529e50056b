"""A chat model as a teacher, and a memory that keeps it from being asked the same twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import asdict
from typing import Protocol

from clsgen_dist.config.explain import Explain
from clsgen_dist.config.sections import Task
from clsgen_dist.explain.prompts import blind_messages, parse_label, reading_messages, reason_messages
from clsgen_dist.explain.teacher import Chat, Completion, Message, Request
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
        self._guidance = explain.guidance
        if explain.checks.language is not None:
            code = f"Write in the language whose ISO 639-1 code is {explain.checks.language}."
            self._guidance = f"{self._guidance}\n{code}".strip()
        if explain.teacher == "endpoint":
            requests = explain.requests_in_flight
        else:
            requests = explain.batch_size * (explain.num_workers or 1)
        #: Twice the requests, so that one is ready whenever an answer comes in.
        self.num_at_once = 2 * requests

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


class Memory(Protocol):
    """Answers by the key of their request; see `memory.TeacherMemory`."""

    def recall(self, key: str) -> Completion | None:
        """The answer that was kept, or None."""
        ...

    def remember(self, key: str, answer: Completion) -> None:
        """Keeps an answer."""
        ...


class RememberedChat:
    """A chat model that is never asked the same twice: not after a restart, and not while an answer is on its way."""

    def __init__(self, chat: Chat, memory: Memory, *, model: str) -> None:
        """Wraps a chat model.

        Args:
            chat: who answers what the memory does not know.
            memory: answers so far.
            model: name of the model, with whatever else its answers depend on and a request does not say.
        """
        self._chat = chat
        self._memory = memory
        self._model = model
        self._on_their_way: dict[str, asyncio.Task[Completion]] = {}

    async def complete(self, request: Request) -> Completion:
        """See `Chat.complete`. Whoever waits may be cancelled: the answer is still awaited and kept."""
        key = request_key(self._model, request)
        known = self._memory.recall(key)
        if known is not None:
            return known
        asking = self._on_their_way.get(key)
        if asking is None:
            asking = self._on_their_way[key] = asyncio.create_task(self._ask(key, request))
            asking.add_done_callback(lambda done: self._settle(key, done))
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """See `Chat.close`. Answers that are on their way are given up."""
        asked = list(self._on_their_way.values())
        for asking in asked:
            asking.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self._chat.close()

    async def _ask(self, key: str, request: Request) -> Completion:
        answer = await self._chat.complete(request)
        self._memory.remember(key, answer)
        return answer

    def _settle(self, key: str, done: asyncio.Task[Completion]) -> None:
        del self._on_their_way[key]
        if not done.cancelled():
            done.exception()  # looked at, or asyncio reports it where nobody waits for it any more


def request_key(model: str, request: Request) -> str:
    """Tells requests apart: sha256, in hexadecimal, of the model's name and all that the request says."""
    said = asdict(request) | {"model": model, "temperature": float(request.temperature)}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _label_in(answer: Completion, task: Task) -> int | None:
    return None if answer.fault is not None else parse_label(answer.text, task.labels)
