"""The average over slopes and intercepts: its posterior by hand, against a fine grid, and at the edges."""

import math
import time

import numpy as np
import pytest
from scipy.special import expit, log_expit
from scipy.stats import t as student

from clsgen_dist.calibrate.averaging import (
    BOTH,
    DEGREES,
    INTERCEPT_ALONE,
    NEGLIGIBLE_MASS,
    NOTHING,
    SLOPE_ALONE,
    SPREAD,
    fit_average,
)
from clsgen_dist.calibrate.prior import with_prior
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator

METHODS = ("none", "temperature", "platt")
PLACES = np.linspace(-12, 12, 49)


def logits_of(log_odds: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(log_odds), log_odds], axis=1)


def simulate(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Honest log-odds, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(-0.5, 2, size=num_rows)
    return odds, (generator.random(num_rows) < expit(odds)).astype(np.int64)


def fit(
    odds: np.ndarray, labels: np.ndarray, bound: float = 100.0, evidence: float = 1.0
) -> tuple[Calibrator, dict[str, float]]:
    return fit_average(logits_of(odds), labels, methods=METHODS, max_temperature=bound, evidence=evidence)


def by_grid(odds: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Mean probability at `PLACES` and weights of the methods, by sums over a fine even grid."""
    log_slopes, intercepts = np.linspace(-4, 3, 281), np.linspace(-6, 6, 241)
    one, zero = int(np.abs(log_slopes).argmin()), int(np.abs(intercepts).argmin())
    slopes = np.exp(log_slopes)
    sign = 2 * labels - 1
    likelihood = np.exp(
        [[log_expit(sign * (slope * odds + b)).sum() for b in intercepts] for slope in slopes]
        - log_expit(sign * odds).sum()
    )
    density_of_slopes = student.pdf(log_slopes / SPREAD, DEGREES) / SPREAD * (log_slopes[1] - log_slopes[0])
    density_of_intercepts = student.pdf(intercepts / SPREAD, DEGREES) / SPREAD * (intercepts[1] - intercepts[0])
    at_one, at_zero = np.eye(len(slopes))[one], np.eye(len(intercepts))[zero]
    cases = (
        NOTHING * np.outer(at_one, at_zero),
        SLOPE_ALONE * np.outer(density_of_slopes, at_zero),
        np.outer(INTERCEPT_ALONE * at_one + BOTH * density_of_slopes, density_of_intercepts),
    )
    mass = [case * likelihood for case in cases]
    total = sum(mass)
    p = [float((total * expit(slopes[:, None] * place + intercepts)).sum() / total.sum()) for place in PLACES]
    return np.array(p), [float(each.sum() / total.sum()) for each in mass]


@pytest.mark.parametrize(
    ("num_rows", "slope", "intercept"),
    [(20, 1.0, 0.0), (50, 2.5, 0.0), (50, 1.0, 1.5), (60, 0.4, -0.6), (300, 1.2, 0.3)],
)
def test_weights_and_probabilities_are_those_of_a_fine_grid(num_rows: int, slope: float, intercept: float) -> None:
    odds, labels = simulate(num_rows, seed=num_rows)
    found, weight = fit(slope * odds + intercept, labels)
    expected, weights = by_grid(slope * odds + intercept, labels)
    np.testing.assert_allclose([weight[method] for method in METHODS], weights, rtol=0, atol=3e-3)
    np.testing.assert_allclose(found.apply(logits_of(PLACES))[:, 1], expected, rtol=0, atol=2e-3)


def test_without_evidence_the_weights_are_the_prior() -> None:
    odds, labels = simulate(40, seed=1)
    _, weight = fit(odds, labels, evidence=1e-9)
    assert weight["none"] == pytest.approx(0.24, abs=1e-2)
    assert weight["temperature"] == pytest.approx(0.36, abs=1e-2)


def test_rows_decide_between_what_may_be_wrong() -> None:
    odds, labels = simulate(400, seed=2)
    assert max((weights := fit(odds, labels)[1]), key=lambda m: weights[m]) == "none"
    assert max((weights := fit(3 * odds, labels)[1]), key=lambda m: weights[m]) == "temperature"
    # Another base rate alone is a case of its own: the slope stays at 1.
    moved, weights = fit(odds + 1.5, labels)
    assert weights["platt"] > 0.99
    at_one = np.array(moved.parameters["weight"])[np.array(moved.parameters["slope"]) == 1.0]
    assert at_one.sum() > 0.6


def test_a_mean_over_the_unknown_is_less_sure_than_a_middle_map() -> None:
    odds, labels = simulate(50, seed=3)
    found, _ = fit(2 * odds, labels)
    weight, slope, intercept = (np.array(found.parameters[name]) for name in ("weight", "slope", "intercept"))
    for place in (-6.0, 6.0):
        middle = expit(np.exp(weight @ np.log(slope)) * place + weight @ intercept)
        own = found.apply(logits_of(np.array([place])))[0, 1]
        assert abs(own - 0.5) < abs(middle - 0.5)


def test_few_maps_of_more_than_negligible_mass_are_kept() -> None:
    for num_rows in (20, 50, 200, 499):
        odds, labels = simulate(num_rows, seed=num_rows)
        parameters = fit(1.5 * odds + 0.5, labels)[0].parameters
        assert len(parameters["weight"]) <= 100
        assert min(parameters["weight"]) >= NEGLIGIBLE_MASS
        assert math.fsum(parameters["weight"]) == pytest.approx(1, abs=1e-12)


def test_a_label_of_one_row_in_fifty_keeps_its_share() -> None:
    generator = np.random.default_rng(4)
    odds = generator.normal(0, 2, size=50)
    labels = np.zeros(50, dtype=np.int64)
    labels[int(odds.argmax())] = 1
    found, weight = fit(odds, labels)
    assert weight["platt"] > 0.99
    assert 0.01 < found.apply(logits_of(odds))[:, 1].mean() < 0.08


def test_the_prior_of_other_shares_multiplies_the_odds_of_the_mean() -> None:
    odds, labels = simulate(60, seed=5)
    found, _ = fit(odds, labels)
    p = found.apply(logits_of(PLACES))[:, 1]
    moved = with_prior(found, labels, [0.98, 0.02])
    assert moved.log_prior_shift is not None
    factor = math.exp(moved.log_prior_shift[1] - moved.log_prior_shift[0])
    expected = factor * p / (1 - p)
    np.testing.assert_allclose(moved.apply(logits_of(PLACES))[:, 1], expected / (1 + expected), rtol=1e-9)


@pytest.mark.parametrize(
    "odds",
    [
        np.zeros(40),
        np.full(40, 7.0),
        np.linspace(-1e6, 1e6, 40),
        np.linspace(-1e-9, 1e-9, 40),
        np.linspace(499, 501, 40),
        np.where(np.arange(40) % 2 == 1, 1e6, -1e6),
    ],
    ids=["zero", "equal", "enormous", "tiny", "far", "far and separated"],
)
def test_no_log_odds_break_it(odds: np.ndarray) -> None:
    labels = (np.arange(40) % 2).astype(np.int64)
    found, weight = fit(odds, labels)
    p = found.apply(logits_of(np.sort(odds)))[:, 1]
    assert np.isfinite(p).all()
    assert (np.diff(p) >= -1e-15).all()
    assert sum(weight.values()) == pytest.approx(1)


def test_temperatures_alone_bear_the_largest_floats() -> None:
    labels = (np.arange(40) % 2).astype(np.int64)
    odds = np.where(labels == 1, 1e300, -1e300)
    found, weight = fit_average(logits_of(odds), labels, methods=METHODS[:2], max_temperature=100.0, evidence=1.0)
    np.testing.assert_array_equal(found.apply(logits_of(odds))[:, 1], labels)
    # Nothing tells one temperature from another.
    assert weight["none"] == pytest.approx(0.24 / (0.24 + 0.36), abs=1e-2)


def test_slopes_keep_their_bounds() -> None:
    odds, labels = simulate(300, seed=6)
    slopes = np.array(fit(20 * odds, labels, bound=4.0)[0].parameters["slope"])
    assert slopes.min() == pytest.approx(0.25)
    slopes = np.array(fit(odds / 20, labels, bound=4.0)[0].parameters["slope"])
    assert slopes.max() == pytest.approx(4.0)


def test_one_method_alone_is_that_method() -> None:
    odds, labels = simulate(50, seed=7)
    found, weight = fit_average(logits_of(odds), labels, methods=("none",), max_temperature=100.0, evidence=1.0)
    assert weight == {"none": 1.0}
    np.testing.assert_allclose(found.apply(logits_of(PLACES)), IDENTITY.apply(logits_of(PLACES)), atol=1e-15)


def test_the_order_of_rows_does_not_matter_and_it_is_fast() -> None:
    odds, labels = simulate(499, seed=8)
    found, _ = fit(odds, labels)
    start = time.process_time()
    turned, _ = fit(odds[::-1], labels[::-1])
    assert time.process_time() - start < 1
    np.testing.assert_allclose(turned.apply(logits_of(PLACES)), found.apply(logits_of(PLACES)), rtol=0, atol=1e-6)
