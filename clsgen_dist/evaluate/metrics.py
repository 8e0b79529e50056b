"""How good probabilities are: ranking, decisions, calibration.

Shape legend: N rows, K labels, D distinct probabilities, R weightings of the rows, B bins.

The numbers of one look at the data; more about calibration is in `calibration_metrics.py`, intervals in `intervals.py`.
Every number needs rows of at least two labels. For more than two labels, one label against the rest is meaned over the
labels that occur among the rows. `row_numbers` and `tally_numbers` measure many weightings of the rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.simplex import TINY
from clsgen_dist.errors import DataError, NumericsError
from clsgen_dist.evaluate.tallies import (
    Tally,
    area_under_roc,
    average_precision,
    expected_error,
    mean_square,
    sort_rows,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def probability_metrics(
    probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike, predicted_N: npt.ArrayLike, *, num_bins: int
) -> dict[str, float]:
    """Eight numbers on labelled rows.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.
        predicted_N: number of the label decided on.
        num_bins: bins of equal width of the calibration errors.

    Returns:
        auroc, auprc: of the last label where K = 2; else the mean of one against the rest. auprc is the average
            precision, without interpolation.
        f1: of the last label where K = 2; else the mean over labels (macro). Uses `predicted_N`.
        accuracy: share of rows where `predicted_N` is right.
        nll: mean negative log-likelihood, nats a row; a probability of exactly 0 counts as 2.2e-308 (708.4 nats).
        brier: mean (p - y)^2 of the last label where K = 2; else the sum of squares over all labels, so up to 2.
        ece: calibration error of the last label's probability where K = 2; else the mean over all K labels.
        ece_top_label: calibration error of the largest probability, against whether its label is the true one
            (whatever `predicted_N` says).

    Raises:
        DataError: no rows, or rows of one label only, where ranking is undefined.
        NumericsError: a probability is NaN or outside 0 to 1, or a row does not sum to 1.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    predicted_N = np.asarray(predicted_N, dtype=np.int64)
    assert predicted_N.shape == labels_N.shape
    once_RN = np.ones((1, len(labels_N)))
    tallies = [
        sort_rows(probabilities_NK[:, k], labels_N == k).tally(once_RN) for k in judged(probabilities_NK.shape[1])
    ]
    numbers = tally_numbers(tallies, sort_rows(*top_label(probabilities_NK, labels_N)).tally(once_RN), num_bins)
    numbers |= row_numbers(once_RN, probabilities_NK, labels_N, predicted_N)
    order = ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label")
    return {name: float(numbers[name][0]) for name in order}


def tally_numbers(tallies: Sequence[Tally], top: Tally, num_bins: int) -> dict[str, FloatArray]:
    """Those of the eight numbers that stand on probabilities alone, for each weighting of the rows.

    Args:
        tallies: of each label in `judged`.
        top: of the largest probability.
        num_bins: bins of equal width.

    Returns:
        auroc, auprc, brier, ece, ece_top_label as in `probability_metrics`, R of each.
    """
    # A label without rows is NaN in the first two, and left out of their means.
    return {
        "auroc": np.nanmean([area_under_roc(tally) for tally in tallies], axis=0),
        "auprc": np.nanmean([average_precision(tally) for tally in tallies], axis=0),
        "brier": np.sum([mean_square(tally) for tally in tallies], axis=0),
        "ece": np.mean([expected_error(tally, num_bins) for tally in tallies], axis=0),
        "ece_top_label": expected_error(top, num_bins),
    }


def row_numbers(
    weight_RN: FloatArray, probabilities_NK: FloatArray, labels_N: IntArray, predicted_N: IntArray
) -> dict[str, FloatArray]:
    """f1, accuracy and nll as in `probability_metrics`, for each weighting of the rows: R of each."""
    num_labels, num_rows_R = probabilities_NK.shape[1], weight_RN.sum(axis=1)
    right_N = predicted_N == labels_N
    each = []
    for label in judged(num_labels):
        truth_R, said_R = weight_RN @ (labels_N == label), weight_RN @ (predicted_N == label)
        f1_R = 2 * (weight_RN @ (right_N & (labels_N == label))) / np.maximum(truth_R + said_R, 1)
        each.append(f1_R if num_labels == 2 else np.where(truth_R > 0, f1_R, np.nan))
    return {
        "f1": np.nanmean(each, axis=0),
        "accuracy": weight_RN @ right_N / num_rows_R,
        "nll": weight_RN @ negative_log_likelihood(probabilities_NK, labels_N) / num_rows_R,
    }


def auroc(probabilities_NK: FloatArray, labels_N: IntArray) -> float:
    """Area under the ROC curve, of rows with at least two labels.

    Of the last label where K = 2, else the mean over the labels that occur, each against the rest.
    """
    once_RN = np.ones((1, len(labels_N)))
    each = [
        area_under_roc(sort_rows(probabilities_NK[:, k], labels_N == k).tally(once_RN))
        for k in judged(probabilities_NK.shape[1])
    ]
    return float(np.nanmean(each))


def negative_log_likelihood(probabilities_NK: FloatArray, labels_N: IntArray) -> FloatArray:
    """Negative log of the true label's probability, nats, one a row; 0 counts as `TINY`, 708.4 nats."""
    own_N = probabilities_NK[np.arange(len(labels_N)), labels_N]
    return np.asarray(-np.log(np.maximum(own_N, TINY)), dtype=np.float64)


@dataclass(frozen=True)
class CalibrationBins:
    """Rows by their probability, in bins of equal width.

    Attributes:
        edges: num_bins + 1 edges from 0 to 1; a bin holds its lower edge, the last one both.
        num_rows_B: rows in each bin.
        mean_probability_B: mean probability of the bin's rows; NaN where there are none.
        frequency_B: share of the bin's rows that are positive; NaN where there are none.
    """

    edges: FloatArray
    num_rows_B: IntArray
    mean_probability_B: FloatArray
    frequency_B: FloatArray


def calibration_bins(probability_N: npt.ArrayLike, positive_N: npt.ArrayLike, *, num_bins: int) -> CalibrationBins:
    """The bins of a reliability diagram.

    Args:
        probability_N: probability of the event, 0 to 1.
        positive_N: whether it happened.
        num_bins: bins of equal width.
    """
    probability_N = np.asarray(probability_N, dtype=np.float64)
    positive_N = np.asarray(positive_N, dtype=np.float64)
    bin_N = bin_numbers(probability_N, num_bins)
    num_rows_B = np.bincount(bin_N, minlength=num_bins).astype(np.int64)
    divisor_B = np.where(num_rows_B > 0, num_rows_B, np.nan)
    return CalibrationBins(
        edges=np.linspace(0.0, 1.0, num_bins + 1),
        num_rows_B=num_rows_B,
        mean_probability_B=np.bincount(bin_N, weights=probability_N, minlength=num_bins) / divisor_B,
        frequency_B=np.bincount(bin_N, weights=positive_N, minlength=num_bins) / divisor_B,
    )


def bin_numbers(probability_N: FloatArray, num_bins: int) -> IntArray:
    """Number of the bin of equal width that each probability lies in."""
    inner_edges = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    return np.digitize(probability_N, inner_edges).astype(np.int64)


def calibration_error(probability_N: FloatArray, positive_N: npt.ArrayLike, num_bins: int) -> float:
    """Expected calibration error: |mean probability - frequency| of each bin, weighted by its rows.

    Biased upwards: 1,000 rows of a perfectly calibrated model show about 0.03 with 10 bins. Compare it with
    `calibration_metrics.null_ece`, and never choose a model by it.
    """
    bin_N = bin_numbers(probability_N, num_bins)
    excess_B = np.bincount(bin_N, weights=probability_N - np.asarray(positive_N, dtype=np.float64), minlength=num_bins)
    return float(np.abs(excess_B).sum() / len(probability_N))


def checked(probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    """Probabilities and labels of which metrics can be taken, as float64 and int64.

    Raises:
        DataError: no rows, a label out of range, or rows of one label only.
        NumericsError: a probability is NaN or outside 0 to 1, or a row does not sum to 1 within 1e-6.
    """
    probabilities_NK, labels_N = np.asarray(probabilities_NK, dtype=np.float64), np.asarray(labels_N, dtype=np.int64)
    assert probabilities_NK.ndim == 2
    assert labels_N.shape == probabilities_NK.shape[:1]
    if not len(labels_N):
        raise DataError("evaluation: found no labelled rows, expected rows of at least two labels; see data.test")
    if labels_N.min() < 0 or labels_N.max() >= probabilities_NK.shape[1]:
        raise DataError(
            f"evaluation: found labels from {labels_N.min()} to {labels_N.max()}, expected 0 to "
            f"{probabilities_NK.shape[1] - 1}; see task.labels"
        )
    if (labels_N == labels_N[0]).all():
        raise DataError(
            f"evaluation: all {len(labels_N)} labelled rows have label number {labels_N[0]}, so ranking metrics are "
            "undefined; give the split rows of at least two labels"
        )
    check_probabilities(probabilities_NK)
    return probabilities_NK, labels_N


def check_probabilities(probabilities_NK: FloatArray) -> None:
    """Refuse what are no probabilities of labels.

    Raises:
        NumericsError: a probability is NaN or outside 0 to 1, or a row does not sum to 1 within 1e-6.
    """
    in_range = (probabilities_NK >= 0) & (probabilities_NK <= 1)
    if not in_range.all() or np.abs(probabilities_NK.sum(axis=1) - 1).max() > 1e-6:
        raise NumericsError(
            "evaluation: found a probability that is NaN or outside 0 to 1, or a row that does not sum to 1"
        )


def judged(num_labels: int) -> range:
    """The labels that are looked at one by one: of two, the last one says it all."""
    return range(1, 2) if num_labels == 2 else range(num_labels)


def top_label(probabilities_NK: FloatArray, labels_N: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The largest probability of each row, and whether its label (the first of equals) is the true one."""
    return probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1) == labels_N
