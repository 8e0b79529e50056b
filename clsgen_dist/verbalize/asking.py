"""Rows -> what a chat model says of them, every request asked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clsgen_dist.chat.crowd import ask_all
from clsgen_dist.chat.interface import Chat, Completion, Request
from clsgen_dist.config.sections import Task
from clsgen_dist.config.verbalize import Verbalize
from clsgen_dist.records import Row
from clsgen_dist.verbalize.parsing import distribution_schema
from clsgen_dist.verbalize.prompts import distribution_messages, rotated


def distribution_request(task: Task, text: str, verbalize: Verbalize, paraphrase: int) -> Request:
    """What is asked about a text.

    Args:
        task: question and labels.
        text: the row's text.
        verbalize: style of the prompt, temperature, tokens, whether the form of the answer is enforced.
        paraphrase: number of the wording, from 0.
    """
    # In the order in which this paraphrase shows the labels, or the two would contradict each other.
    labels = rotated(task.labels, paraphrase)
    schema = distribution_schema(labels, in_whole_percents=verbalize.source != "endpoint")
    return Request(
        messages=distribution_messages(task, text, style=verbalize.prompt, paraphrase=paraphrase),
        temperature=verbalize.temperature,
        max_tokens=verbalize.max_tokens,
        seed=paraphrase,
        schema=schema if verbalize.guided else None,
    )


async def ask_rows(
    chat: Chat,
    rows: Sequence[Row],
    task: Task,
    verbalize: Verbalize,
    *,
    num_at_once: int,
    heard: Callable[[], None],
) -> list[list[Completion]]:
    """Asks for the distribution of every row with every paraphrase.

    Args:
        chat: who answers; asked the same twice, it should know the answer.
        rows: what is asked about.
        task: question and labels.
        verbalize: style of the prompt, paraphrases, temperature, tokens.
        num_at_once: requests worth sending at one time.
        heard: told of each answer that came in.

    Returns:
        For each paraphrase, the answers in the order of the rows.

    Raises:
        TeacherError: as `ask_all`.
    """
    requests = (
        distribution_request(task, row.text, verbalize, paraphrase)
        for row in rows
        for paraphrase in range(verbalize.num_prompts)
    )
    answers = await ask_all(chat, requests, num_at_once=num_at_once, heard=heard)
    return [answers[paraphrase :: verbalize.num_prompts] for paraphrase in range(verbalize.num_prompts)]
