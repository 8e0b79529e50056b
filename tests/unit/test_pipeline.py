"""What a finished evaluation tells the tracker and the terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsgen_dist.assess import flat_numbers
from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.evaluate.evaluation import evaluate
from clsgen_dist.integrity import write_json
from clsgen_dist.records import Prediction, Row
from clsgen_dist.summary import summary
from tests.support.tiny import tiny_config


def measure(labels: list[str], threshold: float | None, *, sure_probability: float = 0.9) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(200, len(labels)))
    probability = IDENTITY.apply(logits)
    truth = (draw.random((200, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    said = [dict(zip(labels, row.tolist(), strict=True)) for row in probability]
    predictions = [
        Prediction(
            id=str(n),
            label=labels[truth[n]],
            probability=said[n],
            raw_probability=said[n],
            predicted=labels[predicted],
            explanation="x",
            free_verdict=labels[predicted],
            free_explanation="x",
            is_cut=False,
            is_free_cut=False,
            logits=logits[n].tolist(),
        )
        for n, predicted in enumerate(decide(probability, threshold))
    ]
    return evaluate(
        predictions,
        [Row(id=str(n), text=f"text {n}", label=int(truth[n]), subgroups=(("site", "x"),)) for n in range(200)],
        labels=labels,
        threshold=threshold,
        calibrated=False,
        costs=[[0.0 if i == j else 1.0 for j in range(len(labels))] for i in range(len(labels))],
        sure_probability=sure_probability,
        num_bootstrap=100,
        num_bins=10,
        seed=0,
    )


@pytest.mark.parametrize(("labels", "threshold"), [(["no", "yes"], 0.4), (["low", "middle", "high"], None)])
def test_the_tracker_gets_flat_finite_numbers_once_each(labels: list[str], threshold: float | None) -> None:
    metrics = measure(labels, threshold)
    found = flat_numbers(metrics, "test")
    names = [name for name, _ in found]
    assert len(set(names)) == len(names)
    assert all(type(value) is float and math.isfinite(value) for _, value in found)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_/") for name in names)
    numbers = dict(found)
    assert numbers["test/auroc"] == metrics["calibrated"]["auroc"]
    assert numbers["test/raw_ece_null"] == metrics["raw"]["ece_null"]
    assert numbers["test/cost_bayes"] == metrics["decisions"]["expected_cost"]["bayes"]
    assert numbers["test/sure_share_answered"] == metrics["decisions"]["answer_when_sure"]["share_answered"]
    assert ("test/threshold_recall" in numbers) is (threshold is not None)
    assert not any(name.endswith("_ci") for name in names)


def test_the_terminal_says_what_the_numbers_are_to_be_held_against(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = RunFolder(config.folder)
    folder.evaluation("test").mkdir(parents=True)
    folder.tracking.write_text(json.dumps({"uri": "http://127.0.0.1:1"}), encoding="utf-8")

    def said(metrics: dict[str, Any]) -> str:
        write_json(folder.evaluation("test") / "metrics.json", metrics)
        return summary(config)

    metrics = measure(["no", "yes"], 0.4)
    at, sure = metrics["decisions"]["at_threshold"], metrics["decisions"]["answer_when_sure"]
    text = said(metrics)
    assert f"ECE {metrics['calibrated']['ece_null']:.4f} on as many rows" in text
    assert f"at threshold 0.4000     precision {at['precision']:.4f}, recall {at['recall']:.4f}" in text
    assert (
        f"sure (0.9 or more)      {100 * sure['share_answered']:.1f} % of rows, {100 * sure['accuracy']:.1f} %" in text
    )
    never = measure(["no", "yes"], 1.0, sure_probability=1.0)
    assert "precision undefined, recall 0.0000" in said(never)
    assert "sure (" not in said(never)
    assert "at threshold" not in said(measure(["low", "middle", "high"], None))
