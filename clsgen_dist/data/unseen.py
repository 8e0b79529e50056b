"""Rows of a file that a finished model has not learned from."""

from __future__ import annotations

import numpy as np

from clsgen_dist.config.sections import Data
from clsgen_dist.data.rows import check_ids, read_rows
from clsgen_dist.data.splits import text_hash
from clsgen_dist.errors import DataError
from clsgen_dist.records import Row


def read_unseen(
    source: str, columns: Data, labels: list[str], seen: np.ndarray, reason: str, *, need_labels: bool = True
) -> list[Row]:
    """Reads rows and refuses those whose text the model has seen.

    Args:
        source, columns, labels, need_labels: as `read_rows`.
        seen: hashes of the texts that the model has seen, see `text_hash`; shape (N,), uint64.
        reason: what would come of it, for the message.

    Raises:
        DataError: as `read_rows`; two rows have one id; or a text was trained on.
    """
    rows = [row for _, row in read_rows(source, columns, labels, need_labels=need_labels)]
    check_ids(rows, source)
    hashes = np.fromiter((text_hash(row.text) for row in rows), dtype=np.uint64, count=len(rows))
    num_seen = int(np.isin(hashes, seen).sum())
    if num_seen:
        raise DataError(
            f"{source}: the model was trained on {num_seen} of these {len(rows)} texts, expected none: {reason}"
        )
    return rows
