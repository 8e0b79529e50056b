"""How sure the metrics are: 95 % percentile intervals from resampled groups.

Shape legend: N rows, K labels, R resamples.

All resamples of a block are measured at once, on rows that were sorted once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clsgen_dist.evaluate.calibration_metrics import calibration_numbers
from clsgen_dist.evaluate.metrics import checked, judged, row_numbers, tally_numbers, top_label
from clsgen_dist.evaluate.resampling import number_groups, resamples
from clsgen_dist.evaluate.tallies import sort_rows

FloatArray = npt.NDArray[np.float64]

#: Numbers of one block of resamples, for each label: what a processor's cache holds, so that more takes longer.
BLOCK_SIZE = 100_000


def bootstrap_intervals(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    *,
    num_bootstrap: int,
    num_bins: int,
    seed: int,
) -> dict[str, list[float] | int | None]:
    """95 % percentile intervals of all numbers of `probability_metrics` and `calibration_metrics`.

    The same seed draws the same resamples, so intervals before and after calibration are of the same resamples. The
    intervals of calibration errors and of the Brier score's reliability lean upwards, as resampling adds noise to every
    bin and noise never lowers them: one may lie above its own number.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.
        predicted_N: number of the label decided on.
        groups_N: number of each row's group; None makes each row a group of its own.
        num_bootstrap: resamples.
        num_bins: bins of the calibration errors.
        seed: seed of the resamples.

    Returns:
        NAME_ci: [low, high] for each NAME. calibration_slope_ci and calibration_intercept_ci are None where a resample
        has no finite line, since its labels are separated. num_redrawn: resamples that held rows of one label only,
        where ranking is undefined, and were drawn again. With more than two labels, a label that a resample lacks is
        left out of the means of auroc, auprc and f1.

    Raises:
        DataError: as `probability_metrics`; or fewer than two groups; or resamples hardly ever hold two labels.
        NumericsError: as `probability_metrics`.
    """
    numbers, num_redrawn = resample_numbers(
        probabilities_NK, labels_N, predicted_N, groups_N, num_bootstrap=num_bootstrap, num_bins=num_bins, seed=seed
    )
    intervals: dict[str, list[float] | int | None] = {f"{name}_ci": interval(of) for name, of in numbers.items()}
    return intervals | {"num_redrawn": num_redrawn}


def resample_numbers(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    *,
    num_bootstrap: int,
    num_bins: int,
    seed: int,
    with_calibration: bool = True,
) -> tuple[dict[str, FloatArray], int]:
    """The numbers themselves, R of each; and the resamples that were drawn again.

    Of the same labels and groups in the same order, the same seed draws the same resamples: the numbers of two models
    are then paired, and their differences are those of the models.

    Args: as `bootstrap_intervals`; with_calibration: whether those of `calibration_metrics` are among them.

    Raises:
        DataError, NumericsError: as `bootstrap_intervals`.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    predicted_N = np.asarray(predicted_N, dtype=np.int64)
    num_rows, num_labels = probabilities_NK.shape
    group_N = number_groups(groups_N, num_rows)
    sorted_by_label = [sort_rows(probabilities_NK[:, k], labels_N == k) for k in range(num_labels)]
    sorted_by_top = sort_rows(*top_label(probabilities_NK, labels_N))
    block = max(1, BLOCK_SIZE // num_rows)
    blocks: list[dict[str, FloatArray]] = []
    num_redrawn = 0
    for weight_RN, num_dropped in resamples(labels_N, group_N, num_bootstrap=num_bootstrap, block=block, seed=seed):
        num_redrawn += num_dropped
        if not len(weight_RN):
            continue
        tallies, top = [rows.tally(weight_RN) for rows in sorted_by_label], sorted_by_top.tally(weight_RN)
        blocks.append(
            tally_numbers([tallies[k] for k in judged(num_labels)], top, num_bins)
            | row_numbers(weight_RN, probabilities_NK, labels_N, predicted_N)
            | (calibration_numbers(tallies, top, num_bins) if with_calibration else {})
        )
    return {name: np.concatenate([numbers[name] for numbers in blocks]) for name in blocks[0]}, num_redrawn


def interval(value_R: FloatArray) -> list[float] | None:
    """Middle 95 % of resampled numbers; None where one is undefined."""
    if np.isnan(value_R).any():
        return None
    low, high = np.percentile(value_R, [2.5, 97.5])
    return [float(low), float(high)]
