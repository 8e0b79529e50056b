"""Net benefit and expected cost: against counting row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsgen_dist.errors import ConfigError, DataError, NumericsError
from clsgen_dist.evaluate.costs import expected_cost, net_benefit


def two(probability: np.ndarray) -> np.ndarray:
    return np.stack([1 - probability, probability], axis=1)


def draw(num_rows: int, seed: int, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probability = generator.beta(0.7, 1.3, num_rows).round(decimals)
    positive = generator.random(num_rows) < probability
    positive[:2] = [True, False]
    return probability, positive


def test_net_benefit_by_hand() -> None:
    found = net_benefit([0.9, 0.6, 0.4, 0.1], [True, False, True, False], [0.2, 0.5])
    # At .2: two found, one false alarm at 1/4. At .5: one and one.
    assert found.model_T.tolist() == pytest.approx([2 / 4 - 1 / 4 * 0.25, 1 / 4 - 1 / 4])
    assert found.treat_all_T.tolist() == pytest.approx([2 / 4 - 2 / 4 * 0.25, 2 / 4 - 2 / 4])


@pytest.mark.parametrize("seed", range(3))
def test_net_benefit_agrees_with_counting(seed: int) -> None:
    probability, positive = draw(300, seed, decimals=1 + seed)
    # Thresholds that rows lie on are among them.
    thresholds = [0.0, *np.unique(probability)[:-1][:8], 0.5, 0.123, 0.999]
    found = net_benefit(probability, positive, thresholds)
    for threshold, benefit, treat_all in zip(thresholds, found.model_T, found.treat_all_T, strict=True):
        odds = threshold / (1 - threshold)
        right = sum(p >= threshold and y for p, y in zip(probability, positive, strict=True))
        wrong = sum(p >= threshold and not y for p, y in zip(probability, positive, strict=True))
        assert benefit == pytest.approx(right / 300 - wrong / 300 * odds, abs=1e-12)
        assert treat_all == pytest.approx(positive.mean() - (1 - positive.mean()) * odds, abs=1e-12)


def test_flagging_all_is_worth_the_prevalence_at_0_and_nothing_at_the_prevalence() -> None:
    probability, positive = draw(200, 5)
    found = net_benefit(probability, positive, [0.0, positive.mean()])
    assert found.model_T[0] == found.treat_all_T[0] == pytest.approx(positive.mean())
    assert found.treat_all_T[1] == pytest.approx(0, abs=1e-12)


def test_a_perfect_model_is_worth_the_prevalence_everywhere() -> None:
    positive = np.arange(10) < 3
    found = net_benefit(positive.astype(float), positive, [0.01, 0.5, 0.99])
    assert found.model_T.tolist() == pytest.approx([0.3] * 3)


@pytest.mark.parametrize("threshold", [1.0, -0.1, float("nan"), float("inf")])
def test_thresholds_without_odds_are_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to below 1"):
        net_benefit([0.1, 0.9], [False, True], [0.5, threshold])


def test_probabilities_that_are_none_are_refused() -> None:
    for wrong in (1.1, float("nan")):
        with pytest.raises(NumericsError):
            net_benefit([0.1, wrong], [False, True], [0.5])
    with pytest.raises(DataError, match="all 2 labelled rows"):
        net_benefit([0.1, 0.2], [True, True], [0.5])


def test_expected_cost_by_hand() -> None:
    # A missed positive costs 10, a false alarm 1: flag from 1/11 on.
    cost = [[0, 1], [10, 0]]
    found = expected_cost(two(np.array([0.05, 0.2, 0.4, 0.9])), [0, 0, 1, 1], cost)
    assert found.bayes == pytest.approx(1 / 4)  # the false alarm at .2
    assert found.arg_max == pytest.approx(10 / 4)  # the miss at .4
    assert (found.constant, found.constant_label) == (pytest.approx(2 / 4), 1)
    assert found.expected_bayes == pytest.approx((0.05 * 10 + 0.8 + 0.6 + 0.1) / 4)


def test_expected_cost_of_three_labels_agrees_with_trying_every_decision() -> None:
    generator = np.random.default_rng(1)
    probability = generator.dirichlet(np.ones(3), size=200)
    labels = (generator.random((200, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    cost = generator.random((3, 3)) * 5 + 1
    np.fill_diagonal(cost, [0.5, -2.0, 0.0])
    expected = [[sum(p[k] * cost[k, j] for k in range(3)) for j in range(3)] for p in probability]
    decided = [int(np.argmin(row)) for row in expected]
    found = expected_cost(probability, labels, cost)
    assert found.bayes == pytest.approx(np.mean([cost[y, j] for y, j in zip(labels, decided, strict=True)]))
    assert found.expected_bayes == pytest.approx(np.mean([min(row) for row in expected]))
    assert found.constant == pytest.approx(min(np.mean(cost[labels, j]) for j in range(3)))


def test_calibrated_probabilities_cost_what_they_expect_and_less_than_any_constant() -> None:
    generator = np.random.default_rng(2)
    probability = generator.beta(0.5, 1.5, 100_000)
    labels = (generator.random(100_000) < probability).astype(int)
    found = expected_cost(two(probability), labels, [[0, 1], [5, 0]])
    assert found.bayes == pytest.approx(found.expected_bayes, abs=0.01)
    assert found.bayes < min(found.constant, found.arg_max)
    # Twice as sure: dearer, and the costs that it expects are far from those that it meets.
    odds = (probability / (1 - probability)) ** 3
    sure = expected_cost(two(odds / (1 + odds)), labels, [[0, 1], [5, 0]])
    assert sure.bayes > found.bayes
    assert sure.bayes > 1.5 * sure.expected_bayes


@given(
    probability=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    false_alarm=st.floats(0.01, 100),
    miss=st.floats(0.01, 100),
)
def test_of_two_labels_the_decision_is_a_threshold(probability: list[float], false_alarm: float, miss: float) -> None:
    threshold = false_alarm / (false_alarm + miss)
    for p in probability:
        if abs(p - threshold) > 1e-9:
            # A row of each label: a false alarm where the two are flagged, a miss where they are not.
            found = expected_cost(two(np.array([p, p])), [0, 1], [[0, false_alarm], [miss, 0]])
            assert found.bayes == pytest.approx((false_alarm if p >= threshold else miss) / 2)


def test_ties_go_to_the_last_of_two_labels_as_at_a_threshold_and_to_the_first_of_more() -> None:
    # At the threshold of 0.3 the first row is flagged, a false alarm; so is the second, rightly.
    assert expected_cost([[0.7, 0.3], [0.5, 0.5]], [0, 1], [[0, 3], [7, 0]]).bayes == pytest.approx(3 / 2)
    # The first label is right in two of three rows, the second in none.
    assert expected_cost([[0.4, 0.4, 0.2]] * 3, [0, 0, 2], 1 - np.eye(3)).bayes == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ([[0, 1]], r"found shape \(1, 2\)"),
        ([[0, 1], [1]], "2 rows of 2 numbers"),
        ([[0, float("nan")], [1, 0]], "NaN or infinite"),
        ([[0, float("inf")], [1, 0]], "NaN or infinite"),
        ([[0, 1], [1, 2]], "label number 1 .* cheaper"),
    ],
)
def test_cost_matrices_that_cannot_be_are_refused(cost: list[list[float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expected_cost(two(np.array([0.2, 0.8])), [0, 1], cost)
