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

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.errors import ConfigError, DataError, NumericsError
from clsgen_dist.records import UNLABELLED

FloatArray = npt.NDArray[np.float64]

#: Rows of each label that are imagined beside those counted, so that no share is 0: Jeffreys' prior.
SMOOTHING = 0.5


def shift_prior(p_NK: npt.ArrayLike, from_prior_K: Sequence[float], to_prior_K: Sequence[float]) -> FloatArray:
    """Probabilities for other shares of labels.

    Args:
        p_NK: probabilities that are right where labels have the shares `from_prior_K`; rows sum to 1.
        from_prior_K: share of each label there, above 0; sums to 1.
        to_prior_K: share of each label where the probabilities will be used, above 0; sums to 1.

    Returns:
        Rows proportional to p * to / from; each sums to 1 within 1e-12.

    Raises:
        ConfigError: a prior that is no distribution, has a share of 0, or is of another number of labels.
        NumericsError: a probability is NaN or outside 0 to 1, or a row does not sum to 1 within 1e-6.

    Source: Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori
        probabilities", equation 2.4.
    """
    p_NK = np.asarray(p_NK, dtype=np.float64)
    assert p_NK.ndim == 2, f"probabilities must be rows by labels, found shape {p_NK.shape}"
    from_K = _distribution(from_prior_K, p_NK.shape[1], "prior of the calibration rows")
    to_K = _distribution(to_prior_K, p_NK.shape[1], "prior")
    if not ((p_NK >= 0) & (p_NK <= 1)).all() or (np.abs(p_NK.sum(axis=1) - 1) > 1e-6).any():
        raise NumericsError(
            "prior shift: found a probability that is NaN or outside 0 to 1, or a row that does not sum to 1"
        )
    weights_NK = p_NK * (to_K / from_K)
    shifted_NK: FloatArray = weights_NK / weights_NK.sum(axis=1, keepdims=True)
    return shifted_NK


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
    """
    given_K = np.asarray(prior_K, dtype=np.float64)
    to_K = _distribution(prior_K, given_K.size, "prior")
    _check_labels_of(calibrator, len(to_K))
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


def _check_labels_of(calibrator: Calibrator, num_labels: int) -> None:
    """Vector scaling knows its number of labels, and Platt, beta and isotonic are of two; the rest suit any."""
    if calibrator.method == "vector":
        expected = len(calibrator.parameters["bias"])
    elif calibrator.method in ("platt", "beta", "isotonic"):
        expected = 2
    else:
        return
    if num_labels != expected:
        raise ConfigError(
            f"prior: found {num_labels} shares, expected {expected}: the calibrator is of {expected} labels; give one "
            "share for each of task.labels"
        )


def _distribution(prior_K: Sequence[float], num_labels: int, name: str) -> FloatArray:
    given_K = np.asarray(prior_K, dtype=np.float64)
    if given_K.shape != (num_labels,) or num_labels < 2:
        raise ConfigError(
            f"{name}: found {given_K.size} shares, expected {max(num_labels, 2)}, one for each of task.labels"
        )
    if not np.isfinite(given_K).all() or (given_K <= 0).any():
        raise ConfigError(
            f"{name}: found {given_K.tolist()}, expected shares above 0; a label that cannot occur does not belong "
            "into task.labels"
        )
    if abs(given_K.sum() - 1) > 1e-6:
        raise ConfigError(f"{name}: the shares sum to {given_K.sum():.6g}, expected 1")
    distribution_K: FloatArray = given_K / given_K.sum()
    return distribution_K
