"""Rows of the run folder come back as they went in."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clsgen_dist.data.store import stored_rows, write_rows
from clsgen_dist.records import Row


def test_rows_come_back_in_their_order(tmp_path: Path) -> None:
    rows = [
        Row(
            id=str(n),
            text=f"text {n} é\n",
            label=n % 3 if n % 5 else None,
            explanation="x" if n % 2 else None,
            group=None,
        )
        for n in range(9000)
    ]
    rows.append(Row(id="last", text="t", label=1, explanation="e", group="g", true_probability=0.25))
    assert write_rows(tmp_path / "deep" / "train.parquet", iter(rows)) == 9001
    assert list(stored_rows(tmp_path / "deep" / "train.parquet")) == rows


def test_no_rows(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "a.parquet", []) == 0
    assert list(stored_rows(tmp_path / "a.parquet")) == []


def test_subgroups_come_back_beside_rows_without(tmp_path: Path) -> None:
    rows = [
        Row(id="a", text="t", subgroups=(("site", 'Sør "1"'), ("sex", "(none)"))),
        Row(id="b", text="t"),
    ]
    write_rows(tmp_path / "a.parquet", rows)
    found = list(stored_rows(tmp_path / "a.parquet"))
    assert found == rows
    assert len(set(found)) == 2, "rows stay hashable"


def test_rows_of_an_earlier_version_have_no_subgroups(tmp_path: Path) -> None:
    rows = [Row(id="a", text="t", label=1)]
    write_rows(tmp_path / "a.parquet", rows)
    pq.write_table(pq.read_table(tmp_path / "a.parquet").drop_columns(["subgroups"]), tmp_path / "old.parquet")
    assert list(stored_rows(tmp_path / "old.parquet")) == rows


def test_a_row_that_went_through_json_is_the_row_that_went_in() -> None:
    row = Row(id="a", text="t", subgroups=(("site", "north"),))
    assert Row(**json.loads(json.dumps(asdict(row)))) == row


def test_reading_holds_a_small_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_rows(path, (Row(id=str(n), text=random.Random(n).randbytes(200).hex(), label=0) for n in range(30_000)))
    before = pa.total_allocated_bytes()
    held = max(pa.total_allocated_bytes() - before for n, _ in enumerate(stored_rows(path)) if n % 1000 == 0)
    assert held < path.stat().st_size / 5


def test_references_come_back_and_a_file_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    rows = [Row(id="a", text="t", references=("so", "därum")), Row(id="b", text="t")]
    write_rows(tmp_path / "a.parquet", rows)
    assert list(stored_rows(tmp_path / "a.parquet")) == rows
    pq.write_table(pq.read_table(tmp_path / "a.parquet").drop_columns(["references"]), tmp_path / "old.parquet")
    assert [row.references for row in stored_rows(tmp_path / "old.parquet")] == [(), ()]
    assert Row(**json.loads(json.dumps(asdict(rows[0])))) == rows[0]
    assert len(set(rows)) == 2, "rows stay hashable"
