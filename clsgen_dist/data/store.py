"""Rows in the run folder: one Parquet file a split, written and read in a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
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
        ("references", pa.list_(pa.string())),
    ]
)

#: Both keep memory flat: Parquet holds a group of rows at a time, and rows are many times larger as Python objects.
_ROWS_A_GROUP = 1024
_ROWS_AT_ONCE = 256


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Writes rows; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source, num_rows = iter(rows), 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        while len(group := _table(islice(source, _ROWS_A_GROUP))):
            writer.write_table(group)
            num_rows += len(group)
    return num_rows


def _table(rows: Iterator[Row]) -> pa.Table:
    parts = [SCHEMA.empty_table()]
    while some := list(islice(rows, _ROWS_AT_ONCE)):
        parts.append(pa.Table.from_pylist([_record(row) for row in some], schema=SCHEMA))
    return pa.concat_tables(parts)


def stored_rows(path: Path) -> Iterator[Row]:
    """Reads the rows that `write_rows` wrote, in their order."""
    # pre_buffer would keep the bytes of the whole file; threads would each keep memory of their own.
    file = pq.ParquetFile(path, pre_buffer=False)
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, use_threads=False):
        for record in batch.to_pylist():
            # A file of an earlier version has no such columns.
            subgroups, references = record.pop("subgroups", None), record.pop("references", None)
            yield Row(**record, subgroups=json.loads(subgroups) if subgroups else (), references=tuple(references or ()))


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {name: getattr(row, name) for name in SCHEMA.names}
    return record | {
        "subgroups": json.dumps(row.subgroups, ensure_ascii=False) if row.subgroups else None,
        "references": list(row.references) or None,
    }
