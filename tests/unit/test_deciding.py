"""From logits of labelled rows to how a bundle decides."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.calibrate.thresholds import choose_threshold
from clsgen_dist.config.sections import Calibrate
from clsgen_dist.deciding import Labelled, fit_decision, labelled
from clsgen_dist.errors import DataError
from clsgen_dist.records import UNLABELLED, Row
from clsgen_dist.sealed import Decision

NO_YES = ["no", "yes"]


def simulate(num_rows: int, *, num_labels: int = 2, sharpness: float = 2.0, seed: int = 0, groups: int = 0) -> Labelled:
    """Logits that are `sharpness` times too large; every tenth row has no label."""
    draw = np.random.default_rng(seed)
    honest_NK = 1.5 * draw.normal(size=(num_rows, num_labels))
    true_NK = IDENTITY.apply(honest_NK)
    labels_N = (draw.random((num_rows, 1)) > true_NK.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    rows = [
        Row(
            id=f"r{n}",
            text="t",
            label=None if n % 10 == 9 else int(label),
            group=f"g{n % groups}" if groups else None,
        )
        for n, label in enumerate(labels_N)
    ]
    return labelled(rows, (sharpness * honest_NK).tolist())


def decide(rows: Labelled, labels: list[str] | None = None, **settings: Any) -> tuple[Decision, list[str]]:
    return fit_decision(rows, Calibrate(**settings), labels or NO_YES, num_bootstrap=100, seed=0)


def known(rows: Labelled, decision: Decision) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probability of the last label, and whether a row has it, of the labelled rows."""
    known_N = rows.labels_N != UNLABELLED
    return decision.calibrator.apply(rows.logits_NK)[known_N, -1], rows.labels_N[known_N] == 1


def test_rows_and_logits_stand_side_by_side() -> None:
    rows = [
        Row(id="a", text="t", label=1, group="b"),
        Row(id="b", text="t"),
        Row(id="c", text="t", label=0, group="b"),
    ]
    made = labelled(rows, [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    assert made.labels_N.tolist() == [1, UNLABELLED, 0]
    assert made.logits_NK.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert made.groups_N[0] == made.groups_N[2] != made.groups_N[1], "a group may be called like a row"


@pytest.mark.parametrize(
    "change",
    [
        {"label": 0},
        {"label": None},
        {"id": "z"},
    ],
)
def test_the_hash_of_rows_changes_with_ids_and_labels(change: dict[str, Any]) -> None:
    values: dict[str, Any] = {"id": "a", "text": "t", "label": 1}
    before = labelled([Row(**values)], [[0.0, 1.0]]).sha256
    assert labelled([Row(**values)], [[0.0, 1.0]]).sha256 == before
    assert labelled([Row(**values | change)], [[0.0, 1.0]]).sha256 != before
    assert labelled([Row(**values)], [[0.0, 1.0 + 1e-12]]).sha256 != before


def test_the_calibrator_is_chosen_and_the_threshold_follows_it() -> None:
    rows = simulate(900)
    decision, warnings = decide(rows)
    assert warnings == []
    assert decision.calibrator.temperature == pytest.approx(2.0, rel=0.25)
    assert decision.calibrator.num_rows == 810 == decision.facts["num_rows"]
    assert [c["method"] for c in decision.facts["candidates"]] == ["none", "temperature", "platt"]
    probability_N, positive_N = known(rows, decision)
    assert decision.threshold == choose_threshold(probability_N, positive_N, rule="best_f1", value=None)
    low, high = decision.facts["threshold_ci"]
    assert low <= decision.threshold <= high
    assert low < high
    assert decision.facts["rows_sha256"] == rows.sha256
    assert (decision.facts["asked"], decision.facts["warnings"]) == ("auto", [])
    assert json.loads(json.dumps(dict(decision.facts)))["threshold_ci"] == [low, high]


@pytest.mark.parametrize(
    ("rule", "value"), [("best_f1", None), ("precision", 0.8), ("recall", 0.9), ("cost", 0.25), ("top_share", 0.2)]
)
def test_each_rule_is_kept_on_the_calibration_rows(rule: str, value: float | None) -> None:
    rows = simulate(600)
    decision, warnings = decide(rows, threshold=rule, threshold_value=value)
    assert warnings == []
    assert (decision.facts["threshold_rule"], decision.facts["threshold_value"]) == (rule, value)
    probability_N, positive_N = known(rows, decision)
    assert decision.threshold is not None
    flagged_N = probability_N >= decision.threshold
    found = {
        "precision": positive_N[flagged_N].mean(),
        "recall": flagged_N[positive_N].mean(),
        "top_share": flagged_N.mean(),
    }
    if rule in ("precision", "recall"):
        assert value is not None
        assert found[rule] >= value
    elif rule == "top_share":
        assert 0.19 <= found[rule] <= 0.2
    elif rule == "cost":
        assert decision.threshold == pytest.approx(0.2)
        assert decision.facts["threshold_ci"] == (decision.threshold, decision.threshold)
    else:
        best = 2 * (flagged_N & positive_N).sum() / (flagged_N.sum() + positive_N.sum())
        others = [
            2 * ((probability_N >= t) & positive_N).sum() / ((probability_N >= t).sum() + positive_N.sum())
            for t in probability_N
        ]
        assert best == pytest.approx(max(others))


def test_a_precision_that_cannot_be_reached_does_not_end_a_training() -> None:
    rows = simulate(400)
    shuffled = np.random.default_rng(1).permutation(rows.labels_N)
    noise = Labelled(rows.logits_NK, shuffled, rows.groups_N, "x")
    decision, warnings = decide(noise, threshold="precision", threshold_value=1.0, method="temperature")
    assert any("no threshold has a precision of 1.0" in warning for warning in warnings)
    assert any(warning.endswith("The threshold of the largest F1 stands in") for warning in warnings)
    assert (decision.facts["threshold_rule"], decision.facts["threshold_value"]) == ("best_f1", None)
    assert decision.facts["warnings"] == warnings
    assert decision.threshold == decide(noise, method="temperature")[0].threshold


def test_a_prior_moves_probabilities_and_weighs_the_rows_of_the_threshold() -> None:
    rows = simulate(1000, seed=3)
    plain, _ = decide(rows, method="temperature", threshold="precision", threshold_value=0.8)
    prior = {"yes": 0.1, "no": 0.9}
    shifted, _ = decide(rows, method="temperature", threshold="precision", threshold_value=0.8, prior=prior)
    assert shifted.facts["prior"] == prior
    assert shifted.calibrator.parameters == plain.calibrator.parameters
    assert shifted.calibrator.log_prior_shift is not None
    assert shifted.calibrator.log_prior_shift[0] > 0 > shifted.calibrator.log_prior_shift[1]
    probability_N, positive_N = known(rows, shifted)
    assert shifted.threshold is not None
    flagged_N = probability_N >= shifted.threshold
    # Rows weigh as in the population that was asked for: there, the precision holds.
    weight_N = np.where(positive_N, 0.1 / positive_N.mean(), 0.9 / (1 - positive_N.mean()))
    weighted = (weight_N * (flagged_N & positive_N)).sum() / (weight_N * flagged_N).sum()
    assert weighted >= 0.79
    plain_probability_N, _ = known(rows, plain)
    flagged_before_N = plain_probability_N >= (plain.threshold or 0)
    assert flagged_N.sum() < flagged_before_N.sum(), "where positives are rare, fewer rows reach the precision"


def test_rows_of_one_group_cannot_compare_calibrators() -> None:
    decision, warnings = decide(simulate(300, groups=1))
    assert decision.calibrator.method == "temperature"
    assert any("all calibration rows are of one group" in warning for warning in warnings)
    assert decision.facts["candidates"] == []
    assert "threshold_ci" not in decision.facts
    assert decision.threshold is not None


def test_more_labels_than_two_have_no_threshold() -> None:
    decision, warnings = decide(simulate(800, num_labels=3), ["low", "middle", "high"])
    assert decision.threshold is None
    assert "threshold_rule" not in decision.facts
    assert [c["method"] for c in decision.facts["candidates"]] == ["none", "temperature", "vector"]
    assert decision.calibrator.method in ("temperature", "vector")
    assert decision.facts["warnings"] == warnings == []


def test_the_method_none_leaves_probabilities_and_still_has_a_threshold() -> None:
    rows = simulate(300)
    decision, warnings = decide(rows, method="none")
    assert decision.calibrator is IDENTITY
    assert decision.facts["candidates"] == []
    assert warnings == []
    assert decision.threshold == choose_threshold(*known(rows, decision), rule="best_f1", value=None)


@pytest.mark.parametrize("method", ["temperature", "platt", "beta"])
def test_a_method_that_was_asked_for_is_taken(method: str) -> None:
    decision, warnings = decide(simulate(300), method=method)
    assert decision.calibrator.method == method
    assert decision.facts["asked"] == method
    assert bool(warnings) is (method == "beta"), "270 rows are few for beta, and that is said"


def test_few_rows_for_a_threshold_are_warned_of() -> None:
    decision, warnings = decide(simulate(15), method="none")
    assert any("14 labelled rows is little more than chance" in warning for warning in warnings)
    assert decision.threshold is not None


def test_rows_that_cannot_be_calibrated_on_are_refused() -> None:
    rows = simulate(300)
    with pytest.raises(DataError, match="found 14 labelled rows"):
        decide(simulate(15))
    with pytest.raises(DataError, match="have the same label"):
        decide(Labelled(rows.logits_NK, np.zeros_like(rows.labels_N), rows.groups_N, "x"), method="none")


def test_the_same_seed_gives_the_same_decision() -> None:
    rows = simulate(300)
    assert decide(rows) == decide(rows)
