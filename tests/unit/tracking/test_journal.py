"""The journal of what a run tells: whole lines, growing numbers, every step once."""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.tracking.journal import Journal, Record, read_entries

HEADER = {"name": "run", "experiment": "e", "artifacts": None, "parent": None, "time": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tracking" / "journal.jsonl"


def told(path: Path) -> list[tuple[int, str, dict[str, Any]]]:
    return [(entry.seq, entry.kind, entry.content) for entry in read_entries(path)]


def steps(path: Path, key: str) -> list[tuple[int, float]]:
    found = [content for _, kind, content in told(path) if kind == "metrics"]
    return [(content["step"], content["metrics"][key]) for content in found if key in content["metrics"]]


def test_a_journal_that_is_opened_again_goes_on(path: Path) -> None:
    first = Journal(path, HEADER)
    first.append("tags", {"tags": {"a": "ä\n"}})
    first.close()
    second = Journal(path, {**HEADER, "time": 2})
    second.append("begun", {})
    second.close()
    assert [(seq, kind) for seq, kind, _ in told(path)] == [(1, "run"), (2, "tags"), (3, "begun")]
    assert second.header == first.header
    assert second.header["time"] == 1
    assert told(path)[1][2] == {"tags": {"a": "ä\n"}}


def test_a_run_that_goes_on_in_another_experiment_says_so(path: Path) -> None:
    key = Journal(path, HEADER).header["key"]
    Journal(path, {**HEADER, "experiment": "another", "time": 2}).close()
    again = Journal(path)
    assert again.header == {**HEADER, "experiment": "another", "key": key}
    assert told(path)[1] == (2, "run", {"experiment": "another"})


def test_two_journals_have_two_keys(tmp_path: Path) -> None:
    keys = [Journal(tmp_path / name / "j", HEADER).header["key"] for name in ("one", "two")]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("num_bytes", range(1, 40, 6))
def test_a_torn_last_line_is_taken_away(path: Path, num_bytes: int) -> None:
    journal = Journal(path, HEADER)
    journal.append("tags", {"tags": {"a": "1"}})
    whole = path.read_bytes()
    journal.append("tags", {"tags": {"bbbb": "2222"}})
    journal.close()
    path.write_bytes(path.read_bytes()[:-num_bytes])
    again = Journal(path, HEADER)
    assert path.read_bytes() == whole
    again.append("status", {"status": "FAILED", "time": 2})
    again.close()
    assert [(seq, kind) for seq, kind, _ in told(path)] == [(1, "run"), (2, "tags"), (3, "status")]


def test_a_line_that_cannot_be_read_costs_that_line(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(path, HEADER)
    for value in "123":
        journal.append("tags", {"tags": {"a": value}})
    journal.close()
    path.write_bytes(path.read_bytes().replace(b'{"a": "2"}', b'{"a": \xff2"}'))
    with caplog.at_level(logging.WARNING):
        assert [seq for seq, _, _ in told(path)] == [1, 2, 4]
    assert "cannot be read and is left out" in caplog.text
    assert Journal(path, HEADER).seq == 4


def test_reading_from_an_entry_on(path: Path) -> None:
    journal = Journal(path, HEADER)
    for value in "123":
        journal.append("tags", {"tags": {"a": value}})
    ends = [entry.end for entry in read_entries(path)]
    assert [entry.seq for entry in read_entries(path, ends[1])] == [3, 4]
    assert ends[-1] == path.stat().st_size


def test_numbers_that_are_not_finite_are_left_out(path: Path) -> None:
    journal = Journal(path, HEADER)
    journal.append_metrics({"a": math.nan, "b": 1.5, "c": -math.inf}, step=1, time_ms=7)
    journal.append_metrics({"a": math.nan}, step=2, time_ms=8)
    assert told(path)[1:] == [(2, "metrics", {"time": 7, "step": 1, "metrics": {"b": 1.5}})]


def test_a_step_that_is_taken_again_is_not_told_again(path: Path) -> None:
    """A run that was killed after step 4 goes on from the checkpoint of step 2."""
    journal = Journal(path, HEADER)
    for step in (1, 2, 3, 4):
        journal.append_metrics({"train/loss": 1 / step}, step=step, time_ms=step)
    journal.append_metrics({"validation/loss": 0.5}, step=4, time_ms=4)
    journal.close()
    resumed = Journal(path, HEADER)
    for step in (3, 4, 5):
        resumed.append_metrics({"train/loss": 1 / step, "train/kl": 0.1}, step=step, time_ms=10 + step)
    assert steps(path, "train/loss") == [(step, 1 / step) for step in (1, 2, 3, 4, 5)]
    assert [step for step, _ in steps(path, "train/kl")] == [3, 4, 5]


def test_a_number_without_a_step_is_told_again_where_it_changed(path: Path) -> None:
    for value in (0.8, 0.8, 0.9, 0.8):
        journal = Journal(path, HEADER)
        journal.append_metrics({"test/auroc": value}, step=0, time_ms=1)
        journal.close()
    assert steps(path, "test/auroc") == [(0, 0.8), (0, 0.9), (0, 0.8)]


def test_a_full_disk_costs_entries_and_no_training(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(path, HEADER)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
        with caplog.at_level(logging.WARNING):
            for step in (1, 2):
                journal.append_metrics({"train/loss": 1.0}, step=step, time_ms=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    journal.append_metrics({"train/loss": 1.0}, step=3, time_ms=1)
    assert steps(path, "train/loss") == [(3, 1.0)]
    assert caplog.text.count("cannot be written") == 1
    assert journal.seq == 2, "a number that was not written is given again"


def test_a_record_reads_back_and_a_torn_one_is_none(tmp_path: Path) -> None:
    record = Record("http://h:1", run_id="r", key="k", seq=7, offset=99, left=[3])
    path = tmp_path / "tracking.json"
    record.save(path)
    assert Record.load(path) == record
    assert [p.name for p in tmp_path.iterdir()] == ["tracking.json"]
    path.write_text(path.read_text()[:20])
    assert Record.load(path) is None
    path.write_text(json.dumps({"uri": "u", "run_id": "of an earlier version"}))
    assert Record.load(path) == Record("u", run_id="of an earlier version")
