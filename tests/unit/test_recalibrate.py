"""A bundle is given another calibrator and threshold, and refuses rows that nothing can be learned from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clsgen_dist.bundle import load_bundle
from clsgen_dist.errors import BundleError, ClsGenError, ConfigError, DataError
from clsgen_dist.launch import calibrate_request
from clsgen_dist.progress import Event, silent
from clsgen_dist.recalibrate import recalibrate
from clsgen_dist.records import CalibrateRequest
from clsgen_dist.sealed import MANIFEST, read_manifest, seal
from clsgen_dist.summary import calibrated_summary
from tests.support.bundles import write_tiny_bundle
from tests.support.tiny import tiny_rows, write_jsonl

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was trained on the rows of seed 0; tests copy it."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def bundle(ready: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ready, tmp_path / "bundle"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80, seed=1))


def request(bundle: Path, source: Path, *words: str, test: Path | None = None) -> CalibrateRequest:
    tested = [] if test is None else ["--test", str(test)]
    return calibrate_request(["--bundle", str(bundle), "--data", str(source), *tested, *words])


def refused(kind: type[ClsGenError], bundle: Path, source: Path, *words: str, **more: Any) -> str:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    with pytest.raises(kind) as error:
        recalibrate(request(bundle, source, *words, **more), silent)
    assert error.value.exit_code == 2
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    return str(error.value)


def test_a_bundle_decides_as_it_was_told(bundle: Path, rows: Path, tmp_path: Path) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", tiny_rows(60, seed=2))
    heard: list[Event] = []
    words = ("--calibrate.method", "platt", "--calibrate.threshold", "cost", "--calibrate.threshold_value", "0.25")
    found = recalibrate(request(bundle, rows, *words, test=test), heard.append)
    loaded = load_bundle(bundle, device=CPU)
    assert loaded.calibrator == found.decision.calibrator
    assert loaded.calibrator.method == "platt"
    assert loaded.threshold == pytest.approx(0.2)
    assert {event.stage: event.done for event in heard} == {"calibrate": 80, "test": 60}
    assert set(found.metrics) == {"raw", "calibrated", "at_threshold", "subgroups"}
    assert found.metrics["at_threshold"]["threshold"] == pytest.approx(0.2)
    assert found.metrics["raw"]["nll"] != found.metrics["calibrated"]["nll"]
    printed = calibrated_summary(bundle, found.decision, found.warnings, found.metrics)
    assert "calibrator: platt slope" in printed
    assert "threshold:  0.2000 (cost 0.25)" in printed
    assert "share flagged" in printed


def test_candidates_are_kept_with_what_they_were_worth(bundle: Path, rows: Path) -> None:
    found = recalibrate(request(bundle, rows), silent)
    facts = json.loads((bundle / "calibrator.json").read_text(encoding="utf-8"))["facts"]
    assert [c["method"] for c in facts["candidates"]] == ["none", "temperature", "platt"]
    assert facts["num_rows"] == 80
    assert facts["rows_sha256"] == found.decision.facts["rows_sha256"]
    assert facts["threshold_ci"][0] <= found.decision.threshold <= facts["threshold_ci"][1]
    printed = calibrated_summary(bundle, found.decision, found.warnings, found.metrics)
    assert "held-out NLL" in printed
    # Few rows: the mean over slopes and intercepts, which the bundle keeps.
    assert "calibrator: average of the candidates, by their weights (80 rows)" in printed
    assert load_bundle(bundle, device=CPU).calibrator == found.decision.calibrator


def test_the_same_rows_give_the_same_bundle(bundle: Path, rows: Path) -> None:
    recalibrate(request(bundle, rows), silent)
    first = (bundle / "calibrator.json").read_bytes()
    recalibrate(request(bundle, rows), silent)
    assert (bundle / "calibrator.json").read_bytes() == first


def test_a_prior_moves_probabilities_and_threshold(bundle: Path, rows: Path) -> None:
    recalibrate(request(bundle, rows, "--calibrate.method", "temperature"), silent)
    before = load_bundle(bundle, device=CPU)
    recalibrate(
        request(bundle, rows, "--calibrate.method", "temperature", "--calibrate.prior", "{no: 0.98, yes: 0.02}"), silent
    )
    after = load_bundle(bundle, device=CPU)
    logits = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert (after.calibrator.apply(logits)[:, 1] < before.calibrator.apply(logits)[:, 1] / 5).all()
    assert before.threshold is not None
    assert after.threshold is not None
    assert after.threshold < before.threshold


def test_rows_that_were_trained_on(bundle: Path, tmp_path: Path) -> None:
    mixed = tiny_rows(40, seed=1) + [row | {"id": f"again-{row['id']}"} for row in tiny_rows(40)[:3]]
    mixed[-1]["text"] = f"  {mixed[-1]['text'].upper()}"
    assert "trained on 3 of these 43 texts" in refused(DataError, bundle, write_jsonl(tmp_path / "m.jsonl", mixed))


def test_a_test_file_with_rows_that_were_fitted_on(bundle: Path, rows: Path, tmp_path: Path) -> None:
    again = [row | {"id": f"again-{row['id']}"} for row in tiny_rows(80, seed=1)[:2]]
    test = write_jsonl(tmp_path / "test.jsonl", [*tiny_rows(40, seed=2), *again])
    assert "2 texts also stand in" in refused(DataError, bundle, rows, test=test)


def test_too_few_rows_and_one_label(bundle: Path, tmp_path: Path) -> None:
    few = write_jsonl(tmp_path / "few.jsonl", tiny_rows(19, seed=1))
    assert "19 labelled rows of 2 label(s), expected 20" in refused(DataError, bundle, few)
    one = write_jsonl(tmp_path / "one.jsonl", [row | {"label": "no"} for row in tiny_rows(30, seed=1)])
    assert "30 labelled rows of 1 label(s)" in refused(DataError, bundle, one)


def test_labels_of_another_task(bundle: Path, tmp_path: Path) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [row | {"label": "spam"} for row in tiny_rows(30, seed=1)])
    assert "other.jsonl:1: unknown label 'spam'" in refused(DataError, bundle, other)


def test_settings_that_cannot_be(bundle: Path, rows: Path) -> None:
    assert "--calibrate.method" in refused(ConfigError, bundle, rows, "--calibrate.method", "vector")
    assert "calibrate.methd" in refused(ConfigError, bundle, rows, "--calibrate.methd", "platt")
    with pytest.raises(ConfigError, match=r"--train\.epochs: only settings of data"):
        request(bundle, rows, "--train.epochs", "3")
    with pytest.raises(ConfigError, match="--data is missing"):
        calibrate_request(["--bundle", str(bundle)])


def test_a_changed_model_refuses_its_calibrator_until_it_is_calibrated_again(bundle: Path, rows: Path) -> None:
    recalibrate(request(bundle, rows), silent)
    task = json.loads((bundle / "task.json").read_text(encoding="utf-8"))
    task["question"] = "Is there a fire?"
    (bundle / "task.json").write_text(json.dumps(task), encoding="utf-8")
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    seal(bundle, manifest)
    read_manifest(bundle)
    with pytest.raises(BundleError, match="fitted to another model, prompt or order of labels"):
        load_bundle(bundle, device=CPU)
    recalibrate(request(bundle, rows), silent)
    load_bundle(bundle, device=CPU)


def test_groups_on_both_sides_and_a_test_file_that_cannot_be_measured(bundle: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", [row | {"group": n // 2} for n, row in enumerate(tiny_rows(40, seed=1))])
    test = write_jsonl(tmp_path / "t.jsonl", [row | {"group": n // 2} for n, row in enumerate(tiny_rows(10, seed=2))])
    assert "5 groups also stand in" in refused(DataError, bundle, rows, test=test)
    one = write_jsonl(tmp_path / "o.jsonl", [row | {"label": "no"} for row in tiny_rows(10, seed=3)])
    assert "labelled rows of 1 label(s) and 10 group(s)" in refused(DataError, bundle, rows, test=one)
    assert recalibrate(request(bundle, rows, "--data.allow_shared_groups", "true", test=test), silent).metrics


def test_without_a_calibrator_few_rows_are_enough(bundle: Path, tmp_path: Path) -> None:
    few = write_jsonl(tmp_path / "few.jsonl", tiny_rows(10, seed=1))
    found = recalibrate(request(bundle, few, "--calibrate.method", "none"), silent)
    assert found.decision.threshold is not None
    assert "10 labelled rows is little more than chance" in found.warnings[0]


@pytest.mark.parametrize("move", [0, 1, 2])
def test_a_process_that_dies_on_the_way_leaves_a_bundle_that_opens(
    bundle: Path, rows: Path, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    """Before the manifest, the calibrator, or the manifest again is put in its place."""
    replace, left = os.replace, [move]

    def dying(source: Any, place: Any) -> None:
        if Path(place).parent == bundle:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        replace(source, place)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        recalibrate(request(bundle, rows, "--calibrate.method", "platt"), silent)
    monkeypatch.undo()
    assert load_bundle(bundle, device=CPU).calibrator.method == ("platt" if move == 2 else "none")
    recalibrate(request(bundle, rows, "--calibrate.method", "temperature"), silent)
    assert load_bundle(bundle, device=CPU).calibrator.method == "temperature"
