"""A file of predictions: whole or not at all, and the same whenever the process before it ended."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.claim import claimed
from clsgen_dist.data.counted import count_rows
from clsgen_dist.errors import BundleError, ConfigError, DataError
from clsgen_dist.predict.files import predict_file
from clsgen_dist.progress import Event, silent
from clsgen_dist.records import PredictRequest, Row
from tests.support.bundles import write_tiny_bundle
from tests.support.tiny import tiny_rows, write_jsonl

NUM_ROWS = 22
WINDOW = 8
UNCERTAIN = ("--predict.explain=uncertain", "--predict.uncertain_margin=0.02")


class Stopped(Exception):
    """As a process that ends in the middle."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", tiny_rows(NUM_ROWS, seed=1))


def asked(bundle: Path, source: Path, *settings: str, output: str = "out.jsonl") -> PredictRequest:
    few = ("--predict.token_budget=150", "--predict.max_new_tokens=6")
    return PredictRequest(bundle, str(source), source.with_name(output), None, (), (*few, *settings))


def predict(request: PredictRequest, stop_after: int | None = None) -> list[Event]:
    """Predicts and returns what was heard; ends after so many events as if the process had."""
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if len(heard) == stop_after:
            raise Stopped

    predict_file(request, listen, window_rows=WINDOW)
    return heard


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("settings", [("--predict.explain=none",), UNCERTAIN, ()], ids=["none", "uncertain", "all"])
def test_it_goes_on_where_it_was_stopped_with_the_same_lines(
    bundle: Path, source: Path, settings: tuple[str, ...]
) -> None:
    whole = asked(bundle, source, *settings, output="whole.jsonl")
    events = predict(whole)
    assert [line["id"] for line in lines(whole.output)] == [row["id"] for row in tiny_rows(NUM_ROWS, seed=1)]
    num_explained = sum(line["explanation"] is not None for line in lines(whole.output))
    assert num_explained in {(): {NUM_ROWS}, UNCERTAIN: set(range(2, NUM_ROWS - 2))}.get(settings, {0})
    assert [(e.done, e.total) for e in (events[-1],)] == [(NUM_ROWS, NUM_ROWS)]
    assert [e.done for e in events] == sorted(e.done for e in events)
    broken = asked(bundle, source, *settings)
    for _ in range(2 * len(events)):  # every process but the last ends after two steps
        try:
            predict(broken, stop_after=2)
        except Stopped:
            assert not broken.output.exists()
        if broken.output.exists():
            break
    assert broken.output.read_bytes() == whole.output.read_bytes()
    assert sorted(path.name for path in source.parent.iterdir()) == ["out.jsonl", "rows.jsonl", "whole.jsonl"]


def test_a_line_that_was_cut_is_made_again(bundle: Path, source: Path) -> None:
    predict(whole := asked(bundle, source, output="whole.jsonl"))
    broken = asked(bundle, source)
    with pytest.raises(Stopped):
        predict(broken, stop_after=2)
    (journal,) = source.parent.glob("out.jsonl.parts/journal-*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-9])
    predict(broken)
    assert broken.output.read_bytes() == whole.output.read_bytes()


def test_another_request_is_refused_and_says_what_is_another(bundle: Path, source: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        predict(asked(bundle, source), stop_after=2)
    before = {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}
    other_rows = write_jsonl(tmp_path / "other" / "rows.jsonl", tiny_rows(NUM_ROWS, seed=2))
    for request, name in (
        (asked(bundle, source, "--predict.explain=none"), r"explain \('all', now 'none'\)"),
        (asked(bundle, source, "--predict.token_budget=151"), r"token_budget \(150, now 151\)"),
        (
            PredictRequest(
                bundle, str(other_rows), source.with_name("out.jsonl"), None, (), asked(bundle, source).settings
            ),
            "input",
        ),
        (asked(write_tiny_bundle(tmp_path / "fresh", seed=1), source), "model"),
    ):
        with pytest.raises(ConfigError, match=f"begun with another .*{name}.*delete the folder"):
            predict(request)
    assert {path: path.read_bytes() for path in before} == before
    predict(asked(bundle, source))


def test_a_folder_of_somebody_else_is_left_alone(bundle: Path, source: Path) -> None:
    place = source.with_name("out.jsonl.parts")
    place.mkdir()
    (place / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"found notes\.txt"):
        predict(asked(bundle, source))
    assert (place / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_two_processes_do_not_write_one_output(bundle: Path, source: Path) -> None:
    request = asked(bundle, source)
    with claimed(source.with_name("out.jsonl.parts")), pytest.raises(ConfigError, match="choose another --output"):
        predict(request)
    predict(request)


def test_an_output_that_stands_is_replaced_when_the_new_one_is_whole(bundle: Path, source: Path) -> None:
    request = asked(bundle, source)
    request.output.write_text("old\n", encoding="utf-8")
    with pytest.raises(Stopped):
        predict(request, stop_after=2)
    assert request.output.read_text(encoding="utf-8") == "old\n"
    predict(request)
    assert len(lines(request.output)) == NUM_ROWS


def test_nothing_is_written_for_what_cannot_be_used(bundle: Path, source: Path, tmp_path: Path) -> None:
    twice = write_jsonl(tmp_path / "twice.jsonl", [*tiny_rows(9), tiny_rows(3)[2]])
    for request, kind, words in (
        (asked(bundle, twice), DataError, "rows 3 and 10 have the same id"),
        (asked(bundle, source, "--predict.explain=uncertain"), ConfigError, "without predict.uncertain_margin"),
        (asked(tmp_path / "none", source), BundleError, "no bundle here"),
    ):
        with pytest.raises(kind, match=words):
            predict_file(request, silent)
    assert not list(tmp_path.glob("out.jsonl*"))


def test_a_row_costs_few_bytes_however_long_its_text_is() -> None:
    def rows(number: int) -> Iterator[Row]:
        return (Row(id=f"row-{n}", text="word " * 400 + str(n)) for n in range(number))

    peaks = []
    for number in (2_000, 20_000):
        tracemalloc.start()
        found = count_rows(lambda number=number: rows(number), "rows")  # type: ignore[misc]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.num_rows == number
    assert peaks[1] - peaks[0] < 18_000 * 60
