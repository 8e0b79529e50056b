"""How sure the metrics are: 95 % percentile intervals from resampled groups.

Shape legend: N rows, K labels, G groups, R resamples, D distinct probabilities, B bins.

A resample is a number of times for each row, so that every metric becomes a weighted sum and all resamples are
computed at once; nothing is sorted twice. Rows of one group (a patient, a trial) come and go together: resampling rows
as if they were independent makes intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import DataError
from clsgen_dist.evaluate.metrics import bin_numbers, checked, negative_log_likelihood

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Numbers of one block of resamples: 16 MB a matrix, however many rows there are.
BLOCK_SIZE = 2_000_000

#: Draws, as a multiple of the resamples wanted, after which rows of one label are taken for the rule.
MAX_DRAW_FACTOR = 50


def bootstrap_intervals(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    *,
    num_bootstrap: int,
    num_bins: int,
    seed: int,
) -> dict[str, list[float] | int]:
    """95 % percentile intervals of AUROC, F1, NLL and ECE, as `probability_metrics` defines them.

    The same seed draws the same resamples, so intervals before and after calibration are of the same resamples. The
    interval of the calibration error leans upwards, as resampling adds noise to every bin and noise never lowers it.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.
        predicted_N: number of the label decided on.
        groups_N: number of each row's group; None makes each row a group of its own.
        num_bootstrap: resamples.
        num_bins: bins of equal width of the calibration error.
        seed: seed of the resamples.

    Returns:
        auroc_ci, f1_ci, nll_ci, ece_ci: [low, high]. num_redrawn: resamples that held rows of one label only, where
        ranking is undefined, and were drawn again. With more than two labels, a label that a resample lacks is left
        out of its means.

    Raises:
        DataError: as `probability_metrics`; or fewer than two groups; or resamples hardly ever hold two labels.
        NumericsError: as `probability_metrics`.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    predicted_N = np.asarray(predicted_N, dtype=np.int64)
    given_N = np.arange(len(labels_N)) if groups_N is None else np.asarray(groups_N)
    group_N = np.unique(given_N, return_inverse=True)[1].astype(np.int64)
    if group_N.max() < 1:
        raise DataError(
            f"evaluation: all {len(labels_N)} labelled rows are of one group, so nothing can be resampled; expected at "
            "least two groups; set data.group_column to null where rows are independent"
        )
    samples: dict[str, list[FloatArray]] = {"auroc_ci": [], "f1_ci": [], "nll_ci": [], "ece_ci": []}
    num_redrawn = 0
    for weight_RN, num_dropped in _resamples(labels_N, group_N, num_bootstrap, seed):
        num_redrawn += num_dropped
        samples["auroc_ci"].append(_auroc(weight_RN, probabilities_NK, labels_N))
        samples["f1_ci"].append(_f1(weight_RN, predicted_N, labels_N, probabilities_NK.shape[1]))
        samples["nll_ci"].append(
            weight_RN @ negative_log_likelihood(probabilities_NK, labels_N) / weight_RN.sum(axis=1)
        )
        samples["ece_ci"].append(_ece(weight_RN, probabilities_NK, labels_N, num_bins))
    intervals: dict[str, list[float] | int] = {}
    for name, parts in samples.items():
        low, high = np.percentile(np.concatenate(parts), [2.5, 97.5])
        intervals[name] = [float(low), float(high)]
    return intervals | {"num_redrawn": num_redrawn}


def _resamples(
    labels_N: IntArray, group_N: IntArray, num_bootstrap: int, seed: int
) -> Iterator[tuple[FloatArray, int]]:
    """Blocks of valid resamples (how often each row was drawn) and how many invalid ones were dropped on the way."""
    generator = np.random.default_rng(seed)
    num_groups = int(group_N.max()) + 1
    block = max(1, BLOCK_SIZE // len(labels_N))
    num_labels = int(labels_N.max()) + 1
    truth_NK = np.eye(num_labels)[labels_N]
    num_valid = num_drawn = 0
    while num_valid < num_bootstrap:
        if num_drawn >= MAX_DRAW_FACTOR * num_bootstrap:
            raise DataError(
                f"evaluation: of {num_drawn} resamples of {num_groups} groups only {num_valid} hold two labels, "
                f"expected {num_bootstrap}; the split needs more groups with each label"
            )
        num_now = min(block, num_bootstrap - num_valid)
        drawn_RG = generator.integers(0, num_groups, size=(num_now, num_groups))
        cell_RG = drawn_RG + num_groups * np.arange(num_now)[:, None]
        times_RG = np.bincount(cell_RG.ravel(), minlength=num_now * num_groups).reshape(num_now, num_groups)
        weight_RN = times_RG[:, group_N].astype(np.float64)
        valid_R = ((weight_RN @ truth_NK) > 0).sum(axis=1) >= 2
        num_drawn += num_now
        num_valid += int(valid_R.sum())
        yield weight_RN[valid_R], int((~valid_R).sum())


def _auroc(weight_RN: FloatArray, probabilities_NK: FloatArray, labels_N: IntArray) -> FloatArray:
    """AUROC of each resample: pairs ranked rightly, ties half, over all pairs."""
    if probabilities_NK.shape[1] == 2:
        return _auroc_of_one(weight_RN, probabilities_NK[:, 1], labels_N == 1)
    # A label that a resample lacks is NaN there, and left out of the mean.
    each = [_auroc_of_one(weight_RN, probabilities_NK[:, k], labels_N == k) for k in np.unique(labels_N)]
    return np.asarray(np.nanmean(each, axis=0))


def _auroc_of_one(weight_RN: FloatArray, score_N: FloatArray, positive_N: npt.NDArray[np.bool_]) -> FloatArray:
    order_N = np.argsort(score_N, kind="stable")
    starts_D = np.unique(score_N[order_N], return_index=True)[1]
    sorted_RN, sorted_positive_N = weight_RN[:, order_N], positive_N[order_N]
    positive_RD = np.add.reduceat(sorted_RN * sorted_positive_N, starts_D, axis=1)
    negative_RD = np.add.reduceat(sorted_RN * ~sorted_positive_N, starts_D, axis=1)
    below_RD = np.cumsum(negative_RD, axis=1) - 0.5 * negative_RD
    pairs_R = positive_RD.sum(axis=1) * negative_RD.sum(axis=1)
    return np.asarray((positive_RD * below_RD).sum(axis=1) / np.where(pairs_R > 0, pairs_R, np.nan))


def _f1(weight_RN: FloatArray, predicted_N: IntArray, labels_N: IntArray, num_labels: int) -> FloatArray:
    """F1 of each resample: of the last label where K = 2, else the mean over the labels that it holds."""
    each = []
    for label in (1,) if num_labels == 2 else np.unique(labels_N):
        truth_R, said_R = weight_RN @ (labels_N == label), weight_RN @ (predicted_N == label)
        right_R = weight_RN @ ((labels_N == label) & (predicted_N == label))
        f1_R = 2 * right_R / np.maximum(truth_R + said_R, 1)
        each.append(f1_R if num_labels == 2 else np.where(truth_R > 0, f1_R, np.nan))
    return np.asarray(np.nanmean(each, axis=0))


def _ece(weight_RN: FloatArray, probabilities_NK: FloatArray, labels_N: IntArray, num_bins: int) -> FloatArray:
    """Calibration error of each resample, in bins of equal width."""
    num_labels = probabilities_NK.shape[1]
    each = []
    for label in (1,) if num_labels == 2 else range(num_labels):
        probability_N = probabilities_NK[:, label]
        excess_NB = np.zeros((len(labels_N), num_bins))
        excess_NB[np.arange(len(labels_N)), bin_numbers(probability_N, num_bins)] = probability_N - (labels_N == label)
        each.append(np.abs(weight_RN @ excess_NB).sum(axis=1) / weight_RN.sum(axis=1))
    return np.asarray(np.mean(each, axis=0))
