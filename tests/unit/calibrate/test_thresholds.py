"""Operating thresholds and decisions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from clsgen_dist.calibrate.thresholds import best_f1_threshold, decide
from clsgen_dist.errors import DataError


def test_the_threshold_lies_midway_between_two_probabilities() -> None:
    assert best_f1_threshold([0.1, 0.2, 0.6, 0.9], [False, False, True, True]) == pytest.approx(0.4)


def test_where_all_rows_are_best_called_positive_it_lies_midway_to_zero() -> None:
    assert best_f1_threshold([0.2, 0.4, 0.6], [True, False, True]) == pytest.approx(0.1)
    assert best_f1_threshold([0.0, 0.0], [True, False]) == 0.0


def test_of_equal_f1_the_threshold_nearest_to_a_half_is_taken() -> None:
    # Both cuts give F1 = 2/3: {top row} and {all four rows}.
    probability, positive = [0.1, 0.3, 0.8, 0.9], [True, False, False, True]
    assert best_f1_threshold(probability, positive) == pytest.approx(0.85)
    assert best_f1_threshold([0.1, 0.3, 0.4, 0.9], positive) == pytest.approx(0.65)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_has_a_larger_f1(rows: list[tuple[int, bool]]) -> None:
    probability = np.array([p / 20 for p, _ in rows])
    positive = np.array([y for _, y in rows])
    if positive.all() or not positive.any():
        return
    chosen = best_f1_threshold(probability, positive)
    best = max(f1_score(positive, probability >= t, zero_division=0) for t in np.unique(probability))
    assert f1_score(positive, probability >= chosen, zero_division=0) == pytest.approx(best)
    assert 0 <= chosen <= 1


def test_neighbouring_floats_keep_their_sides() -> None:
    low = 0.5
    high = float(np.nextafter(low, 1))
    threshold = best_f1_threshold([low, high], [False, True])
    assert decide([[1 - low, low], [1 - high, high]], threshold).tolist() == [0, 1]


def test_the_order_of_rows_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    probability, positive = generator.random(200), generator.random(200) < 0.3
    shuffled = generator.permutation(200)
    assert best_f1_threshold(probability, positive) == best_f1_threshold(probability[shuffled], positive[shuffled])


def test_for_calibrated_probabilities_the_threshold_is_half_the_best_f1() -> None:
    generator = np.random.default_rng(1)
    probability = expit(generator.normal(-1.5, 1.5, size=40_000))
    positive = generator.random(40_000) < probability
    threshold = best_f1_threshold(probability, positive)
    assert threshold == pytest.approx(f1_score(positive, probability >= threshold) / 2, abs=0.03)


@pytest.mark.parametrize(
    ("probability", "positive", "message"),
    [
        ([], [], "at least two rows"),
        ([0.5], [True, False], "shapes"),
        ([0.5, np.nan], [True, False], "NaN"),
        ([0.5, 1.5], [True, False], "outside 0 to 1"),
        ([0.5, 0.6], [True, True], "same label"),
        ([0.5, 0.6], [False, False], "same label"),
    ],
)
def test_rows_without_a_threshold_are_refused(probability: list[float], positive: list[bool], message: str) -> None:
    with pytest.raises(DataError, match=message):
        best_f1_threshold(probability, positive)


def test_the_last_label_wins_a_tie_at_the_threshold_and_the_first_one_without() -> None:
    tie = [[0.5, 0.5], [0.7, 0.3]]
    assert decide(tie, 0.5).tolist() == [1, 0]
    assert decide(tie, 0.3).tolist() == [1, 1]
    assert decide(tie, None).tolist() == [0, 0]
    assert decide(tie, 0.3).dtype == np.int64


def test_more_labels_are_decided_by_the_largest_probability() -> None:
    assert decide([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], None).tolist() == [1, 0]
    assert decide([[0.2, 0.5, 0.3]], 0.1).tolist() == [1]


def test_a_threshold_moves_with_the_temperature() -> None:
    # p >= t exactly where p_T >= sigma(logit t / T); 0.3 at T = 2.7 is 0.4222.
    moved = float(expit(logit(0.3) / 2.7))
    assert moved == pytest.approx(0.4222, abs=5e-5)
    odds = np.linspace(-4, 4, 401)
    before = decide(np.stack([1 - expit(odds), expit(odds)], axis=1), 0.3)
    after = decide(np.stack([1 - expit(odds / 2.7), expit(odds / 2.7)], axis=1), moved)
    assert np.array_equal(before, after)
