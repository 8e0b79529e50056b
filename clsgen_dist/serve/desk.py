"""One inference at a time: a thread with the model, a queue of limited length before it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Asks = TypeVar("Asks")
Gets = TypeVar("Gets")


class FullError(Exception):
    """The queue has no place left."""


class Desk(Generic[Asks, Gets]):
    """Hands work to a thread in the order in which it comes."""

    def __init__(self, work: Callable[[Asks], Gets], queue_size: int) -> None:
        """Starts the thread.

        Args:
            work: called in the thread, never twice at one time.
            queue_size: what may wait, the one at work not counted.
        """
        self._work = work
        self._waiting: queue.Queue[tuple[Asks, Future[Gets]] | None] = queue.Queue(queue_size)
        self._thread = threading.Thread(target=self._serve, name="inference", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, asked: Asks) -> Future[Gets]:
        """Queues work; what is cancelled before its turn is left out. Raises FullError."""
        future: Future[Gets] = Future()
        try:
            self._waiting.put_nowait((asked, future))
        except queue.Full:
            raise FullError from None
        return future

    def close(self) -> None:
        """Ends the thread when what is queued is done."""
        self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (item := self._waiting.get()) is not None:
            asked, future = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._work(asked))
                except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
                    future.set_exception(error)
            del item, asked, future  # the last request is not kept until the next one comes
