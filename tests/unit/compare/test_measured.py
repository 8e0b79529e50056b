"""Predictions side by side: read in one order, resampled together, compared on the rows that both have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clsgen_dist.compare.measured import Measured, paired_differences, read_measured, resampled_means
from clsgen_dist.config.folder import RunFolder

DRAW = {"num_bootstrap": 400, "num_bins": 15, "seed": 0}


def measured(scores: np.ndarray, labels_N: np.ndarray, ids: list[str] | None = None) -> Measured:
    ids = ids or [f"{n:04}" for n in range(len(scores))]
    probability_NK = np.stack([1 - scores, scores], axis=1)
    return Measured(tuple(ids), np.array(ids), labels_N, probability_NK, (scores > 0.5).astype(np.int64))


def drawn(num_rows: int = 300, *, noise: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels_N = draw.integers(0, 2, num_rows)
    scores_N = 1 / (1 + np.exp(-(2 * labels_N - 1 + noise * np.random.default_rng(9).normal(size=num_rows))))
    return scores_N, labels_N


def write_predictions(folder: Path, ids: list[str], labels: list[str | None]) -> RunFolder:
    place = RunFolder(folder)
    place.evaluation("test").mkdir(parents=True)
    lines = [
        {
            "id": id,
            "label": label,
            "predicted": "no",
            "probability": {"no": 0.75, "yes": 0.25},
            "raw_probability": {"no": 0.25, "yes": 0.75},
        }
        for id, label in zip(ids, labels, strict=True)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (place.evaluation("test") / "predictions.jsonl").write_text(text, encoding="utf-8")
    return place


def test_rows_are_read_by_id_whatever_their_order_and_only_labelled_ones(tmp_path: Path) -> None:
    folder = write_predictions(tmp_path, ["c", "a", "b"], ["yes", "no", None])
    groups = {"a": "row a", "b": "row b", "c": "group 7"}
    found = read_measured(folder, ["no", "yes"], groups, "calibrated")
    assert (found.ids, found.groups_N.tolist(), found.labels_N.tolist()) == (("a", "c"), ["row a", "group 7"], [0, 1])
    assert found.probability_NK.tolist() == [[0.75, 0.25]] * 2
    assert found.predicted_N.tolist() == [0, 0]
    raw = read_measured(folder, ["no", "yes"], groups, "raw")
    assert raw.probability_NK.tolist() == [[0.25, 0.75]] * 2
    assert raw.predicted_N.tolist() == [1, 1], "the largest raw probability, not the run's decision"


def test_an_arm_does_not_differ_from_itself() -> None:
    own = [measured(*drawn(noise=2.0))]
    _, found = paired_differences(own, own, ("auroc", "nll"), **DRAW)
    assert found == {"auroc": {"mean": 0.0, "ci": [0.0, 0.0]}, "nll": {"mean": 0.0, "ci": [0.0, 0.0]}}


def test_paired_intervals_are_narrower_than_those_of_each_arm() -> None:
    """Two models that err on the same rows differ for sure, though each one's own AUROC is uncertain."""
    scores_N, labels_N = drawn(noise=2.0)
    blurred_N = np.clip(scores_N + 0.02 * np.random.default_rng(3).normal(size=len(scores_N)), 0.001, 0.999)
    one, other = [measured(scores_N, labels_N)], [measured(blurred_N, labels_N)]
    low, high = paired_differences(one, other, ("auroc",), **DRAW)[1]["auroc"]["ci"]
    own = resampled_means(one, ("auroc",), **DRAW)["auroc"]
    assert own is not None
    assert high - low < (own[1] - own[0]) / 3


def test_means_are_over_seeds() -> None:
    good, bad = drawn(noise=1.0), drawn(noise=4.0)
    two = [measured(*good), measured(*bad)]
    mean = paired_differences(two, [measured(*good)], ("auroc",), **DRAW)[1]["auroc"]["mean"]
    alone = paired_differences([measured(*bad)], [measured(*good)], ("auroc",), **DRAW)[1]["auroc"]["mean"]
    assert mean == pytest.approx(alone / 2)


def test_arms_are_compared_on_the_rows_that_both_have() -> None:
    scores_N, labels_N = drawn(noise=2.0)
    whole, part = measured(scores_N, labels_N), measured(scores_N[:80], labels_N[:80])
    num_rows, found = paired_differences([whole], [part], ("auroc",), **DRAW)
    assert (num_rows, found["auroc"]["mean"]) == (80, 0.0)
