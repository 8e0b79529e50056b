"""The text of a row may be a patient's note: it stands in no message in full, and in no log above DEBUG."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clsgen_dist.config.sections import Data, Task
from clsgen_dist.data.rows import read_rows
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.errors import ClsGenError, DataError
from clsgen_dist.sources import survey_splits
from clsgen_dist.verbalize.answers import read_answers
from clsgen_dist.verbalize.parsing import parse_distribution
from tests.support.tiny import tiny_config, tiny_tokenizer

NOTE = "Mrs Marker of 14 Secret Lane has had a fever of 39.7 since the night of her daughter's wedding."


def _write(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def _read(path: str, **columns: object) -> None:
    list(read_rows(path, Data.model_validate(columns), ["no", "yes"]))


def _parquet(path: Path) -> str:
    pq.write_table(pa.table({"text": [NOTE], "label": [NOTE]}), path)
    return str(path)


ROW = {"text": NOTE, "label": 0}

#: Each reads rows of which something is wrong, and the note stands where it does most harm.
BROKEN: dict[str, Callable[[Path], None]] = {
    "json cut in the note": lambda folder: _read(_write(folder / "a.jsonl", json.dumps(ROW)[:60])),
    "the note instead of JSON": lambda folder: _read(_write(folder / "a.jsonl", NOTE)),
    "the note as a label": lambda folder: _read(_write(folder / "a.jsonl", json.dumps({"text": "a", "label": NOTE}))),
    "the note as a key": lambda folder: _read(_write(folder / "a.jsonl", json.dumps({NOTE: "a", "label": 0}))),
    "the note as a key twice": lambda folder: _read(_write(folder / "a.jsonl", f'{{"{NOTE}": 1, "{NOTE}": 2}}')),
    "the note in a list": lambda folder: _read(_write(folder / "a.jsonl", json.dumps({"text": [NOTE], "label": 0}))),
    "an explanation in a list": lambda folder: _read(
        _write(folder / "a.jsonl", json.dumps(ROW | {"explanation": [NOTE]}))
    ),
    "the note as a number": lambda folder: _read(
        _write(folder / "a.jsonl", json.dumps(ROW | {"p": NOTE})), true_probability_column="p"
    ),
    "the note as a subgroup": lambda folder: _read(
        _write(folder / "a.jsonl", json.dumps(ROW | {"site": NOTE * 4})), subgroup_columns=["site"]
    ),
    "half of a character": lambda folder: _read(
        _write(folder / "a.jsonl", json.dumps({"text": NOTE, "label": 0})[:-1] + ', "x": "\\ud83d"}')
    ),
    "csv without a header": lambda folder: _read(_write(folder / "a.csv", f'"{NOTE}",0\n"b",1\n')),
    "csv of one column without a header": lambda folder: _read(_write(folder / "a.csv", f"{NOTE}\nb\n")),
    "csv with too many cells": lambda folder: _read(_write(folder / "a.csv", f"text,label\n{NOTE},{NOTE},0\n")),
    "csv with a quote too many": lambda folder: _read(_write(folder / "a.csv", f'text,label\n"{NOTE}"x,0\n')),
    "json document": lambda folder: _read(_write(folder / "a.json", f'[{{"text": "{NOTE}" "label": 0}}]')),
    "parquet label": lambda folder: _read(_parquet(folder / "a.parquet")),
    "two splits": lambda folder: _shared(folder),
    "answers": lambda folder: _answers(folder, {"id": 1, "label": NOTE, "answer": NOTE, "text": NOTE}),
    "answers of a list": lambda folder: _answers(folder, {"id": 1, "label": 0, "answer": [NOTE]}),
    "answers with one id": lambda folder: _answers(folder, {"id": NOTE, "label": 0, "answer": NOTE}, times=2),
}


def _shared(folder: Path) -> None:
    rows = [{"id": n, "text": NOTE if n == 1 else f"words {n}", "label": n % 2} for n in range(40)]
    train = _write(folder / "train.jsonl", "\n".join(map(json.dumps, rows)))
    test = [{"id": 100 + n, "text": NOTE.upper() if n == 1 else f"other {n}", "label": n % 2} for n in range(40)]
    config = tiny_config(
        folder, **{"data.train": train, "data.test": _write(folder / "test.jsonl", "\n".join(map(json.dumps, test)))}
    )
    survey_splits(config)


def _answers(folder: Path, record: dict[str, object], times: int = 1) -> None:
    path = folder / "answers.jsonl"
    _write(path, (json.dumps(record) + "\n") * times)
    read_answers(path, ["no", "yes"], sum_tolerance=0.05)


@pytest.mark.parametrize("name", BROKEN)
def test_a_note_stands_in_no_error_and_no_log(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(ClsGenError) as caught:
        BROKEN[name](tmp_path)
    told = "".join(traceback.format_exception(caught.value))
    out, err = capfd.readouterr()
    for words in (told, str(caught.value), caplog.text, out, err):
        assert NOTE.casefold() not in words.casefold()
    # Forty letters are told of a label, twenty-four of a column's name; no more of it than that.
    assert NOTE[:45].casefold() not in told.casefold()


def test_good_rows_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        path = _write(tmp_path / "a.jsonl", json.dumps(ROW) + "\n")
        ((_, row),) = read_rows(path, Data(), ["no", "yes"])
        task = Task(question="Fever?", labels=["no", "yes"])
        tokens = RowTokenizer(tiny_tokenizer(), task, max_prompt_tokens=400, max_explanation_tokens=8)
        tokens.encode_prompts([row.text])
        parse_distribution(NOTE, ["no", "yes"], sum_tolerance=0.05)
        with pytest.raises(DataError):
            RowTokenizer(tiny_tokenizer(), task, max_prompt_tokens=4, max_explanation_tokens=8)
    assert NOTE not in caplog.text
