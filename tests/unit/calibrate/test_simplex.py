"""Said probabilities as logits: floors, sums, paraphrases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, logsumexp
from scipy.special import softmax as scipy_softmax

from clsgen_dist.calibrate.scaling import fit_calibrator
from clsgen_dist.calibrate.simplex import (
    average_prompts,
    default_floor,
    floored,
    invert_softmax,
    normalise,
    num_distinct,
    softmax,
)
from clsgen_dist.errors import ConfigError, DataError

SAID = arrays(np.float64, (4, 3), elements=st.floats(0, 100)).filter(lambda said: bool((said.sum(axis=1) > 1e-3).all()))
POSITIVE = arrays(np.float64, (4, 3), elements=st.floats(1e-6, 100))


def said_on_a_grid(num_rows: int, step: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Over-confident probabilities of two labels as a model says them, and labels from the honest ones."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(0, 1.5, num_rows)
    said = np.round(1 / (1 + np.exp(-2 * honest)) / step) * step
    labels = (generator.random(num_rows) < 1 / (1 + np.exp(-honest))).astype(int)
    return np.stack([1 - said, said], axis=1), labels


@settings(max_examples=50)
@given(arrays(np.float64, (3, 4), elements=st.floats(-1.7e308, 1.7e308)))
def test_softmax_of_any_finite_scores_sums_to_one(scores: np.ndarray) -> None:
    p = softmax(scores)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-12)
    if np.abs(scores).max() < 1e300:
        np.testing.assert_allclose(p, scipy_softmax(scores, axis=1), rtol=0, atol=1e-15)


@settings(max_examples=50)
@given(SAID)
def test_each_row_is_divided_by_its_own_sum(said: np.ndarray) -> None:
    p = normalise(said)
    np.testing.assert_allclose(p, [row / math.fsum(row) for row in said], rtol=1e-14)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(normalise(p), p, rtol=1e-14)


def test_percentages_and_fractions_are_the_same_and_a_row_that_sums_to_one_is_kept_bit_for_bit() -> None:
    np.testing.assert_allclose(normalise([[70, 30], [0.7, 0.3]]), [[0.7, 0.3], [0.7, 0.3]], rtol=1e-15)
    assert normalise([[0.25, 0.75]]).tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1])
def test_numbers_that_are_no_probabilities_are_refused(bad: float) -> None:
    for function in (normalise, num_distinct, default_floor, lambda said: floored(said, 0.01)):
        with pytest.raises(DataError, match="1 of 2 rows hold a number that is NaN, infinite or negative"):
            function([[0.5, 0.5], [1.0, bad]])


def test_rows_without_a_sum_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 rows sum to 0"):
        normalise([[0.0, 0.0], [0.5, 0.5]])
    with pytest.raises(DataError, match="1 of 1 rows sum to 0 or to infinity"):
        normalise([[1e308, 1e308]])


@settings(max_examples=50)
@given(SAID, st.floats(0, 0.33))
def test_a_floor_lifts_small_probabilities_and_keeps_the_order(said: np.ndarray, floor: float) -> None:
    p, lifted = normalise(said), floored(said, floor)
    lowest = np.maximum(p, floor)
    np.testing.assert_allclose(lifted, lowest / lowest.sum(axis=1, keepdims=True), rtol=1e-13)
    np.testing.assert_allclose(lifted.sum(axis=1), 1, rtol=0, atol=1e-12)
    # However large the floor, it lies below the largest probability, which so remains the largest.
    assert (lifted.argmax(axis=1) == p.argmax(axis=1)).all()
    assert (lifted >= floor / (1 + 3 * floor) * (1 - 1e-12)).all()


def test_a_floor_of_zero_does_nothing() -> None:
    said = np.array([[0.0, 0.3, 0.7], [1.0, 0.0, 0.0]])
    assert np.array_equal(floored(said, 0.0), said)


@pytest.mark.parametrize("floor", [-1e-9, 0.5, math.nan])
def test_floors_out_of_range_are_refused(floor: float) -> None:
    with pytest.raises(ConfigError, match="floor: found"):
        floored([[0.4, 0.6]], floor)


@settings(max_examples=50)
@given(arrays(np.float64, (4, 3), elements=st.floats(-30, 30)))
def test_logits_are_recovered_up_to_one_constant_a_row(logits: np.ndarray) -> None:
    difference = logits - invert_softmax(scipy_softmax(logits, axis=1), floor=0, constant="zero")
    np.testing.assert_allclose(np.ptp(difference, axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(difference[:, 0], logsumexp(logits, axis=1), atol=1e-9)
    np.testing.assert_allclose(
        invert_softmax(scipy_softmax(logits, axis=1), floor=0, constant="centred"),
        logits - logits.mean(axis=1, keepdims=True),
        atol=1e-9,
    )


@settings(max_examples=50)
@given(POSITIVE, st.sampled_from(["zero", "centred"]), st.sampled_from([0.0, 0.01]))
def test_softmax_takes_the_inversion_back(said: np.ndarray, constant: str, floor: float) -> None:
    logits = invert_softmax(said, floor=floor, constant=constant)  # type: ignore[arg-type]
    np.testing.assert_allclose(softmax(logits), floored(said, floor), rtol=1e-12, atol=1e-15)


def test_a_zero_without_a_floor_has_no_logarithm() -> None:
    with pytest.raises(DataError, match="1 of 2 rows hold a 0"):
        invert_softmax([[1.0, 0.0], [0.5, 0.5]], floor=0, constant="zero")
    assert np.isfinite(invert_softmax([[1.0, 0.0]], floor=1e-6, constant="zero")).all()


def test_unknown_constants_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected zero or centred"):
        invert_softmax([[0.5, 0.5]], floor=0, constant="one")  # type: ignore[arg-type]


@pytest.mark.parametrize("constant", ["zero", "centred"])
def test_one_row_that_sums_to_99_percent_changes_nothing_in_the_other_999(constant: str) -> None:
    said, labels = said_on_a_grid(1000, 0.05, seed=0)
    spoiled = said.copy()
    spoiled[17] *= 0.99
    floor = default_floor(said)
    assert default_floor(spoiled) == floor
    whole = invert_softmax(said, floor=floor, constant=constant)  # type: ignore[arg-type]
    other = invert_softmax(spoiled, floor=floor, constant=constant)  # type: ignore[arg-type]
    rest = np.arange(1000) != 17
    assert np.array_equal(whole[rest], other[rest])
    np.testing.assert_allclose(whole[17], other[17], atol=1e-9)
    fits = [
        fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)[0].temperature
        for logits in (whole, other)
    ]
    assert fits[0] == pytest.approx(fits[1], rel=1e-9)


@pytest.mark.parametrize("step", [0.05, 0.02, 0.01, 0.001])
def test_the_floor_is_a_fifth_of_the_step_of_the_grid(step: float) -> None:
    said, _ = said_on_a_grid(2000, step, seed=1)
    assert step / 10 <= default_floor(said) <= step / 2
    assert default_floor(100 * said) == pytest.approx(default_floor(said), rel=1e-12)


def test_on_a_grid_of_five_percent_it_is_exactly_one_percent() -> None:
    said, _ = said_on_a_grid(1000, 0.05, seed=2)
    assert (said == 0).mean() > 0.1
    assert default_floor(said) == pytest.approx(0.01, rel=1e-9)


def test_rare_odd_numbers_do_not_decide_the_floor() -> None:
    said, _ = said_on_a_grid(1000, 0.05, seed=2)
    odd = np.concatenate([said, [[0.9999, 0.0001]] * 5])
    assert default_floor(odd) == default_floor(said)


def test_rows_with_odd_sums_hardly_move_the_floor() -> None:
    said, _ = said_on_a_grid(1000, 0.05, seed=2)
    said[::3] *= 0.97
    assert default_floor(said) == pytest.approx(0.01, rel=0.05)


def test_the_floor_is_bounded() -> None:
    assert default_floor(np.eye(2)) == 0.02
    assert default_floor([[1 - 1e-6, 1e-6]] * 50) == 1e-6
    # 50 floors of 0.02 would outweigh a label that was said to be certain.
    assert default_floor(np.eye(50)) == pytest.approx(1 / 250)
    with pytest.raises(DataError, match="no rows"):
        default_floor(np.zeros((0, 2)))


def test_the_default_floor_is_near_the_best_one_and_far_better_than_none() -> None:
    said, labels = said_on_a_grid(4000, 0.05, seed=3)

    def loss(floor: float) -> float:
        logits = invert_softmax(said, floor=floor, constant="zero")
        fitted, _ = fit_calibrator(logits[:2000], labels[:2000], method="temperature", max_temperature=100.0)
        return float(-np.log(fitted.apply(logits[2000:])[np.arange(2000), labels[2000:]]).mean())

    chosen = loss(default_floor(said))
    assert chosen < loss(1e-12) - 0.01
    assert chosen < min(loss(floor) for floor in (1e-4, 1e-3, 0.005, 0.01, 0.02, 0.04)) + 0.003


def test_distinct_values_are_counted_over_all_labels_to_a_millionth() -> None:
    assert num_distinct([[0.3, 0.7], [0.7, 0.3], [0.3 + 1e-9, 0.7]]) == 2
    assert num_distinct([[0.0, 1.0], [0.5, 0.5]]) == 3
    assert num_distinct([[0.1, 0.9], [0.10001, 0.89999]]) == 4
    assert num_distinct(said_on_a_grid(5000, 0.05, seed=4)[0]) == 21


@settings(max_examples=50)
@given(arrays(np.float64, (3, 4, 3), elements=st.floats(0, 1)), st.floats(-5, 5))
def test_the_mean_of_logits_is_the_geometric_mean_and_no_constant_matters(said: np.ndarray, constant: float) -> None:
    said = said + 1e-3
    average = average_prompts(said, floor=0.01)
    logs = np.log(np.stack([floored(rows, 0.01) for rows in said])) + constant * np.arange(3)[:, None, None]
    np.testing.assert_allclose(np.log(average), log_softmax(logs.mean(axis=0), axis=1), atol=1e-9)
    np.testing.assert_allclose(average_prompts(said[::-1], floor=0.01), average, atol=1e-12)


def test_one_prompt_or_equal_ones_are_their_own_average() -> None:
    said = np.array([[0.2, 0.3, 0.5], [0.0, 0.1, 0.9]])
    for count in (1, 4):
        np.testing.assert_allclose(
            average_prompts(np.stack([said] * count), floor=0.01), floored(said, 0.01), rtol=1e-13
        )


def test_a_failed_paraphrase_is_left_out_and_a_row_without_any_stays_nan() -> None:
    nothing = [math.nan, math.nan]
    said = np.array([[[0.2, 0.8], [0.4, 0.6], nothing], [[0.6, 0.4], nothing, nothing]])
    average = average_prompts(said, floor=0.01)
    np.testing.assert_allclose(average[0], average_prompts(said[:, :1], floor=0.01)[0], rtol=1e-14)
    np.testing.assert_allclose(average[1], [0.4, 0.6], rtol=1e-13)
    assert np.isnan(average[2]).all()
    assert np.isnan(average_prompts(np.full((2, 3, 2), math.nan), floor=0.01)).all()


def test_a_distribution_that_is_nan_in_part_is_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 rows hold a number that is NaN"):
        average_prompts(np.array([[[0.2, math.nan], [0.5, 0.5]]]), floor=0.01)
