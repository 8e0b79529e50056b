"""Rows in the run folder: one Parquet file a split, written and read in a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clsgen_dist.records import Row

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("label", pa.int32()),
        ("explanation", pa.string()),
        ("group", pa.string()),
        ("true_probability", pa.float64()),
        ("subgroups", pa.string()),  # JSON: [[column, value], ...]
    ]
)

_ROWS_A_GROUP = 4096


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num_rows, waiting = 0, []
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for row in rows:
            waiting.append(_record(row))
            num_rows += 1
            if len(waiting) == _ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(waiting, schema=SCHEMA))
                waiting = []
        writer.write_table(pa.Table.from_pylist(waiting, schema=SCHEMA))
    return num_rows


def stored_rows(path: Path) -> Iterator[Row]:
    """Reads the rows that `write_rows` wrote, in their order."""
    for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS_A_GROUP):
        for record in batch.to_pylist():
            # A file of an earlier version has no such column.
            subgroups = record.pop("subgroups", None)
            yield Row(**record, subgroups=json.loads(subgroups) if subgroups else ())


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(row, name) for name in SCHEMA.names}
    return record | {"subgroups": json.dumps(row.subgroups, ensure_ascii=False) if row.subgroups else None}
