"""Rows that come home from Ray Data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def closed_at_the_end(rows: Iterable[dict[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
    """Iterates over rows, and lets go of what makes them when the block ends, however it ends.

    An error would else keep the iterator, in its traceback, and Ray Data's own thread would go on making rows. Once the
    cluster is shut down, that thread ends the whole process before the error is told.
    """
    iterator = iter(rows)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
