"""Metrics against numbers made by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score, log_loss, roc_auc_score

from clsgen_dist.errors import DataError, NumericsError
from clsgen_dist.evaluate.metrics import calibration_bins, probability_metrics

KEYS = ["auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label"]


def two(probability: list[float] | np.ndarray) -> np.ndarray:
    return np.stack([1 - np.asarray(probability), np.asarray(probability)], axis=1)


def draw(num_rows: int, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that come from them."""
    generator = np.random.default_rng(seed)
    probability = generator.dirichlet(np.ones(num_labels), size=num_rows)
    labels = (generator.random((num_rows, 1)) > probability.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    return probability, labels


def test_a_small_example_by_hand() -> None:
    # Two bins. Below a half: mean p 0.2, one of three positive. Above: mean p 0.8, one of two positive.
    probability, labels = [0.1, 0.2, 0.3, 0.7, 0.9], [0, 1, 0, 0, 1]
    found = probability_metrics(two(probability), labels, [0, 0, 0, 1, 1], num_bins=2)
    assert list(found) == KEYS
    assert found["ece"] == pytest.approx(3 / 5 * abs(0.2 - 1 / 3) + 2 / 5 * abs(0.8 - 1 / 2))
    # The largest probability: .9 .8 .7 .7 .9, right in 1 0 1 0 1, all in the upper bin.
    assert found["ece_top_label"] == pytest.approx(abs(0.8 - 0.6))
    assert found["auroc"] == pytest.approx(4 / 6)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx(2 * 1 / (2 + 2))
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.9, 0.2, 0.7, 0.3, 0.9])))
    assert found["brier"] == pytest.approx(np.mean([0.01, 0.64, 0.09, 0.49, 0.01]))
    assert found["auprc"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 4)


def test_two_labels_agree_with_scikit_learn() -> None:
    probability, labels = draw(500, 2, seed=1)
    found = probability_metrics(probability, labels, probability[:, 1] >= 0.3, num_bins=15)
    assert found["nll"] == pytest.approx(log_loss(labels, probability))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probability[:, 1]))
    assert found["f1"] == pytest.approx(f1_score(labels, probability[:, 1] >= 0.3))


def test_more_labels_are_one_against_the_rest() -> None:
    probability, labels = draw(600, 4, seed=2)
    predicted = probability.argmax(axis=1)
    found = probability_metrics(probability, labels, predicted, num_bins=15)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, probability, multi_class="ovr", average="macro"))
    assert found["f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["nll"] == pytest.approx(log_loss(labels, probability))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probability, scale_by_half=False))
    each = [probability_metrics(two(probability[:, k]), labels == k, labels == k, num_bins=15)["ece"] for k in range(4)]
    assert found["ece"] == pytest.approx(np.mean(each))


def test_a_label_that_no_row_has_is_left_out_of_the_means() -> None:
    probability, labels = draw(300, 3, seed=3)
    kept = labels < 2
    found = probability_metrics(probability[kept], labels[kept], probability[kept].argmax(axis=1), num_bins=10)
    expected = np.mean([roc_auc_score(labels[kept] == k, probability[kept][:, k]) for k in (0, 1)])
    assert found["auroc"] == pytest.approx(expected)
    assert all(math.isfinite(value) for value in found.values())


def test_under_pure_bias_the_two_calibration_errors_differ() -> None:
    generator = np.random.default_rng(4)
    true = generator.random(20_000)
    labels = (generator.random(20_000) < true).astype(int)
    biased = true / (true + (1 - true) * math.exp(-1))
    found = probability_metrics(two(biased), labels, labels, num_bins=15)
    assert found["ece"] > found["ece_top_label"] + 0.05


def test_a_calibrated_model_shows_a_small_error_that_shrinks_with_rows() -> None:
    few = [probability_metrics(*draw(200, 2, seed=s), np.zeros(200), num_bins=10)["ece"] for s in range(20)]
    many = [probability_metrics(*draw(5000, 2, seed=s), np.zeros(5000), num_bins=10)["ece"] for s in range(20)]
    assert np.mean(few) == pytest.approx(0.07, abs=0.02)
    assert np.mean(many) < 0.02


def test_random_probabilities_rank_by_chance() -> None:
    probability, _ = draw(20_000, 2, seed=5)
    labels = np.random.default_rng(6).integers(0, 2, 20_000)
    found = probability_metrics(probability, labels, labels, num_bins=10)
    assert found["auroc"] == pytest.approx(0.5, abs=0.02)
    assert found["auprc"] == pytest.approx(0.5, abs=0.02)


def test_a_sure_and_wrong_row_costs_its_full_price() -> None:
    found = probability_metrics([[1.0, 0.0], [1.0, 0.0]], [0, 1], [0, 0], num_bins=10)
    assert found["nll"] == pytest.approx(708.396 / 2, abs=1e-2)
    tiny = probability_metrics([[1.0, 1e-200], [1.0, 0.0]], [1, 0], [0, 0], num_bins=10)
    assert tiny["nll"] == pytest.approx(200 * math.log(10) / 2)


def test_bins_hold_their_lower_edge_and_the_last_one_both() -> None:
    bins = calibration_bins([0.0, 0.5, 0.5, 1.0], [False, True, False, True], num_bins=2)
    assert bins.edges.tolist() == [0, 0.5, 1]
    assert bins.num_rows_B.tolist() == [1, 3]
    np.testing.assert_allclose(bins.mean_probability_B, [0, 2 / 3])
    np.testing.assert_allclose(bins.frequency_B, [0, 2 / 3])


def test_an_empty_bin_has_no_mean() -> None:
    bins = calibration_bins([0.9], [True], num_bins=3)
    assert bins.num_rows_B.tolist() == [0, 0, 1]
    assert np.isnan(bins.mean_probability_B[:2]).all()
    assert bins.frequency_B[2] == 1


@pytest.mark.parametrize(
    ("probability", "labels", "error", "message"),
    [
        (two([0.2, 0.4]), [1, 1], DataError, "all 2 labelled rows have label number 1"),
        (np.zeros((0, 2)), [], DataError, "no labelled rows"),
        (two([0.2, 0.4]), [0, 2], DataError, "expected 0 to 1"),
        (two([0.2, 0.4]), [0, -1], DataError, "labels from -1"),
        (two([0.2, math.nan]), [0, 1], NumericsError, "NaN"),
        (two([0.2, 1.4]), [0, 1], NumericsError, "outside 0 to 1"),
        ([[0.5, 0.5], [0.5, 0.4]], [0, 1], NumericsError, "does not sum to 1"),
    ],
)
def test_undefined_metrics_are_errors(
    probability: np.ndarray, labels: list[int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        probability_metrics(probability, labels, np.zeros(len(labels)), num_bins=10)
