"""More about calibration: other bins, the Brier score in parts, slope and intercept, and what noise alone would show.

Shape legend: N rows, K labels, R weightings of the rows.

None of these numbers may choose a model or a calibrator: errors in bins are biased and noisy. That is what the log
score is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import DataError
from clsgen_dist.evaluate.calibration_line import calibration_in_the_large, calibration_line
from clsgen_dist.evaluate.metrics import bin_numbers, check_probabilities, checked, judged, top_label
from clsgen_dist.evaluate.tallies import (
    Tally,
    decompose_mean_square,
    equal_mass_error,
    expected_error,
    largest_error,
    sort_rows,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Rows that labels are drawn for at a time: they fit into a processor's cache.
PIECE_SIZE = 10_000


def calibration_metrics(
    probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike, *, num_bins: int
) -> dict[str, float | None]:
    """Nine numbers on labelled rows, beside those of `metrics.probability_metrics`.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.
        num_bins: bins of the calibration errors.

    Returns:
        ece_equal_mass: like `ece` (the last label where K = 2, else the mean over all K), in bins of equal mass.
            Rows of equal probability stay in one bin.
        ece_classwise: mean over all K labels, each against the rest, in bins of equal width. With more than two
            labels that is `ece`.
        mce: the largest |mean probability - frequency| of a bin of equal width with rows: of the last label where
            K = 2, else of the largest probability against whether its label is the true one. One bin of few rows
            decides it.
        brier_reliability, brier_resolution, brier_uncertainty: brier = reliability - resolution + uncertainty, against
            the isotonic recalibration of the same rows: of the last label where K = 2, else summed over labels, as
            `brier` is.
        calibration_slope, calibration_intercept: of a logistic regression on the log-odds of the last label, intercept
            in nats; with more than two labels of all labels pooled, each against the rest. Probabilities closer than
            1e-12 to 0 or 1 count as 1e-12 away. Both None where the probabilities separate the labels without an
            error, or are all equal: no finite line is the best then.
        calibration_in_the_large: the intercept, in nats, where the slope is held at 1. None with more than two labels:
            pooled, it would be 0 for any model, as each row sums to 1 and holds one label.

    Raises:
        DataError: no rows, or rows of one label only.
        NumericsError: a probability is NaN or outside 0 to 1, or a row does not sum to 1.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    once_RN = np.ones((1, len(labels_N)))
    tallies = [
        sort_rows(probabilities_NK[:, k], labels_N == k).tally(once_RN) for k in range(probabilities_NK.shape[1])
    ]
    top = sort_rows(*top_label(probabilities_NK, labels_N)).tally(once_RN)
    numbers = {name: float(value_R[0]) for name, value_R in calibration_numbers(tallies, top, num_bins).items()}
    return {name: None if math.isnan(value) else value for name, value in numbers.items()}


def calibration_numbers(tallies: Sequence[Tally], top: Tally, num_bins: int) -> dict[str, FloatArray]:
    """The numbers of `calibration_metrics`, for each weighting of the rows.

    Args:
        tallies: of all K labels.
        top: of the largest probability.
        num_bins: bins of the calibration errors.

    Returns:
        The same names, R of each; slope and intercept are NaN where there is no finite line, calibration_in_the_large
        with more than two labels.
    """
    looked_at = [tallies[label] for label in judged(len(tallies))]
    parts = np.sum([decompose_mean_square(tally) for tally in looked_at], axis=0)
    slope_R, intercept_R = calibration_line(looked_at)
    large_R = calibration_in_the_large(looked_at[0]) if len(tallies) == 2 else np.full(len(slope_R), np.nan)
    return {
        "ece_equal_mass": np.mean([equal_mass_error(tally, num_bins) for tally in looked_at], axis=0),
        "ece_classwise": np.mean([expected_error(tally, num_bins) for tally in tallies], axis=0),
        "mce": largest_error(looked_at[0] if len(tallies) == 2 else top, num_bins),
        "brier_reliability": parts[0],
        "brier_resolution": parts[1],
        "brier_uncertainty": parts[2],
        "calibration_slope": slope_R,
        "calibration_intercept": intercept_R,
        "calibration_in_the_large": large_R,
    }


def null_ece(
    probabilities_NK: npt.ArrayLike, *, num_bins: int, num_draws: int = 200, seed: int
) -> dict[str, float | list[float]]:
    """The calibration error that a perfectly calibrated model with these probabilities would show.

    Labels are drawn from the probabilities themselves, so that whatever error is found is noise of this many rows.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        num_bins: bins of equal width, as of the `ece` that it is held against.
        num_draws: draws of a label for every row.
        seed: seed of the draws.

    Returns:
        ece_null: mean over the draws of `ece` as `probability_metrics` defines it. ece_null_ci: its 2.5 % and 97.5 %
        percentiles: an `ece` above the upper one is more than noise.

    Raises:
        DataError: no rows.
        NumericsError: a probability is NaN or outside 0 to 1, or a row does not sum to 1.
    """
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    assert probabilities_NK.ndim == 2
    num_rows, num_labels = probabilities_NK.shape
    if not num_rows:
        raise DataError("evaluation: found no rows, expected at least one; see data.test")
    check_probabilities(probabilities_NK)
    generator = np.random.default_rng(seed)
    num_cells = num_labels * num_bins
    excess = np.zeros((num_draws, num_cells))
    for start in range(0, num_rows, PIECE_SIZE):
        own_NK = probabilities_NK[start : start + PIECE_SIZE]
        cell_KN = [bin_numbers(own_NK[:, k], num_bins) + k * num_bins for k in range(num_labels)]
        excess += sum(np.bincount(cell_KN[k], own_NK[:, k], minlength=num_cells) for k in range(num_labels))
        # Divided by the row's own sum, so that the last label is drawn no more often than its probability says.
        upto_KN = np.ascontiguousarray((np.cumsum(own_NK, axis=1) / own_NK.sum(axis=1, keepdims=True)).T[:-1])
        cells, row_N = np.concatenate(cell_KN), np.arange(len(own_NK))
        for draw in range(num_draws):
            label_N = (generator.random(len(own_NK)) >= upto_KN).sum(axis=0)
            excess[draw] -= np.bincount(cells[label_N * len(own_NK) + row_N], minlength=num_cells)
    counted = judged(num_labels)
    errors = np.abs(excess[:, counted[0] * num_bins :]).sum(axis=1) / num_rows / len(counted)
    low, high = np.percentile(errors, [2.5, 97.5])
    return {"ece_null": float(errors.mean()), "ece_null_ci": [float(low), float(high)]}
