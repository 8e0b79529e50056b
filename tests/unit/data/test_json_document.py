"""One JSON document of many rows: read piece by piece, and refused where it is torn."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.sections import Data
from clsgen_dist.data import json_document
from clsgen_dist.data.files import read_records
from clsgen_dist.data.rows import read_rows
from clsgen_dist.errors import DataError
from tests.support.tiny import write_jsonl

#: Stands for a patient's note: no message may hold it.
SECRET = "Ms Quill of Fenwick Street has a tremor"
RECORDS = [{"id": "0xa1", "text": 'one "[{\n', "died": 0}, {"text": "zwölf ]}", "died": 1, "more": {"data": [1]}}]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [dict(record) for _, record in read_records(str(path))]


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        records(path)
    assert SECRET not in str(error.value)
    return str(error.value).removeprefix(f"{path}:")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("wrap", [True, False], ids=["data", "array"])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_each_form_gives_the_same_records(
    tmp_path: Path, indent: int | None, wrap: bool, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps({"data": RECORDS} if wrap else RECORDS, indent=indent)
    monkeypatch.setattr(json_document, "PIECE_CHARACTERS", max(piece, 16))
    assert records(write(tmp_path / "rows.json", text)) == RECORDS
    assert records(write(tmp_path / "rows.json", f"\ufeff \n{text}\n")) == RECORDS


def test_a_record_knows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps({"data": [{"text": "a"}, {"text": "b"}]}, indent=2))
    assert [place for place, _ in read_records(str(path))] == [f"{path}:3", f"{path}:6"]


def test_json_lines_may_be_called_json(tmp_path: Path) -> None:
    rows = [{"text": "a", "data": [1]}, {"data": [{"x": 1}], "text": "b"}]
    assert records(write_jsonl(tmp_path / "rows.json", rows)) == rows


def test_labels_are_read_by_their_own_column(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps({"data": RECORDS}))
    rows = [row for _, row in read_rows(str(path), Data(label_column="died"), ["survival", "death"])]
    assert [(row.id, row.label) for row in rows] == [("0xa1", 0), ("rows-2", 1)]


def test_a_document_without_objects_holds_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", '{"data": []}')
    with pytest.raises(DataError, match=r"rows.json: no rows in it$"):
        list(read_rows(str(path), Data(), ["no", "yes"]))


def test_what_follows_the_array_in_its_object_is_passed_over(tmp_path: Path) -> None:
    assert records(write(tmp_path / "rows.json", '{"data": [{"text": "a"}], "version": 1}')) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{{"data": [\n{{"text": "{SECRET}"', "2: not JSON ("),
        (f'{{"data": [\n{{"text": "{SECRET}"}}', "2: not JSON (expected a comma between two objects)"),
        (f'[{{"text": "{SECRET}"}}\n{{"text": "b"}}]', "2: not JSON (expected a comma between two objects)"),
        (f'[{{"text": "{SECRET}"}},\n]', "2: not JSON ("),
        (f'[\n"{SECRET}"]', "2: expected a JSON object, found str"),
        (f'[{{"text": "{SECRET}"}}]\n[]', "2: not JSON (something stands behind the array)"),
        (f'{{"data": [{{"text": "{SECRET}"}}]\n', "2: not JSON (something stands behind the array)"),
        ('[{"a": ' + "[" * 100_000, "1: not JSON (nested too deeply)"),
        ('[{"a": ' + "9" * 5000 + "}]", "1: not JSON (Exceeds the limit"),
        (f'[{{"text": "{SECRET} \\ud83d"}}]', "1: not text: an escape"),
    ],
)
def test_a_broken_document_gets_one_message(tmp_path: Path, text: str, message: str) -> None:
    assert refused(write(tmp_path / "rows.json", text)).startswith(message)


def test_a_document_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b'{"data": [{"text": "caf\xe9"}]}')
    assert refused(tmp_path / "rows.json").startswith("1: not UTF-8")


def test_a_document_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_document, "PIECE_CHARACTERS", 1 << 14)
    note = "word " * 400
    path = write(tmp_path / "rows.json", json.dumps({"data": [{"text": f"{n} {note}"} for n in range(2000)]}, indent=2))
    tracemalloc.start()
    num_records = sum(1 for _ in read_records(str(path)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_records == 2000
    assert peak < path.stat().st_size / 10


def test_an_element_without_end_is_given_up_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_document, "PIECE_CHARACTERS", 64)
    path = write(tmp_path / "rows.json", '[{"text": "' + "x" * 100_000)
    found = json_document.document_objects(path, max_characters=1000)
    with pytest.raises(DataError, match=":1: not JSON"):
        next(found)
