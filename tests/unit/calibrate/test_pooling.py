"""The mean of maps of the log-odds, and the temperature that goes into it."""

import numpy as np
import pytest
from scipy.special import expit

from clsgen_dist.calibrate.pooling import fit_smoothed_temperature, pool, pool_weights
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, fit_calibrator

MAX_TEMPERATURE = 100.0


def logits_of(log_odds: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(log_odds), log_odds], axis=1)


def test_weights_are_those_of_half_the_likelihood_however_far_apart() -> None:
    weights = pool_weights(np.array([0.5, 0.6, 700.0]), 40)
    assert weights.sum() == pytest.approx(1)
    assert np.log(weights[1] / weights[0]) == pytest.approx(-0.5 * 40 * 0.1)
    assert weights[2] == 0


def test_a_pool_of_one_is_itself_and_a_pool_lies_between() -> None:
    tempered = Calibrator(method="temperature", parameters={"temperature": (4.0,)}, num_rows=30)
    platt = Calibrator(method="platt", parameters={"slope": (0.5,), "intercept": (-2.0,)}, num_rows=30)
    assert pool([IDENTITY, tempered], np.array([0.5, 0.5]), 30).temperature == pytest.approx(2.0)
    both = pool([IDENTITY, tempered, platt], np.array([0.0, 0.0, 1.0]), 30)
    assert both.parameters["slope"][0] == pytest.approx(0.5)
    assert both.parameters["intercept"][0] == pytest.approx(-2.0)
    mixed = pool([tempered, platt], np.array([0.5, 0.5]), 30)
    assert mixed.parameters["slope"][0] == pytest.approx(np.sqrt(0.25 * 0.5))
    assert mixed.parameters["intercept"][0] == pytest.approx(-1.0)


def test_a_smoothed_temperature_is_finite_where_a_plain_one_runs_off_and_the_same_with_many_rows() -> None:
    odds = np.array([-3.0, -2, -1, 1, 2, 3] * 5)
    smoothed = fit_smoothed_temperature(logits_of(odds), (odds > 0).astype(np.int64), MAX_TEMPERATURE)
    assert smoothed.temperature is not None
    assert 0.2 < smoothed.temperature < 2
    # The first-order condition of the smoothed targets.
    target = np.where(odds > 0, 16 / 17, 1 / 17)
    assert np.mean((expit(odds / smoothed.temperature) - target) * odds) == pytest.approx(0, abs=1e-10)
    generator = np.random.default_rng(11)
    many = generator.normal(-0.5, 2, size=100_000)
    labels = (generator.random(100_000) < expit(many)).astype(np.int64)
    plain, _ = fit_calibrator(logits_of(2 * many), labels, method="temperature", max_temperature=MAX_TEMPERATURE)
    same = fit_smoothed_temperature(logits_of(2 * many), labels, MAX_TEMPERATURE)
    assert same.temperature == pytest.approx(plain.temperature, rel=1e-3)


@pytest.mark.parametrize(
    ("odds", "labels", "expected"),
    [
        (np.zeros(40), [0, 1] * 20, 1.0),
        (np.array([-1.0, 1.0] * 20), [1, 0] * 20, MAX_TEMPERATURE),
        (np.array([-1e-9, 1e-9] * 20), [0, 1] * 20, 1 / MAX_TEMPERATURE),
        (np.array([-1e300, 1e300] * 20), [0, 1] * 20, MAX_TEMPERATURE),
    ],
)
def test_a_smoothed_temperature_keeps_its_bounds(odds: np.ndarray, labels: list[int], expected: float) -> None:
    assert fit_smoothed_temperature(logits_of(odds), np.array(labels), MAX_TEMPERATURE).temperature == expected
