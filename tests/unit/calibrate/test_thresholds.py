"""Operating thresholds and decisions."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.metrics import f1_score, precision_score, recall_score

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.calibrate.thresholds import (
    choose_threshold,
    decide,
    map_threshold,
    near_threshold,
    threshold_interval,
)
from clsgen_dist.errors import ConfigError, DataError


def best_f1(probability: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    return choose_threshold(probability, positive, rule="best_f1", value=None)


def test_the_threshold_lies_midway_between_two_probabilities() -> None:
    assert best_f1([0.1, 0.2, 0.6, 0.9], [False, False, True, True]) == pytest.approx(0.4)


def test_where_all_rows_are_best_called_positive_it_lies_midway_to_zero() -> None:
    assert best_f1([0.2, 0.4, 0.6], [True, False, True]) == pytest.approx(0.1)
    assert best_f1([0.0, 0.0], [True, False]) == 0.0


def test_of_equal_f1_the_threshold_nearest_to_a_half_is_taken() -> None:
    # Both cuts give F1 = 2/3: {top row} and {all four rows}.
    probability, positive = [0.1, 0.3, 0.8, 0.9], [True, False, False, True]
    assert best_f1(probability, positive) == pytest.approx(0.85)
    assert best_f1([0.1, 0.3, 0.4, 0.9], positive) == pytest.approx(0.65)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_has_a_larger_f1(rows: list[tuple[int, bool]]) -> None:
    probability = np.array([p / 20 for p, _ in rows])
    positive = np.array([y for _, y in rows])
    if positive.all() or not positive.any():
        return
    chosen = best_f1(probability, positive)
    best = max(f1_score(positive, probability >= t, zero_division=0) for t in np.unique(probability))
    assert f1_score(positive, probability >= chosen, zero_division=0) == pytest.approx(best)
    assert 0 <= chosen <= 1


def test_neighbouring_floats_keep_their_sides() -> None:
    low = 0.5
    high = float(np.nextafter(low, 1))
    threshold = best_f1([low, high], [False, True])
    assert decide([[1 - low, low], [1 - high, high]], threshold).tolist() == [0, 1]


def test_the_order_of_rows_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    probability, positive = generator.random(200), generator.random(200) < 0.3
    shuffled = generator.permutation(200)
    assert best_f1(probability, positive) == best_f1(probability[shuffled], positive[shuffled])


def test_for_calibrated_probabilities_the_threshold_is_half_the_best_f1() -> None:
    generator = np.random.default_rng(1)
    probability = expit(generator.normal(-1.5, 1.5, size=40_000))
    positive = generator.random(40_000) < probability
    threshold = best_f1(probability, positive)
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
        best_f1(probability, positive)


def test_the_last_label_wins_a_tie_at_the_threshold_and_the_first_one_without() -> None:
    tie = [[0.5, 0.5], [0.7, 0.3]]
    assert decide(tie, 0.5).tolist() == [1, 0]
    assert decide(tie, 0.3).tolist() == [1, 1]
    assert decide(tie, None).tolist() == [0, 0]
    assert decide(tie, 0.3).dtype == np.int64


def test_near_the_threshold_of_two_labels() -> None:
    rows = [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.125, 0.875]]
    assert near_threshold(rows, 0.75, 0.125).tolist() == [False, False, True, True]
    assert near_threshold(rows, None, 0.25).tolist() == [True, True, True, False]
    assert near_threshold(rows, 0.75, 0.0).tolist() == [False, False, True, False]


def test_near_each_other_are_the_two_largest_of_more_labels() -> None:
    rows = [[0.5, 0.0, 0.5], [0.125, 0.625, 0.25], [0.0, 0.25, 0.75]]
    assert near_threshold(rows, None, 0.375).tolist() == [True, True, False]


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


# What a threshold is chosen for.


def rows_of(seed: int, num_rows: int = 400, steps: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities on a grid, so that there are ties, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    probability = np.round(expit(generator.normal(-1, 2, size=num_rows)) * steps) / steps
    return probability, generator.random(num_rows) < probability


def candidates_of(probability: np.ndarray) -> list[float]:
    """A threshold below each distinct probability, lowest first."""
    return np.unique(probability).tolist()


@pytest.mark.parametrize("value", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_precision_is_reached_with_the_largest_recall(value: float) -> None:
    probability, positive = rows_of(seed=2)
    positive |= probability == probability.max()
    chosen = choose_threshold(probability, positive, rule="precision", value=value)
    enough = [
        t for t in candidates_of(probability) if precision_score(positive, probability >= t, zero_division=0) >= value
    ]
    assert np.array_equal(probability >= chosen, probability >= enough[0])


@pytest.mark.parametrize("value", [0.1, 0.5, 0.9, 1.0])
def test_recall_is_reached_with_the_highest_threshold(value: float) -> None:
    probability, positive = rows_of(seed=3)
    chosen = choose_threshold(probability, positive, rule="recall", value=value)
    enough = [t for t in candidates_of(probability) if recall_score(positive, probability >= t) >= value]
    assert np.array_equal(probability >= chosen, probability >= enough[-1])


def test_a_precision_that_cannot_be_had_names_the_best_one() -> None:
    with pytest.raises(DataError, match=r"precision of 0.9: the best .* is 0.6667"):
        choose_threshold([0.1, 0.7, 0.7, 0.7], [False, True, True, False], rule="precision", value=0.9)


def test_cost_is_the_threshold_of_bayes_and_needs_no_rows() -> None:
    # A missed positive that costs four false alarms: act from 0.2.
    assert choose_threshold([], [], rule="cost", value=0.25) == pytest.approx(0.2)
    assert choose_threshold([], [], rule="cost", value=1.0) == 0.5
    generator = np.random.default_rng(4)
    probability = expit(generator.normal(-1, 2, size=100_000))

    def cost(threshold: float) -> float:
        # Expected over the labels: false alarms cost 1, misses 4.
        return float(np.where(probability >= threshold, 1 - probability, 4 * probability).mean())

    assert cost(0.2) == min(cost(t) for t in np.arange(0.05, 1, 0.05).round(2))


def test_a_share_is_never_exceeded_and_ties_stay_together() -> None:
    probability = np.array([0.9, 0.8, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    never = np.zeros(10, dtype=bool)
    flagged = {
        share: int((probability >= choose_threshold(probability, never, rule="top_share", value=share)).sum())
        for share in (0.1, 0.2, 0.3, 0.49, 0.5, 0.99, 1.0)
    }
    assert flagged == {0.1: 1, 0.2: 2, 0.3: 2, 0.49: 2, 0.5: 5, 0.99: 5, 1.0: 10}
    hundred = np.linspace(0, 1, 100)
    assert (hundred >= choose_threshold(hundred, hundred > 2, rule="top_share", value=0.29)).sum() == 29


def test_a_tie_at_the_top_that_is_larger_than_the_share_is_refused() -> None:
    probability, never = [0.9, 0.9, 0.9, 0.1], [False] * 4
    with pytest.raises(DataError, match=r"a share of 0.75 of the calibration rows, more than 0.5;"):
        choose_threshold(probability, never, rule="top_share", value=0.5)
    # The three rows stand for 3 of 12.
    with pytest.raises(DataError, match=r"a share of 0.25 of the calibration rows, more than 0.2;"):
        choose_threshold(probability, never, rule="top_share", value=0.2, weight_N=[1, 1, 1, 9])


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        ("accuracy", 0.5, "expected one of best_f1"),
        ("best_f1", 0.5, "expected none"),
        ("recall", None, "above 0"),
        ("recall", 0.0, "above 0"),
        ("precision", 1.1, "at most 1"),
        ("top_share", 2.0, "at most 1"),
        ("cost", -1.0, "above 0"),
        ("cost", float("inf"), "above 0"),
        ("cost", float("nan"), "above 0"),
    ],
)
def test_rules_and_values_that_do_not_fit_are_refused(rule: str, value: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_threshold([0.1, 0.9], [False, True], rule=rule, value=value)


@pytest.mark.parametrize("rule", ["precision", "recall"])
def test_rules_on_labels_need_both(rule: str) -> None:
    with pytest.raises(DataError, match="same label"):
        choose_threshold([0.1, 0.9], [True, True], rule=rule, value=0.5)


def test_rows_that_stand_for_none_bring_no_label() -> None:
    with pytest.raises(DataError, match="all 2 calibration rows have the same label"):
        choose_threshold([0.1, 0.5, 0.9], [False, False, True], rule="best_f1", value=None, weight_N=[1, 1, 0])


# How sure a threshold is.


@pytest.mark.parametrize(
    ("rule", "value"), [("best_f1", None), ("precision", 0.7), ("recall", 0.8), ("top_share", 0.2)]
)
def test_intervals_hold_the_threshold_and_shrink_with_rows(rule: str, value: float | None) -> None:
    widths = []
    for num_rows in (200, 5000):
        probability, positive = rows_of(seed=6, num_rows=num_rows, steps=1000)
        low, high = threshold_interval(probability, positive, None, rule=rule, value=value, num_bootstrap=200, seed=0)
        assert 0 <= low <= choose_threshold(probability, positive, rule=rule, value=value) <= high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 1.5


def test_rows_that_come_in_groups_are_less_sure() -> None:
    generator = np.random.default_rng(7)
    # Twenty rows of a group are the same row.
    probability, positive = np.repeat(rows_of(seed=7, num_rows=60, steps=1000), 20, axis=1)
    group = np.repeat([f"patient {g}" for g in range(60)], 20)
    order = generator.permutation(len(group))
    probability, positive, group = probability[order], positive[order].astype(bool), group[order]
    options: dict[str, object] = {"rule": "recall", "value": 0.8, "num_bootstrap": 300, "seed": 0}
    low, high = threshold_interval(probability, positive, group, **options)  # type: ignore[arg-type]
    alone_low, alone_high = threshold_interval(probability, positive, None, **options)  # type: ignore[arg-type]
    assert high - low > 1.5 * (alone_high - alone_low)


def test_a_resample_without_an_answer_counts_as_one() -> None:
    # One positive row at the top, which a third of the resamples lack.
    probability = np.linspace(0.1, 0.9, 30)
    positive = np.arange(30) >= 28
    low, high = threshold_interval(probability, positive, None, rule="precision", value=1.0, num_bootstrap=200, seed=0)
    assert low == pytest.approx(choose_threshold(probability, positive, rule="precision", value=1.0), abs=0.05)
    mixed = positive & (np.arange(30) < 29)  # the top row is negative
    with pytest.raises(DataError, match="no threshold has a precision"):
        threshold_interval(probability, mixed, None, rule="precision", value=1.0, num_bootstrap=200, seed=0)
    tied = np.array([0.9] * 3 + [0.5] * 7)
    assert threshold_interval(tied, tied > 2, None, rule="top_share", value=0.3, num_bootstrap=200, seed=0)[1] == 1.0
    assert high < 1


def test_the_interval_of_a_cost_is_a_point_and_the_seed_repeats_the_others() -> None:
    assert threshold_interval([], [], None, rule="cost", value=1.0, num_bootstrap=10, seed=0) == (0.5, 0.5)
    probability, positive = rows_of(seed=8)
    first, again, other = (
        threshold_interval(probability, positive, None, rule="best_f1", value=None, num_bootstrap=50, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_two_groups_of_one_label_each_have_an_interval() -> None:
    # The worst case: every second resample is of one label and drawn again, the others are all rows.
    probability, positive, group = [0.1, 0.2, 0.8, 0.9], [False, False, True, True], [0, 0, 1, 1]
    low, high = threshold_interval(probability, positive, group, rule="best_f1", value=None, num_bootstrap=50, seed=0)
    assert low == high == pytest.approx(0.5)


def test_rows_that_cannot_be_resampled_are_refused() -> None:
    probability, positive = rows_of(seed=9, num_rows=20)
    with pytest.raises(DataError, match="one group"):
        threshold_interval(probability, positive, ["a"] * 20, rule="best_f1", value=None, num_bootstrap=10, seed=0)
    with pytest.raises(DataError, match="one a row"):
        threshold_interval(probability, positive, ["a"], rule="best_f1", value=None, num_bootstrap=10, seed=0)


# Thresholds before and after calibration.


def maps() -> list[Calibrator]:
    platt = Calibrator(method="platt", parameters={"slope": (0.6,), "intercept": (-1.2,)}, num_rows=50)
    tempered = Calibrator(method="temperature", parameters={"temperature": (2.7,)}, num_rows=50)
    return [IDENTITY, tempered, platt, replace(tempered, log_prior_shift=(0.4, -0.9))]


@pytest.mark.parametrize("calibrator", maps(), ids=["none", "temperature", "platt", "prior shift"])
@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.5, 0.95])
def test_a_mapped_threshold_decides_the_same(calibrator: Calibrator, threshold: float) -> None:
    odds = np.linspace(-8, 8, 1601) + 1e-4
    logits = np.stack([np.zeros_like(odds), odds], axis=1)
    mapped = map_threshold(threshold, calibrator)
    assert np.array_equal(decide(calibrator.apply(logits), mapped), decide(IDENTITY.apply(logits), threshold))
    assert map_threshold(mapped, calibrator, to="raw") == pytest.approx(threshold, abs=1e-9)


def test_the_map_is_that_of_the_formula() -> None:
    _, tempered, platt, shifted = maps()
    assert map_threshold(0.3, tempered) == pytest.approx(float(expit(logit(0.3) / 2.7)), abs=1e-9)
    assert map_threshold(0.3, tempered) == pytest.approx(0.4222, abs=5e-5)
    assert map_threshold(0.3, platt) == pytest.approx(float(expit(0.6 * logit(0.3) - 1.2)), abs=1e-9)
    # A temperature fixes a half, an intercept and a prior move it.
    assert map_threshold(0.5, tempered) == pytest.approx(0.5, abs=1e-15)
    assert map_threshold(0.5, platt) == pytest.approx(float(expit(-1.2)), abs=1e-9)
    assert map_threshold(0.5, shifted) == pytest.approx(float(expit(-1.3)), abs=1e-9)
    assert [map_threshold(t, platt) for t in (0.0, 1.0)] == [0.0, 1.0]


def test_a_threshold_that_has_no_map_is_refused() -> None:
    beta = Calibrator(method="beta", parameters={"a": (1.0,), "b": (1.0,), "c": (0.0,)}, num_rows=50)
    with pytest.raises(ConfigError, match="'beta', expected one of none, temperature, platt"):
        map_threshold(0.5, beta)
    with pytest.raises(ConfigError, match="of 3 labels"):
        map_threshold(0.5, replace(IDENTITY, log_prior_shift=(0.0, 0.1, 0.2)))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        map_threshold(1.5, IDENTITY)


@pytest.mark.parametrize(
    ("rule", "value"), [("best_f1", None), ("precision", 0.6), ("recall", 0.7), ("top_share", 0.3)]
)
def test_a_weight_stands_for_so_many_rows(rule: str, value: float | None) -> None:
    rng = np.random.default_rng(5)
    probability_N = rng.uniform(size=200).round(2)
    positive_N = rng.uniform(size=200) < probability_N
    times_N = rng.integers(0, 4, size=200)
    repeated = choose_threshold(
        np.repeat(probability_N, times_N), np.repeat(positive_N, times_N), rule=rule, value=value
    )
    assert choose_threshold(probability_N, positive_N, rule=rule, value=value, weight_N=times_N) == repeated
    low, high = threshold_interval(
        probability_N, positive_N, None, rule=rule, value=value, num_bootstrap=50, seed=0, weight_N=times_N
    )
    assert low <= high
