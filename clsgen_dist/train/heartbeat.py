"""A rank that hangs is noticed by its neighbours: each writes signs of life to a file and looks at those of two others.

A process that is stopped, or whose node is gone, leaves the others waiting in a collective, which names nobody.
The sign comes from a thread, so a long validation or the loading of a model does not look like a hang.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clsgen_dist.train.standstill import MARK, Standstill, words_of

#: Neighbours that a rank looks at: where one of them hangs beside the rank itself, another one still sees it.
_NUM_WATCHED = 2
#: Exit code of a rank that ends since another one hangs.
HUNG = 1


@dataclass(frozen=True)
class Sign:
    """What a rank says of itself.

    Attributes:
        count: signs given so far; a clock would be another one on every node.
        process, host: where it runs.
        started: when the process began, in ticks of its node, so that a number used again is told apart.
        mark: micro-batches that it has begun.
    """

    count: int
    process: int
    host: str
    started: int
    mark: int = 0


class Watch:
    """What one rank knows of the signs of another."""

    def __init__(self, path: Path, hang_seconds: float) -> None:
        self._path, self._hang_seconds = path, hang_seconds
        self._seen: Sign | None = None
        self._since = time.monotonic()

    def look(self, now: float) -> Sign | None:
        """Reads the file; returns the last sign where it has been the same for too long, else None.

        Args:
            now: seconds of this process's monotonic clock.
        """
        try:
            found = Sign(**json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            found = None  # not begun, or ended in order
        except (OSError, ValueError, TypeError):
            return None  # the file system itself has trouble
        if found != self._seen:
            self._seen, self._since = found, now
        return self._seen if now - self._since > self._hang_seconds else None


@contextmanager
def heartbeat(
    folder: Path,
    rank: int,
    mates: Sequence[int],
    hang_seconds: float,
    tell: Callable[[str], None],
    *,
    stall_seconds: float = float("inf"),
) -> Iterator[None]:
    """Gives signs of life while the block runs, and ends this process where a neighbour has stopped to.

    Where all live and the steps do not go on, the rank that is behind is named, see `standstill`.

    Args:
        folder: which all mates see; made where it is absent. Of one attempt alone.
        rank: of this process.
        mates: ranks that see the folder, this one included, in order.
        hang_seconds: without a sign for so long a rank counts as hanging.
        tell: gets the message, once, before the process ends; and that of a standstill.
        stall_seconds: without a further micro-batch for so long, in a step, the group counts as standing still.
    """
    if len(mates) == 1:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()
    own = mates.index(rank)
    neighbours = sorted({mates[(own + away) % len(mates)] for away in range(1, _NUM_WATCHED + 1)} - {rank})
    watches = {peer: Watch(folder / str(peer), hang_seconds) for peer in neighbours}

    def beat() -> None:
        count, interval = 0, min(5.0, hang_seconds / 4)
        before = time.monotonic()
        standstill = Standstill(MARK, stall_seconds, before)
        while not ended.wait(interval):
            count += 1
            _give(folder / str(rank), _sign_of_this_process(count))
            now = time.monotonic()
            late, before = now - before > hang_seconds / 2, now
            for peer, watch in watches.items():
                sign = watch.look(now)
                # Who was stopped itself knows nothing of the others yet.
                if sign is not None and not late and not ended.is_set():
                    tell(
                        f"rank {peer} (process {sign.process} on {sign.host}) has given no sign of life for "
                        f"{hang_seconds:g} s (train.hang_seconds); this group of workers ends, and the last "
                        "checkpoint is whole"
                    )
                    _end(sign)
                    os._exit(HUNG)
            if standstill.look(now) and not late:
                _tell_standstill(folder, rank, mates, stall_seconds, tell)

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        (folder / str(rank)).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()  # the last one takes it away


def _sign_of_this_process(count: int) -> Sign:
    return Sign(count, os.getpid(), socket.gethostname(), _start_of(os.getpid()), MARK.count)


def _tell_standstill(
    folder: Path, rank: int, mates: Sequence[int], stall_seconds: float, tell: Callable[[str], None]
) -> None:
    """All ranks come here at about the same time; one of them speaks."""
    found = {rank: _sign_of_this_process(0)}
    for peer in mates:
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.setdefault(peer, Sign(**json.loads((folder / str(peer)).read_text(encoding="utf-8"))))
    places = {peer: f"process {sign.process} on {sign.host}" for peer, sign in found.items()}
    speaker, words = words_of({peer: sign.mark for peer, sign in found.items()}, places, stall_seconds)
    if speaker == rank:
        tell(words)


def _give(place: Path, sign: Sign) -> None:
    staging = place.with_name(f"{place.name}.new")
    with contextlib.suppress(OSError):  # a full disk is the matter of those who have something to keep
        staging.write_text(json.dumps(vars(sign)), encoding="utf-8")
        os.replace(staging, place)


def _end(sign: Sign) -> None:
    """Kills a hanging process of this node, which would keep its memory and GPU from the next attempt."""
    if sign.host == socket.gethostname() and _start_of(sign.process) == sign.started:
        with contextlib.suppress(OSError):
            os.kill(sign.process, signal.SIGKILL)


def _start_of(process: int) -> int:
    """When a process of this node began, in clock ticks since boot; 0 where there is none, or no /proc."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
