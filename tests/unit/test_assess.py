"""A finished bundle is measured on rows of a file, and refuses those that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.assess import cannot_measure, evaluate_bundle
from clsgen_dist.bundle import load_bundle
from clsgen_dist.data.store import write_rows
from clsgen_dist.errors import BundleError, ClsGenError, ConfigError, DataError
from clsgen_dist.launch import evaluate_request
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.progress import Event, silent
from clsgen_dist.records import EvaluateRequest, Row
from clsgen_dist.summary import evaluated_summary
from tests.support.bundles import write_tiny_bundle
from tests.support.tiny import tiny_rows, write_jsonl

QUICK = ("--evaluate.num_bootstrap", "100", "--evaluate.max_explained_rows", "8", "--predict.max_new_tokens", "12")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "fresh.jsonl", tiny_rows(60, seed=1))


def request(bundle: Path, source: Path, *words: str) -> EvaluateRequest:
    output = ["--output", str(source.parent / "out")]
    return evaluate_request(["--bundle", str(bundle), "--data", str(source), *output, *QUICK, *words])


def refused(kind: type[ClsGenError], bundle: Path, source: Path, *words: str) -> str:
    with pytest.raises(kind) as error:
        evaluate_bundle(request(bundle, source, *words), silent)
    assert error.value.exit_code == 2
    assert not (source.parent / "out").exists()
    return str(error.value)


def test_a_file_of_rows_is_predicted_measured_and_reported(bundle: Path, rows: Path) -> None:
    heard: list[Event] = []
    asked = request(bundle, rows)
    metrics = evaluate_bundle(asked, heard.append)
    assert metrics is not None
    assert {"metrics.json", "predictions.jsonl", "report.html", "reliability.png"} <= {
        path.name for path in asked.output.iterdir()
    }
    assert json.loads((asked.output / "metrics.json").read_text(encoding="utf-8")) == metrics
    lines = [json.loads(line) for line in (asked.output / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in tiny_rows(60, seed=1)]
    assert sum(line["explanation"] is not None for line in lines) == 8
    assert metrics["num_rows"] == 60
    assert metrics["explanation"]["num_rows"] == 8
    assert "fresh, 60 rows" in evaluated_summary(asked, metrics)
    assert {(event.stage, event.total) for event in heard} >= {("evaluate", 60)}


def test_probabilities_are_those_of_the_one_predictor(bundle: Path, rows: Path) -> None:
    asked = request(bundle, rows)
    evaluate_bundle(asked, silent)
    given = [Row(id=row["id"], text=row["text"]) for row in tiny_rows(60, seed=1)]
    alone = Predictor(load_bundle(bundle, device=torch.device("cpu")), 4096, 12, torch.device("cpu"))
    expected = {p.id: p.probability for p in alone.predict(given, num_explained=0)}
    for line in (asked.output / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        assert found["probability"] == pytest.approx(expected[found["id"]], abs=1e-6)


def test_the_same_input_twice_gives_the_same_files(bundle: Path, rows: Path) -> None:
    asked = request(bundle, rows)
    evaluate_bundle(asked, silent)
    first = {path.name: path.read_bytes() for path in asked.output.iterdir()}
    evaluate_bundle(asked, silent)
    assert {path.name: path.read_bytes() for path in asked.output.iterdir()} == first


@pytest.mark.parametrize("column", ["absent", "null", "one"])
def test_rows_that_cannot_be_measured_are_predicted_only(bundle: Path, tmp_path: Path, column: str) -> None:
    label: dict[str, Any] = {"null": {"label": None}, "one": {"label": "yes"}}.get(column, {})
    bare = [{"id": row["id"], "text": row["text"], **label} for row in tiny_rows(20, seed=1)]
    heard: list[Event] = []
    asked = request(bundle, write_jsonl(tmp_path / "bare.jsonl", bare))
    assert evaluate_bundle(asked, heard.append) is None
    assert [path.name for path in asked.output.iterdir()] == ["predictions.jsonl"]
    assert heard[-1].note.startswith("predicted only: ")
    assert "predicted only" in evaluated_summary(asked, None)


def test_metrics_of_an_earlier_file_do_not_stay_beside_other_predictions(bundle: Path, rows: Path) -> None:
    asked = request(bundle, rows)
    evaluate_bundle(asked, silent)
    write_jsonl(rows, [{"id": row["id"], "text": row["text"]} for row in tiny_rows(20, seed=1)])
    evaluate_bundle(asked, silent)
    assert [path.name for path in asked.output.iterdir()] == ["predictions.jsonl"]


def test_rows_that_were_trained_on(bundle: Path, tmp_path: Path) -> None:
    mixed = tiny_rows(20, seed=1) + [row | {"id": f"again-{row['id']}"} for row in tiny_rows(40)[:3]]
    assert "trained on 3 of these 23 texts" in refused(DataError, bundle, write_jsonl(tmp_path / "m.jsonl", mixed))


def test_labels_of_another_task(bundle: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [row | {"label": "spam"} for row in tiny_rows(30, seed=1)])
    assert "other.jsonl:1: unknown label 'spam'" in refused(DataError, bundle, other)


def test_settings_and_places_that_cannot_be(bundle: Path, rows: Path, tmp_path: Path) -> None:
    assert "evaluate.num_bin" in refused(ConfigError, bundle, rows, "--evaluate.num_bin", "3")
    assert "predict.num_workers" in refused(ConfigError, bundle, rows, "--predict.num_workers", "2")
    assert "evaluate.costs" in refused(ConfigError, bundle, rows, "--evaluate.costs", "[[0, 1], [5, 6]]")
    assert "--explanations" in refused(ConfigError, bundle, rows, "--explanations", str(tmp_path / "none.parquet"))
    assert refused(BundleError, tmp_path / "nowhere", rows)
    with pytest.raises(ConfigError, match=r"--train\.epochs: only settings of data"):
        request(bundle, rows, "--train.epochs", "3")
    with pytest.raises(ConfigError, match="--data is missing"):
        evaluate_request(["--bundle", str(bundle)])
    with pytest.raises(ConfigError, match="--output FOLDER is missing"):
        evaluate_request(["--bundle", str(bundle), "--data", str(rows)])
    with pytest.raises(ConfigError, match="--config: a bundle knows its task"):
        evaluate_request(["--config", "run.yaml", "--data", str(rows)])


def test_results_go_beside_those_of_the_run_that_the_bundle_stands_in(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {}\n", encoding="utf-8")
    asked = evaluate_request(["--bundle", str(tmp_path / "bundle"), "--data", "far/away.jsonl"])
    assert asked.output == tmp_path / "evaluation" / "away"
    assert asked.explanations is None
    (tmp_path / "explained").mkdir()
    (tmp_path / "explained" / "train.parquet").write_bytes(b"")
    asked = evaluate_request(["--bundle", str(tmp_path / "bundle"), "--data", "far/away.jsonl"])
    assert asked.explanations == tmp_path / "explained" / "train.parquet"


def test_why_rows_cannot_be_measured() -> None:
    two = [Row(id="a", text="x", label=0, group="g"), Row(id="b", text="y", label=1, group="g")]
    assert cannot_measure([Row(id="a", text="x")]) == "no row has a label"
    assert cannot_measure(two[:1] * 2) == "labelled rows of 1 label(s) in 1 group(s); metrics need two of each"
    assert cannot_measure(two) == "labelled rows of 2 label(s) in 1 group(s); metrics need two of each"
    assert cannot_measure([*two, Row(id="c", text="z", label=0)]) is None


def test_explanations_are_read_by_each_reader_that_can_be_had(bundle: Path, rows: Path, tmp_path: Path) -> None:
    without = evaluate_bundle(request(bundle, rows), silent)
    assert without is not None
    assert set(without["explanation"]["readers"]) == {"verdict"}
    assert "--explanations" in without["explanation"]["unavailable"]["text"]
    taught = tmp_path / "train.parquet"
    write_rows(taught, (Row(**row) for row in tiny_rows(400)))
    metrics = evaluate_bundle(request(bundle, rows, "--explanations", str(taught)), silent)
    assert metrics is not None
    words = metrics["explanation"]
    assert set(words["readers"]) == {"verdict", "text"}
    assert words["readers"]["text"]["reader"]["accuracy"] > 0.95
    assert words["readers"]["verdict"]["conditioned"]["agreement"] == 1
    assert words["kappa"] == words["readers"]["verdict"]["free"]["kappa"]
    alone = evaluate_bundle(request(bundle, rows, "--evaluate.readers", "[]"), silent)
    assert alone is not None
    assert alone["explanation"]["readers"] == {}


def test_a_judge_that_nobody_is_stops_the_evaluation_before_it_begins(bundle: Path, rows: Path) -> None:
    words = ["--evaluate.readers", "[judge]", "--evaluate.judge.base_url", "http://127.0.0.1:9/v1"]
    words += ["--evaluate.judge.model", "m", "--evaluate.judge.api_key_env", "null"]
    with pytest.raises(ClsGenError, match=r"evaluate\.judge\.base_url: nobody answers"):
        evaluate_bundle(request(bundle, rows, *words), silent)
    assert not (rows.parent / "out").exists()
