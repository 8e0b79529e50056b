"""Bins of equal mass, the Brier score in parts, slope and intercept, and what noise alone shows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.errors import DataError, NumericsError
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics, null_ece
from clsgen_dist.evaluate.metrics import probability_metrics

KEYS = [
    *("ece_equal_mass", "ece_classwise", "mce", "brier_reliability", "brier_resolution", "brier_uncertainty"),
    *("calibration_slope", "calibration_intercept", "calibration_in_the_large"),
]


def two(probability: list[float] | np.ndarray) -> np.ndarray:
    return np.stack([1 - np.asarray(probability), np.asarray(probability)], axis=1)


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def draw(num_rows: int, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that come from them."""
    generator = np.random.default_rng(seed)
    probability = generator.dirichlet(np.ones(num_labels), size=num_rows)
    labels = (generator.random((num_rows, 1)) > probability.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    return probability, labels


def test_a_small_example_by_hand() -> None:
    found = calibration_metrics(two([0.1, 0.2, 0.3, 0.7, 0.9, 0.9]), [0, 1, 0, 0, 1, 1], num_bins=2)
    assert list(found) == KEYS
    # Equal width: .1 .2 .3 (one of three) and .7 .9 .9 (two of three). Equal mass: the same, as the median is .5.
    assert found["mce"] == pytest.approx(2.5 / 3 - 2 / 3)
    assert found["ece_equal_mass"] == pytest.approx(0.5 * abs(0.2 - 1 / 3) + 0.5 * (2.5 / 3 - 2 / 3))
    assert found["ece_classwise"] == pytest.approx(found["ece_equal_mass"])
    # Isotonic: 0 for .1, the mean 1/3 of three rows that fall, 1 for .9. Each third costs 2/9.
    assert found["brier_uncertainty"] == pytest.approx(1 / 4)
    assert found["brier_resolution"] == pytest.approx(1 / 4 - 3 * (2 / 9) / 6)
    brier = np.mean([0.01, 0.64, 0.09, 0.49, 0.01, 0.01])
    assert found["brier_reliability"] == pytest.approx(brier - 3 * (2 / 9) / 6)


def test_rows_of_equal_probability_stay_in_one_bin() -> None:
    # Half of the rows said .9: of four bins the last two become one, whatever the order of the rows.
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.9, 0.9, 0.9, 0.9])
    labels = np.array([0, 0, 1, 0, 0, 0, 1, 1])
    expected = (abs(0.3 - 0) + abs(0.7 - 1) + abs(3.6 - 2)) / 8
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(8)
        found = calibration_metrics(two(p[order]), labels[order], num_bins=4)
        assert found["ece_equal_mass"] == pytest.approx(expected, abs=1e-12)


def test_of_one_said_value_nothing_can_be_ranked_or_fitted() -> None:
    found = calibration_metrics(two([0.8] * 10), [1] * 5 + [0] * 5, num_bins=10)
    assert found["ece_equal_mass"] == found["mce"] == pytest.approx(0.3)
    assert found["brier_reliability"] == pytest.approx(0.09)
    assert found["brier_resolution"] == pytest.approx(0, abs=1e-15)
    assert found["calibration_slope"] is found["calibration_intercept"] is None
    assert found["calibration_in_the_large"] == pytest.approx(-math.log(4))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40), st.integers(1, 12))
def test_order_and_copies_of_rows_change_nothing(rows: list[tuple[int, bool]], num_bins: int) -> None:
    p, labels = np.array([value / 20 for value, _ in rows]), np.array([int(label) for _, label in rows])
    if len(np.unique(labels)) < 2:
        labels[0] = 1 - labels[0]
    found = calibration_metrics(two(p), labels, num_bins=num_bins)
    turned = calibration_metrics(two(p[::-1]), labels[::-1], num_bins=num_bins)
    copied = calibration_metrics(two(np.tile(p, 3)), np.tile(labels, 3), num_bins=num_bins)
    for name, value in found.items():
        if value is None:
            assert turned[name] is copied[name] is None
            continue
        assert turned[name] == pytest.approx(value, rel=1e-9, abs=1e-9)
        if name != "ece_equal_mass":  # a quantile of copies lies between copies
            assert copied[name] == pytest.approx(value, rel=1e-7, abs=1e-7)
    brier = probability_metrics(two(p), labels, labels, num_bins=num_bins)["brier"]
    parts = [found[f"brier_{part}"] for part in ("reliability", "resolution", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(brier, abs=1e-12)
    assert min(parts) >= -1e-12


@pytest.mark.parametrize("num_labels", [2, 3, 6])
def test_the_parts_add_up_to_the_brier_score(num_labels: int) -> None:
    p, labels = draw(500, num_labels, seed=1)
    p = p**2 / (p**2).sum(axis=1, keepdims=True)
    found = calibration_metrics(p, labels, num_bins=10)
    brier = probability_metrics(p, labels, labels, num_bins=10)["brier"]
    total = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
    assert total == pytest.approx(brier, abs=1e-12)


def test_a_monotone_map_moves_reliability_only() -> None:
    p, labels = draw(2000, 2, seed=2)
    logit = np.log(p[:, 1] / p[:, 0])
    honest, sharpened = (calibration_metrics(two(sigmoid(k * logit)), labels, num_bins=10) for k in (1, 3))
    assert sharpened["brier_resolution"] == pytest.approx(honest["brier_resolution"], abs=1e-12)
    assert sharpened["brier_reliability"] > 5 * honest["brier_reliability"]


def test_slope_and_intercept_undo_a_known_distortion_exactly() -> None:
    generator = np.random.default_rng(3)
    logit = generator.uniform(-4, 4, size=5000)
    labels = generator.random(5000) < sigmoid(logit)
    honest = calibration_metrics(two(sigmoid(logit)), labels, num_bins=10)
    assert honest["calibration_slope"] == pytest.approx(1, abs=0.1)
    assert honest["calibration_intercept"] == pytest.approx(0, abs=0.1)
    assert honest["calibration_in_the_large"] == pytest.approx(0, abs=0.1)
    distorted = calibration_metrics(two(sigmoid(2.5 * logit + 1)), labels, num_bins=10)
    slope = distorted["calibration_slope"]
    assert slope == pytest.approx(honest["calibration_slope"] / 2.5, rel=1e-9)
    assert distorted["calibration_intercept"] == pytest.approx(honest["calibration_intercept"] - slope, rel=1e-8)
    shifted = calibration_metrics(two(sigmoid(logit + 1)), labels, num_bins=10)
    assert shifted["calibration_in_the_large"] == pytest.approx(honest["calibration_in_the_large"] - 1, abs=1e-9)


def test_with_more_labels_the_slope_is_of_all_of_them() -> None:
    p, labels = draw(5000, 4, seed=4)
    assert calibration_metrics(p, labels, num_bins=10)["calibration_slope"] == pytest.approx(1, abs=0.05)
    sharp = p**2 / (p**2).sum(axis=1, keepdims=True)
    found = calibration_metrics(sharp, labels, num_bins=10)
    assert found["calibration_slope"] < 0.7
    assert found["calibration_in_the_large"] is None
    assert found["ece_classwise"] == probability_metrics(sharp, labels, labels, num_bins=10)["ece"]


@pytest.mark.parametrize("p", [[0.1, 0.2, 0.6, 0.7], [0.7, 0.6, 0.2, 0.1], [0.1, 0.4, 0.4, 0.7]])
def test_separated_labels_have_no_slope(p: list[float]) -> None:
    found = calibration_metrics(two(p), [0, 0, 1, 1], num_bins=5)
    assert found["calibration_slope"] is found["calibration_intercept"] is None
    assert math.isfinite(found["calibration_in_the_large"])


@pytest.mark.parametrize("num_wrong", [1, 100])
def test_zeros_and_ones_that_are_wrong_leave_a_finite_line(num_wrong: int) -> None:
    p, labels = np.repeat([0.0, 1.0], 500), np.repeat([0, 1], 500)
    labels[:num_wrong], labels[-num_wrong:] = 1, 0
    found = calibration_metrics(two(p), labels, num_bins=10)
    # Two values: the line passes through both frequencies, at the bounds that 0 and 1 are taken for.
    expected = math.log((500 - num_wrong) / num_wrong) / 27.631
    assert found["calibration_slope"] == pytest.approx(expected, rel=1e-9)
    assert found["calibration_intercept"] == pytest.approx(0, abs=1e-9)
    large = sigmoid(np.array([-27.631, 27.631]) + found["calibration_in_the_large"])
    assert large.mean() == pytest.approx(0.5, abs=1e-9)


def test_log_odds_far_off_and_close_together_keep_their_slope() -> None:
    logit = np.random.default_rng(5).normal(size=2000) * 1e-4
    labels = np.random.default_rng(6).random(2000) < sigmoid(1e4 * logit)
    found = calibration_metrics(two(sigmoid(logit - 3)), labels, num_bins=10)
    assert found["calibration_slope"] == pytest.approx(1e4, rel=0.2)
    assert found["calibration_intercept"] == pytest.approx(3 * found["calibration_slope"], rel=1e-2)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_the_null_is_what_calibrated_models_show(num_labels: int) -> None:
    p, _ = draw(300, num_labels, seed=7)
    generator = np.random.default_rng(8)
    shown = []
    for _ in range(200):
        labels = (generator.random((300, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
        shown.append(probability_metrics(p, labels, labels, num_bins=10)["ece"])
    found = null_ece(p, num_bins=10, num_draws=400, seed=9)
    assert found["ece_null"] == pytest.approx(np.mean(shown), rel=0.05)
    np.testing.assert_allclose(found["ece_null_ci"], np.percentile(shown, [2.5, 97.5]), rtol=0.12)


def test_miscalibration_lies_above_the_null_and_noise_does_not() -> None:
    p, labels = draw(1000, 2, seed=10)
    _, high = null_ece(p, num_bins=10, seed=0)["ece_null_ci"]  # type: ignore[misc]
    assert probability_metrics(p, labels, labels, num_bins=10)["ece"] < high
    sharp = p**3 / (p**3).sum(axis=1, keepdims=True)
    _, high = null_ece(sharp, num_bins=10, seed=0)["ece_null_ci"]  # type: ignore[misc]
    assert probability_metrics(sharp, labels, labels, num_bins=10)["ece"] > 2 * high


def test_the_null_shrinks_with_rows_and_is_nothing_for_sure_probabilities() -> None:
    nulls = [null_ece(draw(n, 2, seed=11)[0], num_bins=10, seed=0)["ece_null"] for n in (100, 400, 25_000)]
    assert nulls[0] > 1.7 * nulls[1] > 8 * nulls[2]
    assert null_ece(np.eye(3)[[0, 1, 2, 2]], num_bins=10, seed=0) == {"ece_null": 0.0, "ece_null_ci": [0.0, 0.0]}


def test_the_null_of_a_seed_is_the_same_each_time() -> None:
    p, _ = draw(200, 3, seed=12)
    assert null_ece(p, num_bins=10, seed=1) == null_ece(p, num_bins=10, seed=1)
    assert null_ece(p, num_bins=10, seed=1) != null_ece(p, num_bins=10, seed=2)


def test_single_precision_is_accepted() -> None:
    p, labels = draw(400, 5, seed=13)
    found = calibration_metrics(p.astype(np.float32), labels, num_bins=10)
    assert found["brier_resolution"] == pytest.approx(calibration_metrics(p, labels, num_bins=10)["brier_resolution"])


def test_undefined_numbers_are_errors() -> None:
    with pytest.raises(DataError, match="all 2 labelled rows"):
        calibration_metrics(two([0.2, 0.4]), [1, 1], num_bins=10)
    with pytest.raises(NumericsError, match="NaN"):
        calibration_metrics(two([0.2, math.nan]), [0, 1], num_bins=10)
    with pytest.raises(NumericsError, match="does not sum to 1"):
        null_ece([[0.5, 0.4]], num_bins=10, seed=0)
    with pytest.raises(DataError, match="found no rows"):
        null_ece(np.zeros((0, 2)), num_bins=10, seed=0)
