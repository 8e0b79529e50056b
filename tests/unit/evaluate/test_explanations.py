"""Alignment of what explanations argue for with what the head decides."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from clsgen_dist.evaluate.explanations import (
    alignment,
    alignment_intervals,
    contradictions_by_confidence,
    describe_alignment,
)


def two(probability: list[float]) -> np.ndarray:
    return np.stack([1 - np.asarray(probability), np.asarray(probability)], axis=1)


def test_an_example_by_hand() -> None:
    found = alignment([1, 1, 0, 0, -1], [1, 0, 0, 0, 1], two([0.9, 0.4, 0.3, 0.45, 0.8]))
    assert found == {
        # Observed agreement 3/4; by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2.
        "kappa": pytest.approx(0.5),
        "auroc_alignment": pytest.approx(3 / 4),
        "coverage": pytest.approx(4 / 5),
        "unparsed": 1,
        "agreement": pytest.approx(3 / 4),
        "contradiction_rate": pytest.approx(1 / 4),
        "num_rows": 5,
    }


def test_three_labels_at_random_agree_with_scikit_learn_and_by_chance_only() -> None:
    generator = np.random.default_rng(0)
    probability = generator.dirichlet(np.ones(3), size=5000)
    predicted, verdict = probability.argmax(axis=1), generator.integers(0, 3, 5000)
    found = alignment(verdict, predicted, probability)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(verdict, predicted))
    # Verdicts at random: agreement by chance only, with a standard error of 0.01.
    assert found["kappa"] == pytest.approx(0, abs=0.04)
    assert found["auroc_alignment"] == pytest.approx(roc_auc_score(verdict, probability, multi_class="ovr"))


def test_full_agreement_and_full_contradiction() -> None:
    probability = two([0.1, 0.2, 0.8, 0.9])
    same = alignment([0, 0, 1, 1], [0, 0, 1, 1], probability)
    assert (same["kappa"], same["auroc_alignment"], same["contradiction_rate"]) == (1, 1, 0)
    other = alignment([1, 1, 0, 0], [0, 0, 1, 1], probability)
    assert (other["kappa"], other["auroc_alignment"], other["contradiction_rate"]) == (-1, 0, 1)


def test_without_explanations_all_is_none() -> None:
    assert alignment([], [], np.zeros((0, 2))) == {
        "kappa": None,
        "auroc_alignment": None,
        "coverage": 0.0,
        "unparsed": 0,
        "agreement": None,
        "contradiction_rate": None,
        "num_rows": 0,
    }


def test_without_any_verdict_all_but_the_counts_is_none() -> None:
    found = alignment([-1, -1], [0, 1], two([0.2, 0.8]))
    assert (found["kappa"], found["auroc_alignment"], found["contradiction_rate"]) == (None, None, None)
    assert (found["coverage"], found["unparsed"], found["num_rows"]) == (0, 2, 2)


def test_a_single_verdict_leaves_no_ranking_and_a_single_label_no_kappa() -> None:
    same = alignment([1, 1, 1], [1, 1, 1], two([0.7, 0.8, 0.9]))
    assert (same["kappa"], same["auroc_alignment"], same["contradiction_rate"]) == (None, None, 0)
    mixed = alignment([1, 1, 1], [1, 0, 1], two([0.7, 0.2, 0.9]))
    assert (mixed["kappa"], mixed["auroc_alignment"]) == (0, None)


def test_contradictions_by_confidence_by_hand() -> None:
    # Largest probabilities 0.5, 0.55, 0.6, 0.95, 1 and, without a verdict, 0.97.
    probability = two([0.5, 0.55, 0.4, 0.95, 0.0, 0.97])
    found = contradictions_by_confidence([0, 1, 1, 0, 0, -1], [1, 1, 0, 1, 0, 1], probability)
    assert [(bin["low"], bin["high"]) for bin in found] == [(0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)]
    assert [bin["num_rows"] for bin in found] == [2, 1, 0, 0, 2]
    assert [bin["contradiction_rate"] for bin in found] == [0.5, 1.0, None, None, 0.5]


@pytest.mark.parametrize(("num_labels", "lowest"), [(2, 0.5), (3, 0.3), (4, 0.2), (6, 0.1), (20, 0.0)])
def test_bins_of_confidence_begin_where_no_label_can_be_likelier_than_the_others(
    num_labels: int, lowest: float
) -> None:
    even = np.full((1, num_labels), 1 / num_labels)
    found = contradictions_by_confidence([0], [1], even)
    assert (found[0]["low"], found[-1]["high"]) == (lowest, 1.0)
    assert [bin["num_rows"] for bin in found] == [1] + [0] * (len(found) - 1)


def test_an_edge_belongs_to_the_bin_above_it_whatever_the_rounding() -> None:
    found = contradictions_by_confidence([1], [1], two([0.1 + 0.2 + 0.3 + 0.3 - 1e-15]))
    assert [bin["num_rows"] for bin in found] == [0, 0, 0, 0, 1]


def test_intervals_agree_with_copying_the_rows_of_each_drawn_group() -> None:
    generator = np.random.default_rng(0)
    probability = generator.dirichlet(np.ones(3), size=90)
    predicted = probability.argmax(axis=1)
    verdict = np.where(generator.random(90) < 0.7, predicted, generator.integers(0, 3, 90))
    verdict[generator.random(90) < 0.1] = -1
    group = np.concatenate([np.arange(30), generator.integers(0, 30, 60)])
    kappas, areas = [], []
    for groups in np.random.default_rng(7).integers(0, 30, size=(200, 30)):
        rows = np.concatenate([np.flatnonzero(group == g) for g in groups])
        rows = rows[verdict[rows] >= 0]
        kappas.append(cohen_kappa_score(verdict[rows], predicted[rows]))
        areas.append(roc_auc_score(verdict[rows], probability[rows], multi_class="ovr"))
    found = alignment_intervals(verdict, predicted, probability, group, num_bootstrap=200, seed=7)
    assert found["kappa_ci"] == pytest.approx(np.percentile(kappas, [2.5, 97.5]))
    assert found["auroc_alignment_ci"] == pytest.approx(np.percentile(areas, [2.5, 97.5]))


def test_rows_of_one_group_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    probability = np.repeat(generator.random(40), 10)
    predicted = (probability > 0.5).astype(int)
    verdict = np.where(np.repeat(generator.random(40) < 0.8, 10), predicted, 1 - predicted)
    widths = []
    for groups in (np.arange(400), np.repeat(np.arange(40), 10)):
        found = alignment_intervals(verdict, predicted, two(probability), groups, num_bootstrap=500, seed=0)
        assert found["kappa_ci"] is not None
        widths.append(found["kappa_ci"][1] - found["kappa_ci"][0])
    # Ten equal rows a group: the standard error is sqrt(10) times as large.
    assert 2.4 < widths[1] / widths[0] < 4


def test_full_agreement_is_no_certainty() -> None:
    found = alignment_intervals(
        [0, 0, 1, 1], [0, 0, 1, 1], two([0.1] * 2 + [0.9] * 2), range(4), num_bootstrap=9, seed=0
    )
    # Drawn from four rows, one label alone is drawn once in eight times: that is too often.
    assert found == {"kappa_ci": None, "auroc_alignment_ci": None}
    labels, probability = np.arange(20) % 2, two(np.tile([0.1, 0.9], 10).tolist())
    found = alignment_intervals(labels, labels, probability, np.arange(20), num_bootstrap=100, seed=0)
    # Of 20 rows, an agreement of 0.025 ** (1 / 20) = 0.8316 all agree once in forty times; by chance half of them do.
    assert found["kappa_ci"] == pytest.approx([2 * 0.83157 - 1, 1.0], abs=1e-4)
    assert found["auroc_alignment_ci"] == [1.0, 1.0]


def test_what_is_undefined_has_no_interval() -> None:
    none = {"kappa_ci": None, "auroc_alignment_ci": None}
    options = {"num_bootstrap": 100, "seed": 0}
    assert alignment_intervals([], [], np.zeros((0, 2)), [], **options) == none
    assert alignment_intervals([-1, -1], [0, 1], two([0.2, 0.8]), [0, 1], **options) == none
    same = np.ones(50, dtype=int)
    assert alignment_intervals(same, same, two([0.8] * 50), np.arange(50), **options) == none
    # All of one group: nothing can be resampled.
    verdict = np.arange(50) % 2
    assert alignment_intervals(verdict, same, two([0.8] * 50), np.zeros(50), **options) == none
    # One verdict alone ranks nothing; kappa is 0 in every resample.
    found = alignment_intervals(same, verdict, two([0.8] * 50), np.arange(50), **options)
    assert found == {"kappa_ci": [0.0, 0.0], "auroc_alignment_ci": None}


def test_all_that_is_known_of_an_alignment_stands_together() -> None:
    verdict, predicted, probability = [1, 1, 0, 0, -1], [1, 0, 0, 0, 1], two([0.9, 0.4, 0.3, 0.45, 0.8])
    found = describe_alignment(verdict, predicted, probability, range(5), num_bootstrap=100, seed=0)
    assert {name: found[name] for name in alignment(verdict, predicted, probability)} == alignment(
        verdict, predicted, probability
    )
    assert found["by_confidence"] == contradictions_by_confidence(verdict, predicted, probability)
    assert {"kappa_ci", "auroc_alignment_ci"} <= set(found)
