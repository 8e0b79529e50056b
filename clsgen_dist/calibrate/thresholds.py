"""From probabilities to decisions.

Shape legend: N rows, K labels.

A threshold is chosen on the calibration rows, after calibration, and then left alone: chosen on the rows that are
reported, the best F1 is several points too good.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def best_f1_threshold(probability_N: npt.ArrayLike, positive_N: npt.ArrayLike) -> float:
    """The threshold with the largest F1 on these rows.

    It lies midway between two neighbouring distinct probabilities, so that no row decides it by itself; below the
    smallest one it lies midway to 0. Of thresholds with the same F1 the one nearest to 0.5 is taken, then the lower.

    Args:
        probability_N: calibrated probability of the positive label, 0 to 1.
        positive_N: whether the row has the positive label.

    Returns:
        Threshold, 0 to 1; a row is positive where its probability is at least that.

    Raises:
        DataError: no rows, a probability outside 0 to 1 (or NaN), or rows of one label only.
    """
    probability_N = np.asarray(probability_N, dtype=np.float64)
    positive_N = np.asarray(positive_N, dtype=bool)
    if probability_N.ndim != 1 or probability_N.shape != positive_N.shape or not len(probability_N):
        raise DataError(
            f"threshold: found shapes {probability_N.shape} and {positive_N.shape}, expected one probability and one "
            "label for each of at least two rows"
        )
    if not ((probability_N >= 0) & (probability_N <= 1)).all():
        raise DataError("threshold: found a probability that is NaN or outside 0 to 1")
    if positive_N.all() or not positive_N.any():
        raise DataError(
            f"threshold: all {len(positive_N)} calibration rows have the same label, expected both; give "
            "data.calibration rows of each"
        )
    # Cut j predicts positive from the j-th distinct probability upwards.
    distinct_J, where_N = np.unique(probability_N, return_inverse=True)
    predicted_J = np.cumsum(np.bincount(where_N)[::-1])[::-1]
    found_J = np.cumsum(np.bincount(where_N, weights=positive_N)[::-1])[::-1]
    f1_J = 2 * found_J / (predicted_J + positive_N.sum())
    below_J = np.concatenate([[0.0], distinct_J[:-1]])
    middle_J = (below_J + distinct_J) / 2
    # The midpoint of two neighbouring floats may round down onto the lower one, which must stay negative.
    threshold_J = np.where(middle_J > below_J, middle_J, distinct_J)
    best = threshold_J[f1_J == f1_J.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def decide(probabilities_NK: npt.ArrayLike, threshold: float | None) -> IntArray:
    """The label that is predicted.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        threshold: operating threshold of the last label where there are two. One number cannot choose among more
            labels: there, and where it is None, the label with the largest probability is taken, of equal ones the
            first.

    Returns:
        Number of the predicted label. With a threshold the last label wins a tie (p >= threshold).
    """
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    assert probabilities_NK.ndim == 2, f"expected rows by labels, found shape {probabilities_NK.shape}"
    if threshold is not None and probabilities_NK.shape[1] == 2:
        return np.asarray(probabilities_NK[:, 1] >= threshold, dtype=np.int64)
    return np.asarray(probabilities_NK.argmax(axis=1), dtype=np.int64)
