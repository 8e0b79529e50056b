"""A chat model that is never asked the same twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict
from typing import Protocol

from clsgen_dist.chat.interface import Chat, Completion, Request


class Memory(Protocol):
    """Answers by the key of their request; see `answers.AnswerMemory`."""

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
    if request.schema is None:
        del said["schema"]  # as before there was such a field, so that answers of then are found
    else:
        said["schema"] = json.dumps(request.schema)  # with the order of its fields, in which a model writes them
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
