"""Answers of a server, held to a size: one that sends without end fills no memory.

Compressed answers are neither asked for nor taken: a thousandth of a bomb is what a compressed one looks like.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2

#: Bytes of one answer, at most; one of 100,000 tokens with all that is said about them has a tenth.
MOST_BYTES = 16_000_000

#: What a client sends along.
HEADERS = {"accept-encoding": "identity"}


class UnboundedAnswer(Exception):
    """An answer is too large, or is compressed."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for part in self._stream:
            num_bytes += len(part)
            if num_bytes > MOST_BYTES:
                raise UnboundedAnswer
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _BoundedSync(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        num_bytes = 0
        for part in self._stream:
            num_bytes += len(part)
            if num_bytes > MOST_BYTES:
                raise UnboundedAnswer
            yield part

    def close(self) -> None:
        self._stream.close()


def _refuse_compressed(response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise UnboundedAnswer


async def bound(response: httpx2.Response) -> None:
    """Hook of an asynchronous client, called before an answer is read."""
    _refuse_compressed(response)
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


def bound_sync(response: httpx2.Response) -> None:
    """Hook of a synchronous client, called before an answer is read."""
    _refuse_compressed(response)
    if isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _BoundedSync(response.stream)
