"""A group whose processes live and do not get on: the rank that is behind the others is named.

Each rank counts the micro-batches that it has begun, and its sign of life carries the number. Where a rank stands in a
step for too long, it compares the numbers: who has begun fewer is what the others wait for. That is told and no more,
since a step may be slow for good reasons; the wait itself ends with train.collective_timeout_seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Mark:
    """How far this process is.

    Attributes:
        count: micro-batches begun.
        is_in_step: whether it is in an optimizer step now; what lies between steps may take long.
    """

    count: int = 0
    is_in_step: bool = False

    def begin_micro_batch(self) -> None:
        """Called with the micro-batch at hand, before the first collective of its forward pass."""
        self.count += 1
        self.is_in_step = True

    def end_step(self) -> None:
        self.is_in_step = False


#: Of this process, which trains one model at a time.
MARK = Mark()


class Standstill:
    """Notices that a mark in a step has not moved, once."""

    def __init__(self, mark: Mark, stall_seconds: float, now: float) -> None:
        """`now`: seconds of this process's monotonic clock, as for `look`."""
        self._mark, self._stall_seconds = mark, stall_seconds
        self._seen, self._since, self._is_told = mark.count, now, False

    def look(self, now: float) -> bool:
        """Whether it is time to say so."""
        if not self._mark.is_in_step or self._mark.count != self._seen:
            self._seen, self._since, self._is_told = self._mark.count, now, False
        if self._is_told or now - self._since <= self._stall_seconds:
            return False
        self._is_told = True
        return True


def words_of(counts: Mapping[int, int], places: Mapping[int, str], stall_seconds: float) -> tuple[int, str]:
    """What is said of a group that stands still.

    Args:
        counts: micro-batches that each rank has begun.
        places: process and host of each.
        stall_seconds: for how long nothing has moved.

    Returns:
        The rank that says it, the lowest of those that wait; the message.
    """
    fewest, most = min(counts.values()), max(counts.values())
    for_so_long = f"no micro-batch for {stall_seconds:g} s (train.stall_seconds)"
    if fewest == most:
        return min(counts), f"{for_so_long}: all ranks stand in the same one, so none can be named"
    behind = ", ".join(f"rank {rank} ({places[rank]})" for rank in sorted(counts) if counts[rank] == fewest)
    speaker = min(rank for rank in counts if counts[rank] > fewest)
    return speaker, f"{for_so_long}: {behind} has begun {fewest:,}, others {most:,} and wait for it"
