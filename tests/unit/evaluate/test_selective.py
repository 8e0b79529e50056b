"""Answering only when sure: against counting by hand and by brute force."""

import numpy as np
import pytest

from clsgen_dist.errors import ConfigError, DataError, NumericsError
from clsgen_dist.evaluate.selective import (
    RiskCoverage,
    answer_when_sure,
    aurc,
    aurc_interval,
    best_aurc,
    coverage_at_risk,
    risk_coverage,
)


def two(probability: list[float]) -> np.ndarray:
    return np.stack([1 - np.asarray(probability), np.asarray(probability)], axis=1)


def draw(num_rows: int, num_labels: int, seed: int, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probability = generator.dirichlet(np.ones(num_labels), size=num_rows)
    if decimals is not None:
        probability = probability.round(decimals)
        probability[:, -1] = 1 - probability[:, :-1].sum(axis=1)
        probability = probability.clip(0, 1)
    labels = (generator.random((num_rows, 1)) > probability.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    return probability, labels


def slow_curve(probability: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    """Coverage and risk of asking for at least each confidence that occurs."""
    sure, wrong = probability.max(axis=1).round(9), probability.argmax(axis=1) != labels
    return [((sure >= c).mean(), wrong[sure >= c].mean()) for c in sorted(set(sure), reverse=True)]


def test_an_example_by_hand() -> None:
    # Sure by .9, .8, .8, .6: right, right, wrong, wrong; the two of .8 come together.
    curve = risk_coverage(two([0.9, 0.2, 0.8, 0.4]), [1, 0, 0, 1])
    assert curve.confidence_D.tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert curve.coverage_D.tolist() == [0.25, 0.75, 1.0]
    assert curve.risk_D.tolist() == pytest.approx([0, 1 / 3, 1 / 2])
    assert aurc(curve) == pytest.approx(0.25 * 0 + 0.5 / 3 + 0.25 / 2)
    # Right ones first: risks 0, 0, 1/3, 2/4.
    assert best_aurc(curve) == pytest.approx((1 / 3 + 1 / 2) / 4)


@pytest.mark.parametrize(("num_labels", "decimals"), [(2, None), (2, 1), (3, None), (3, 1), (6, 2)])
def test_it_agrees_with_brute_force(num_labels: int, decimals: int | None) -> None:
    probability, labels = draw(200, num_labels, seed=num_labels, decimals=decimals)
    curve = risk_coverage(probability, labels)
    slow = slow_curve(probability, labels)
    np.testing.assert_allclose(np.stack([curve.coverage_D, curve.risk_D], axis=1), slow, atol=1e-12)
    if decimals is None:
        wrong = (probability.argmax(axis=1) != labels)[np.argsort(-probability.max(axis=1))]
        assert aurc(curve) == pytest.approx(np.mean(np.cumsum(wrong) / np.arange(1, 201)), abs=1e-12)
    for max_risk in (0.0, 0.1, 0.2, 0.33, 1.0):
        safe = [coverage for coverage, risk in slow if risk <= max_risk + 1e-12]
        coverage, confidence = coverage_at_risk(curve, max_risk)
        assert coverage == pytest.approx(max(safe, default=0.0))
        if confidence is not None:
            # Asking for the confidence that is named gives that coverage, ties and all.
            found = answer_when_sure(probability, labels, confidence, num_bootstrap=2, seed=0)
            assert found["share_answered"] == pytest.approx(coverage)
            assert 1 - found["accuracy"] <= max_risk + 1e-12


def test_the_order_of_rows_never_matters() -> None:
    probability, labels = draw(300, 3, seed=1, decimals=1)
    curves = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(300)
        curves.append(risk_coverage(probability[order], labels[order]))
    assert len({aurc(curve) for curve in curves}) == 1
    assert len({tuple(curve.risk_D) for curve in curves}) == 1


def test_a_confidence_that_says_nothing_has_the_error_rate_as_its_area() -> None:
    curve = risk_coverage(two([0.8] * 10), [1] * 7 + [0] * 3)
    assert (curve.coverage_D.tolist(), curve.risk_D.tolist()) == ([1.0], pytest.approx([0.3]))
    assert aurc(curve) == pytest.approx(0.3)
    assert best_aurc(curve) < aurc(curve)


def test_the_best_order_reaches_the_best_area_and_no_order_beats_it() -> None:
    best = risk_coverage(two([0.99, 0.98, 0.97, 0.6, 0.55]), [1, 1, 1, 0, 0])
    assert aurc(best) == pytest.approx(best_aurc(best))
    for seed in range(20):
        curve = risk_coverage(*draw(40, 2, seed=seed))
        assert best_aurc(curve) <= aurc(curve) + 1e-12


def test_rounding_in_the_last_digit_breaks_no_tie() -> None:
    nearly = [0.7, 0.7 - 1e-12, 0.3 + 2e-12, 0.3 - 1e-13, 0.9]
    curve = risk_coverage(two(nearly), [1, 0, 0, 1, 1])
    assert curve.coverage_D.tolist() == [0.2, 1.0]
    # Whoever compares without a tolerance flags the same rows.
    assert [np.mean(two(nearly).max(axis=1) >= confidence) for confidence in curve.confidence_D] == [0.2, 1.0]
    assert answer_when_sure(two(nearly), [1, 0, 0, 1, 1], 0.7, num_bootstrap=2, seed=0)["num_answered"] == 5


def test_the_largest_safe_coverage_may_lie_beyond_a_riskier_one() -> None:
    curve = RiskCoverage(np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.5, 1.0]), np.array([1.0, 0.2, 0.4]), 10)
    assert coverage_at_risk(curve, 0.25) == (0.5, 0.8)
    assert coverage_at_risk(curve, 0.4) == (1.0, 0.7)
    assert coverage_at_risk(curve, 0.1) == (0.0, None)


def test_when_nothing_is_sure_enough_nothing_is_claimed() -> None:
    found = answer_when_sure(two([0.6, 0.3, 0.55]), [1, 0, 0], 0.95, num_bootstrap=50, seed=0)
    assert (found["num_answered"], found["share_answered"]) == (0, 0.0)
    assert found["accuracy"] is None
    assert found["accuracy_ci"] is None
    low, high = found["share_answered_ci"]
    assert (low, (1 - high) ** 3) == (0.0, pytest.approx(0.025))


def test_the_interval_of_the_area_agrees_with_drawing_rows() -> None:
    probability, labels = draw(80, 3, seed=4, decimals=1)
    group = np.arange(80) // 2
    slow = []
    for groups in np.random.default_rng(2).integers(0, 40, size=(100, 40)):
        rows = np.concatenate([np.flatnonzero(group == g) for g in groups])
        curve = slow_curve(probability[rows], labels[rows])
        coverages = np.array([0.0, *(coverage for coverage, _ in curve)])
        slow.append(np.sum(np.diff(coverages) * [risk for _, risk in curve]))
    fast = aurc_interval(probability, labels, group, num_bootstrap=100, seed=2)
    assert fast == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=1e-12)


def test_copies_of_rows_narrow_rows_but_not_groups() -> None:
    probability, labels = draw(150, 2, seed=6)
    copied, copied_labels, group = np.repeat(probability, 4, axis=0), np.repeat(labels, 4), np.repeat(range(150), 4)
    single = aurc_interval(probability, labels, None, num_bootstrap=300, seed=0) or []
    by_group = aurc_interval(copied, copied_labels, group, num_bootstrap=300, seed=0) or []
    by_row = aurc_interval(copied, copied_labels, None, num_bootstrap=300, seed=0) or []
    assert by_group == pytest.approx(single)
    assert by_group[1] - by_group[0] > 1.6 * (by_row[1] - by_row[0])


def test_without_a_mistake_the_area_has_no_interval() -> None:
    assert aurc_interval(two([0.9, 0.2]), [1, 0], None, num_bootstrap=5, seed=0) is None
    assert aurc_interval(two([0.1, 0.8]), [1, 0], None, num_bootstrap=5, seed=0) is None


def test_what_cannot_be_asked_is_refused() -> None:
    curve = risk_coverage(two([0.9, 0.2]), [1, 0])
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="from 0 to 1"):
            coverage_at_risk(curve, wrong)
        with pytest.raises(ConfigError, match="from 0 to 1"):
            answer_when_sure(two([0.9, 0.2]), [1, 0], wrong, num_bootstrap=5, seed=0)
    with pytest.raises(DataError, match="one group"):
        answer_when_sure(two([0.9, 0.2]), [1, 0], 0.5, ["a", "a"], num_bootstrap=5, seed=0)
    with pytest.raises(NumericsError):
        risk_coverage([[0.5, 0.6], [0.5, 0.5]], [0, 1])
