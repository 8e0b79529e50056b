"""Rows -> what a chat model says of them, every request asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from clsgen_dist.chat.interface import Chat, Completion, Request
from clsgen_dist.config.sections import Task
from clsgen_dist.config.verbalize import Verbalize
from clsgen_dist.errors import TeacherError
from clsgen_dist.records import Row
from clsgen_dist.verbalize.parsing import distribution_schema
from clsgen_dist.verbalize.prompts import distribution_messages


def guided(verbalize: Verbalize, labels: Sequence[str]) -> Verbalize:
    """The settings with the form of the answer among the fields of each request, where guided decoding is asked for."""
    if not verbalize.guided:
        return verbalize
    form: dict[str, Any] = {"name": "distribution", "strict": True, "schema": distribution_schema(labels)}
    extra: dict[str, Any] = {
        **(verbalize.extra_body or {}),
        "response_format": {"type": "json_schema", "json_schema": form},
    }
    return verbalize.model_copy(update={"extra_body": extra})


async def ask_rows(
    chat: Chat,
    rows: Sequence[Row],
    task: Task,
    verbalize: Verbalize,
    *,
    num_at_once: int,
    heard: Callable[[int], None],
) -> list[list[Completion]]:
    """Asks for the distribution of every row with every paraphrase.

    Args:
        chat: who answers; asked the same twice, it should know the answer.
        rows: what is asked about.
        task: question and labels.
        verbalize: style of the prompt, paraphrases, temperature, tokens.
        num_at_once: requests worth sending at one time.
        heard: told how many answers came in, with each.

    Returns:
        For each paraphrase, the answers in the order of the rows.

    Raises:
        TeacherError: the model cannot be reached any more, or the budget is spent; what was answered is kept by
            whoever remembers.
    """
    answers: list[list[Completion | None]] = [[None] * len(rows) for _ in range(verbalize.num_prompts)]
    waiting = ((p, n) for n in range(len(rows)) for p in range(verbalize.num_prompts))
    errors: list[TeacherError] = []

    async def ask() -> None:
        for paraphrase, number in waiting:  # shared: whoever is free takes the next one
            if errors:
                return
            messages = distribution_messages(task, rows[number].text, style=verbalize.prompt, paraphrase=paraphrase)
            request = Request(
                messages=messages, temperature=verbalize.temperature, max_tokens=verbalize.max_tokens, seed=paraphrase
            )
            try:
                answers[paraphrase][number] = await chat.complete(request)
            except TeacherError as error:
                errors.append(error)
                return
            heard(1)

    await asyncio.gather(*(ask() for _ in range(num_at_once)))
    if errors:
        raise errors[0]
    return [[answer for answer in of_prompt if answer is not None] for of_prompt in answers]
