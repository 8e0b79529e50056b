"""Many requests to one chat model at one time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from clsgen_dist.chat.interface import Chat, Completion, Request
from clsgen_dist.errors import TeacherError


async def ask_all(
    chat: Chat, requests: Iterable[Request], *, num_at_once: int, heard: Callable[[], None]
) -> list[Completion]:
    """Asks all requests, in their order.

    Args:
        chat: who answers; asked the same twice, it should know the answer.
        requests: made as they are needed.
        num_at_once: requests worth sending at one time.
        heard: told of each answer that came in.

    Returns:
        The answers in the order of the requests.

    Raises:
        TeacherError: the model cannot be reached any more, or the budget is spent. No new request begins then, and
            those that wait for an answer get it first, so that whoever remembers has it.
    """
    answers: dict[int, Completion] = {}
    waiting = enumerate(requests)
    errors: list[TeacherError] = []

    async def ask() -> None:
        for number, request in waiting:  # shared: whoever is free takes the next one
            try:
                answers[number] = await chat.complete(request)
            except TeacherError as error:
                errors.append(error)
                return
            heard()
            if errors:
                return
            await asyncio.sleep(0)  # answers that are remembered must not starve those that arrive

    await asyncio.gather(*(ask() for _ in range(num_at_once)))
    if errors:
        raise errors[0]
    return [answers[number] for number in range(len(answers))]
