"""Rows that are too many to hold: looked at once, in a stream, before anything is done with them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from clsgen_dist.errors import DataError
from clsgen_dist.records import Row

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Counted:
    """What a look at all rows found.

    Attributes:
        num_rows: how many there are, at least one.
        sha256: of id, text and label of all of them, in their order.
    """

    num_rows: int
    sha256: str


def count_rows(read: Callable[[], Iterator[Row]], source: str) -> Counted:
    """Reads all rows and keeps 8 bytes of each, so that a fault in the last one is met before any work is done.

    Args:
        read: gives the rows, twice where an id may stand twice.
        source: their name, for the message.

    Raises:
        DataError: what reading raises, or two rows have one id.
    """
    digest, kept, some = hashlib.sha256(), list[np.ndarray](), list[int]()
    for row in read():
        some.append(_short(row.id))
        for part in (row.id, row.text, str(row.label)):
            content = part.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        if len(some) == _ROWS_AT_ONCE:
            kept.append(np.array(some, dtype=np.uint64))
            some = []
    ids_N = np.concatenate([*kept, np.array(some, dtype=np.uint64)])
    if not len(ids_N):
        raise DataError(f"{source}: no rows in it")
    values, counts = np.unique(ids_N, return_counts=True)
    if (counts > 1).any():
        _check_suspects(read, source, set(values[counts > 1].tolist()))
    return Counted(len(ids_N), digest.hexdigest())


def _check_suspects(read: Callable[[], Iterator[Row]], source: str, suspects: set[int]) -> None:
    """Two ids of one hash are most likely one id."""
    places: dict[str, int] = {}
    for number, row in enumerate(read(), 1):
        if _short(row.id) in suspects:
            if row.id in places:
                raise DataError(f"{source}: rows {places[row.id]} and {number} have the same id {row.id[:60]!r}")
            places[row.id] = number


def _short(id: str) -> int:
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
