"""Alignment of what explanations argue for with what the head decides."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from clsgen_dist.evaluate.explanations import alignment


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
