"""Prior shift: probabilities for a population in which labels have other shares than among the calibration rows.

Shape legend: N rows, K labels.

Calibration rows are often filtered or balanced, and then a calibrator is right for shares that nobody will meet. Where
only the shares differ, and rows of one label look the same in both populations, Bayes' rule mends it: the odds between
two labels are multiplied by how much the odds between their shares have changed. Where texts of one label look
different there, nothing but labelled rows from there helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate import families
from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.records import UNLABELLED

FloatArray = npt.NDArray[np.float64]

#: Rows of each label that are imagined beside those counted, so that no share is 0: Jeffreys' prior.
SMOOTHING = 0.5


def with_prior(calibrator: Calibrator, labels_N: npt.ArrayLike, prior_K: Sequence[float]) -> Calibrator:
    """The calibrator for a population with other shares of labels than the rows that it was fitted on.

    The shares of the calibration rows are (count + 1/2) / (N + K/2), so that a label which none of them has still has
    one. An earlier shift of the calibrator is replaced, not added to.

    Args:
        calibrator: fitted on rows with these labels, or found good enough as it is on them.
        labels_N: number of the label of each calibration row; -1 for rows without one, which are ignored.
        prior_K: share of each label where the model will be used, above 0, in the order of the labels; sums to 1.

    Returns:
        The calibrator with `log_prior_shift` = log(prior / share of the calibration rows).

    Raises:
        ConfigError: a prior that is no distribution, has a share of 0, or is of another number of labels than the
            calibrator.
        DataError: no labelled rows, or a label that is out of range.

    Source: Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori
        probabilities", equation 2.4.
    """
    to_K = _distribution(prior_K, families.num_labels(calibrator.method, calibrator.parameters))
    known_N = np.asarray(labels_N, dtype=np.int64)
    known_N = known_N[known_N != UNLABELLED]
    if not len(known_N):
        raise DataError("prior shift: found no labelled calibration rows, expected some; see data.calibration")
    if known_N.min() < 0 or known_N.max() >= len(to_K):
        raise DataError(
            f"prior shift: found labels from {known_N.min()} to {known_N.max()} among the calibration rows, expected 0 "
            f"to {len(to_K) - 1}: the prior has {len(to_K)} shares; give one for each of task.labels"
        )
    count_K = np.bincount(known_N, minlength=len(to_K)) + SMOOTHING
    shift_K = np.log(to_K) - np.log(count_K / count_K.sum())
    return replace(calibrator, log_prior_shift=tuple(float(shift) for shift in shift_K))


def _distribution(prior_K: Sequence[float], num_labels: int | None) -> FloatArray:
    """A prior as shares that sum to 1; `num_labels` is None where the calibrator is of any number of labels."""
    given_K = np.asarray(prior_K, dtype=np.float64)
    expected = max(2, given_K.size) if num_labels is None else num_labels
    if given_K.shape != (expected,):
        raise ConfigError(f"prior: found {given_K.size} shares, expected {expected}, one for each of task.labels")
    if not np.isfinite(given_K).all() or (given_K <= 0).any():
        raise ConfigError(
            f"prior: found {given_K.tolist()}, expected shares above 0; a label that cannot occur does not belong "
            "into task.labels"
        )
    if abs(given_K.sum() - 1) > 1e-6:
        raise ConfigError(f"prior: the shares sum to {given_K.sum():.6g}, expected 1")
    distribution_K: FloatArray = given_K / given_K.sum()
    return distribution_K
