"""SIGTERM and Ctrl-C: a run that is asked to stop comes to the end of its step, writes a checkpoint and ends."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clsgen_dist.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a process was asked to stop, and by which signal.

    Attributes:
        signal_number: of the first signal, or None.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.is_held = False

    def ask(self, number: int) -> None:
        """Notes a signal; the first one counts."""
        if self.signal_number is None:
            self.signal_number = number

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal is only noted: whoever is there looks at `signal_number` where stopping loses nothing."""
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False

    def check(self) -> None:
        """Raises Interrupted where the process was asked to stop."""
        if self.signal_number is not None:
            raise Interrupted("the same command goes on where it was", self.signal_number)


@contextmanager
def heeding_signals(grace_seconds: float) -> Iterator[StopRequest]:
    """Takes SIGTERM and SIGINT as long as the block runs.

    Outside of `held` a signal raises Interrupted in the main thread. Where that thread stands in a foreign call that
    does not return, or a step takes too long, the process ends by itself after `grace_seconds`; on a second Ctrl-C at
    once. In another thread than the main one, which cannot take signals, nothing is done.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def taken(number: int, frame: FrameType | None) -> None:
        stop.ask(number)
        if not stop.is_held:
            stop.check()

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, taken) for number in _SIGNALS}
    # The interpreter writes numbers of signals there at once, whatever the main thread is doing.
    earlier = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(ours, stop, grace_seconds), daemon=True, name="signals")
    watcher.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, handler)
        theirs.close()  # the watcher reads the end and goes
        watcher.join(timeout=5)
        ours.close()


@contextmanager
def heeding_sigterm_in_any_thread(stop: StopRequest, grace_seconds: float) -> Iterator[None]:
    """Takes SIGTERM where the work is not in the main thread, as in a worker of Ray, whose own way is to die of it.

    Inside of `held` the signal is noted. Where nothing is held, or `grace_seconds` after it, the process ends with code
    143: what it was at is done again by whoever starts it anew.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # many signals fill it

    def watch() -> None:
        if os.read(reader, 1) and not ended.is_set():
            stop.ask(signal.SIGTERM)
            if stop.is_held and ended.wait(grace_seconds):
                return
            _leave(signal.SIGTERM, "SIGTERM; this worker ends, the last checkpoint is whole")

    ended = threading.Event()
    watcher = threading.Thread(target=watch, daemon=True, name="signals")
    watcher.start()
    # Handlers of Python's own can be set in the main thread alone. This one, in C, writes where each thread stands
    # into the pipe: that anything arrives there is the news.
    faulthandler.register(signal.SIGTERM, file=writer, all_threads=False)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGTERM)
        ended.set()
        os.close(writer)  # the watcher reads the end
        watcher.join(timeout=5)
        os.close(reader)


def _watch(signals: socket.socket, stop: StopRequest, grace_seconds: float) -> None:
    num_interrupts = 0
    deadline: threading.Timer | None = None
    while arrived := signals.recv(1):
        number = arrived[0]
        if number not in _SIGNALS:
            continue
        stop.ask(number)
        num_interrupts += number == signal.SIGINT
        if num_interrupts > 1:
            _leave(number, "stopped at once; the last checkpoint is whole")
        if deadline is None:
            words = f"not at the end of a step after {grace_seconds:g} s; stopped, the last checkpoint is whole"
            deadline = threading.Timer(grace_seconds, _leave, (number, words))
            deadline.daemon = True
            deadline.start()
    if deadline is not None:
        deadline.cancel()


def _leave(number: int, words: str) -> None:
    print(words, file=sys.stderr, flush=True)
    os._exit(128 + number)
