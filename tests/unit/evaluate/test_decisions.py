"""What a threshold does on fresh rows, and the whole that metrics.json says of decisions."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from clsgen_dist.calibrate.thresholds import choose_threshold
from clsgen_dist.errors import ConfigError, DataError, NumericsError
from clsgen_dist.evaluate.costs import CURVE_THRESHOLDS
from clsgen_dist.evaluate.decisions import (
    MAX_RISKS,
    MIN_CONFIDENCES,
    decision_metrics,
    estimate_at_threshold,
)
from clsgen_dist.evaluate.intervals import bootstrap_intervals
from clsgen_dist.evaluate.selective import risk_coverage


def draw(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probability = generator.beta(0.6, 1.6, num_rows).round(2)
    return probability, generator.random(num_rows) < probability


def two(probability: np.ndarray) -> np.ndarray:
    return np.stack([1 - probability, probability], axis=1)


def test_the_numbers_are_those_of_scikit_learn_with_ties_on_the_threshold() -> None:
    probability, positive = draw(400, 0)
    found = estimate_at_threshold(probability, positive, None, 0.3, 100, 0)
    flagged = probability >= 0.3
    assert (probability == 0.3).any()
    assert found["precision"] == pytest.approx(precision_score(positive, flagged))
    assert found["recall"] == pytest.approx(recall_score(positive, flagged))
    assert found["f1"] == pytest.approx(f1_score(positive, flagged))
    assert found["share_flagged"] == pytest.approx(flagged.mean())
    assert (found["num_rows"], found["num_positive"], found["num_flagged"]) == (400, positive.sum(), flagged.sum())


def test_the_intervals_agree_with_copying_the_rows_of_each_drawn_group() -> None:
    probability, positive = draw(90, 1)
    group = np.arange(90) // 3
    flagged = probability >= 0.4
    slow: dict[str, list[float]] = {"precision": [], "recall": [], "f1": [], "share_flagged": []}
    for groups in np.random.default_rng(3).integers(0, 30, size=(200, 30)):
        rows = np.concatenate([np.flatnonzero(group == g) for g in groups])
        found = (flagged & positive)[rows].sum()
        slow["precision"].append(found / flagged[rows].sum())
        slow["recall"].append(found / positive[rows].sum())
        slow["f1"].append(2 * found / (flagged[rows].sum() + positive[rows].sum()))
        slow["share_flagged"].append(flagged[rows].mean())
    fast = estimate_at_threshold(probability, positive, group, 0.4, 200, 3)
    for name, values in slow.items():
        assert fast[f"{name}_ci"] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12), name


def test_the_interval_of_f1_is_that_of_the_metrics_of_the_same_seed() -> None:
    probability, positive = draw(300, 2)
    found = estimate_at_threshold(probability, positive, None, 0.35, 200, 7)
    labels = positive.astype(int)
    other = bootstrap_intervals(
        two(probability), labels, (probability >= 0.35).astype(int), None, num_bootstrap=200, num_bins=10, seed=7
    )
    assert found["f1_ci"] == pytest.approx(other["f1_ci"], abs=1e-12)


def test_the_intervals_hold_the_truth_about_nineteen_times_in_twenty() -> None:
    truth = estimate_at_threshold(*draw(300_000, 1000), None, 0.4, 2, 0)
    held = dict.fromkeys(("precision", "recall", "f1", "share_flagged"), 0)
    for seed in range(100):
        found = estimate_at_threshold(*draw(300, seed), None, 0.4, 200, seed)
        for name in held:
            low, high = found[f"{name}_ci"]
            held[name] += low <= truth[name] <= high
    assert all(88 <= count <= 99 for count in held.values()), held


def test_a_threshold_chosen_on_the_rows_that_it_is_judged_on_looks_too_good() -> None:
    own, fresh = [], []
    for seed in range(40):
        probability, positive = draw(100, seed)
        threshold = choose_threshold(probability, positive, rule="best_f1", value=None)
        own.append(estimate_at_threshold(probability, positive, None, threshold, 2, 0)["f1"])
        fresh.append(estimate_at_threshold(*draw(100, seed + 500), None, threshold, 2, 0)["f1"])
    assert np.mean(own) > np.mean(fresh) + 0.02


def test_where_nothing_is_flagged_there_is_no_precision() -> None:
    found = estimate_at_threshold([0.1, 0.2, 0.3], [False, True, False], None, 0.9, 50, 0)
    assert (found["precision"], found["precision_ci"]) == (None, None)
    assert (found["recall"], found["f1"], found["share_flagged"], found["num_flagged"]) == (0, 0, 0, 0)
    # One positive row that was missed says little of how many would be.
    assert found["recall_ci"] == pytest.approx([0, 0.975])
    # The share of what is found among rows that are positive or flagged, J <= .975, is F1 = 2 J / (1 + J).
    assert found["f1_ci"] == pytest.approx([0, 2 * 0.975 / 1.975])


def test_a_precision_of_one_on_three_rows_is_not_certain() -> None:
    probability = np.array([0.9, 0.8, 0.95, *[0.1] * 97])
    positive = np.arange(100) < 5
    found = estimate_at_threshold(probability, positive, None, 0.5, 200, 0)
    assert found["precision"] == 1
    assert found["precision_ci"] == pytest.approx([0.025 ** (1 / 3), 1])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="threshold: found nan"):
        estimate_at_threshold([0.1, 0.9], [False, True], None, float("nan"), 5, 0)
    with pytest.raises(NumericsError):
        estimate_at_threshold([0.1, 1.9], [False, True], None, 0.5, 5, 0)
    with pytest.raises(DataError, match="one group"):
        estimate_at_threshold([0.1, 0.9], [False, True], ["p", "p"], 0.5, 5, 0)


def test_the_whole_for_two_labels() -> None:
    probability, positive = draw(300, 4)
    group = np.arange(300) // 2
    cost = [[0, 1], [4, 0]]
    options = {"num_bootstrap": 50, "seed": 1}
    labels = positive.astype(int)
    found = decision_metrics(two(probability), labels, group, threshold=0.4, cost_KK=cost, **options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["at_threshold"] == estimate_at_threshold(probability, positive, group, 0.4, 50, 1)
    selective = found["selective"]
    assert selective["aurc_ci"][0] < selective["aurc"] < selective["aurc_ci"][1]
    assert selective["aurc_best"] < selective["aurc"] < selective["error_rate"]
    assert selective["error_rate"] == pytest.approx(np.mean((probability > 0.5) != positive))
    assert [each["max_risk"] for each in selective["coverage_at_risk"]] == list(MAX_RISKS)
    coverages = [each["coverage"] for each in selective["coverage_at_risk"]]
    assert coverages == sorted(coverages)
    assert [each["min_confidence"] for each in selective["when_sure"]] == list(MIN_CONFIDENCES)
    shares = [each["share_answered"] for each in selective["when_sure"]]
    assert shares == sorted(shares, reverse=True)
    benefit = found["net_benefit"]
    assert benefit["threshold"] == list(CURVE_THRESHOLDS)
    at = CURVE_THRESHOLDS.index(0.3)
    flagged = probability >= 0.3
    assert benefit["model"][at] == pytest.approx(
        (flagged & positive).mean() - (flagged & ~positive).mean() * 0.3 / 0.7, abs=1e-12
    )
    assert found["expected_cost"]["bayes"] == pytest.approx(
        np.mean(np.where(probability >= 0.2, ~positive * 1, positive * 4))
    )


def test_the_whole_for_three_labels_leaves_out_what_is_of_two() -> None:
    generator = np.random.default_rng(0)
    probability = generator.dirichlet(np.ones(3), size=100)
    labels = (generator.random((100, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    found = decision_metrics(probability, labels, None, threshold=None, num_bootstrap=20, seed=0)
    assert (found["at_threshold"], found["net_benefit"], found["expected_cost"]) == (None, None, None)
    assert found["selective"]["error_rate"] == pytest.approx(risk_coverage(probability, labels).risk_D[-1])
