"""The straight line between the log-odds that were predicted and those that are true.

Shape legend: R weightings of the rows, D distinct probabilities.

logit P(event) = intercept + slope * logit p. Slope 1 and intercept 0 are a calibrated model; a slope below 1 says that
probabilities are too extreme, an intercept below 0 that they are too high.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.simplex import TINY
from clsgen_dist.evaluate.tallies import Tally

FloatArray = npt.NDArray[np.float64]

#: Log-odds beyond these count as these, since those of 0 and 1 are infinite: a probability of 1e-12, in nats.
MAX_LOG_ODDS = 27.631

#: Newton steps, of which a fit that exists takes about seven.
MAX_STEPS = 200

#: Numbers that are worked on at a time: a dozen such arrays fit into a processor's cache.
PIECE_SIZE = 16_384

#: Length of a Newton step, in nats, after which the next one would be lost in rounding.
STEP_TOLERANCE = 1e-9


def calibration_line(tallies: Sequence[Tally]) -> tuple[FloatArray, FloatArray]:
    """Slope and intercept of a logistic regression of the event on the log-odds, by maximum likelihood.

    Args:
        tallies: rows of one or more events, pooled; the same R weightings of each.

    Returns:
        slope_R and intercept_R (nats); both NaN where no finite line is the best: the rows of the event and the others
        do not overlap in their probabilities, or all probabilities are equal.

    Source: Cox 1958, "Two further applications of a model for binary regression", Biometrika 45.
    """
    log_odds = [_log_odds(tally.value_D) for tally in tallies]
    exists_R = _overlap(tallies, log_odds)
    slope_R, intercept_R = np.full(len(exists_R), np.nan), np.full(len(exists_R), np.nan)
    if exists_R.any():
        kept = tallies if exists_R.all() else [_weightings(tally, exists_R) for tally in tallies]
        # Log-odds that lie far from 0 and close together would leave nothing of the determinant but rounding.
        total = sum(float(tally.num_rows_RD.sum()) for tally in kept)
        centre = sum(float(t.num_rows_RD.sum(axis=0) @ x_D) for t, x_D in zip(kept, log_odds, strict=True)) / total
        centred = [x_D - centre for x_D in log_odds]
        start_R = _log_odds(_share(kept))
        if len(start_R) > 1:  # all weightings lie near the mean of them
            pooled = [_pooled(tally) for tally in kept]
            near = _fit(pooled, centred, _log_odds(_share(pooled)), np.zeros(1))
            near_intercept_R, near_slope_R = (np.full(len(start_R), value[0]) for value in near)
            found = _fit(kept, centred, near_intercept_R, near_slope_R)
        else:
            found = _fit(kept, centred, start_R, np.zeros(1))
        slope_R[exists_R] = found[1]
        intercept_R[exists_R] = found[0] - found[1] * centre
    return slope_R, intercept_R


def calibration_in_the_large(tally: Tally) -> FloatArray:
    """The intercept where the slope is held at 1: by how many nats probabilities are too low (or, below 0, too high).

    Args:
        tally: rows of one event; each weighting holds rows where it happened and others.

    Returns:
        intercept_R, the root of mean sigmoid(intercept + logit p) = frequency of the event.
    """
    x_D = _log_odds(tally.value_D)
    base_R = _log_odds(_share([tally]))
    # No row's log-odds are below the least or above the greatest, so the root lies between these two.
    low_R, high_R = base_R - x_D[-1], base_R - x_D[0]
    intercept_R = np.clip(np.zeros(len(base_R)), low_R, high_R)
    for _ in range(MAX_STEPS):
        _, gradient_R2, curvature_R3 = _moments([tally], [x_D], intercept_R, np.ones(len(base_R)))
        excess_R = gradient_R2[:, 0]
        low_R, high_R = np.where(excess_R <= 0, intercept_R, low_R), np.where(excess_R >= 0, intercept_R, high_R)
        newton_R = intercept_R - excess_R / np.maximum(curvature_R3[:, 0], TINY)
        # Where the curve is flat, Newton's step leads out of what is left, and halving that does not.
        next_R = np.where((newton_R >= low_R) & (newton_R <= high_R), newton_R, (low_R + high_R) / 2)
        moved_R = np.abs(next_R - intercept_R)
        intercept_R = next_R
        if (moved_R <= STEP_TOLERANCE).all():
            break
    return intercept_R


def _log_odds(probability_D: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        log_odds_D = np.log(probability_D) - np.log1p(-probability_D)
    return np.asarray(np.clip(log_odds_D, -MAX_LOG_ODDS, MAX_LOG_ODDS))


def _share(tallies: Sequence[Tally]) -> FloatArray:
    positive_R = sum((tally.num_positive_RD.sum(axis=1) for tally in tallies), np.zeros(1))
    return np.asarray(positive_R / sum((tally.num_rows_RD.sum(axis=1) for tally in tallies), np.zeros(1)))


def _weightings(tally: Tally, kept_R: npt.NDArray[np.bool_]) -> Tally:
    return Tally(tally.value_D, tally.num_rows_RD[kept_R], tally.num_positive_RD[kept_R])


def _pooled(tally: Tally) -> Tally:
    return Tally(
        tally.value_D, tally.num_rows_RD.sum(axis=0, keepdims=True), tally.num_positive_RD.sum(axis=0, keepdims=True)
    )


def _overlap(tallies: Sequence[Tally], log_odds: Sequence[FloatArray]) -> npt.NDArray[np.bool_]:
    """Whether the log-odds of the event's rows and of the others overlap, without which the likelihood has no top."""
    each = [
        (*_ends(t.num_positive_RD > 0, x_D), *_ends(t.num_rows_RD > t.num_positive_RD, x_D))
        for t, x_D in zip(tallies, log_odds, strict=True)
    ]
    positive_low, positive_high, other_low, other_high = zip(*each, strict=True)
    return np.asarray(
        (np.max(other_high, axis=0) > np.min(positive_low, axis=0))
        & (np.max(positive_high, axis=0) > np.min(other_low, axis=0))
    )


def _ends(present_RD: npt.NDArray[np.bool_], x_D: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest value that is present, of ascending ones."""
    any_R = present_RD.any(axis=1)
    low_R, high_R = x_D[present_RD.argmax(axis=1)], x_D[len(x_D) - 1 - present_RD[:, ::-1].argmax(axis=1)]
    return np.where(any_R, low_R, np.inf), np.where(any_R, high_R, -np.inf)


def _fit(
    tallies: Sequence[Tally], log_odds: Sequence[FloatArray], intercept_R: FloatArray, slope_R: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Intercept and slope by Newton's method, halving a step that does not lower the loss; NaN where it stalls.

    The loss is convex, and `_overlap` has seen to it that it has a minimum.
    """
    loss_R, step_R2 = _newton(tallies, log_odds, intercept_R, slope_R)
    length_R = np.ones(len(intercept_R))
    done_R = np.zeros(len(intercept_R), dtype=np.bool_)
    for _ in range(MAX_STEPS):
        tried_intercept_R, tried_slope_R = intercept_R - length_R * step_R2[:, 0], slope_R - length_R * step_R2[:, 1]
        tried_loss_R, tried_step_R2 = _newton(tallies, log_odds, tried_intercept_R, tried_slope_R)
        # Near the minimum the loss no longer falls, but wavers by its rounding.
        better_R = tried_loss_R <= loss_R + 1e-12 * np.abs(loss_R)
        size_R = 1 + np.abs(slope_R) + np.abs(intercept_R)
        done_R |= better_R & (np.abs(step_R2).max(axis=1) <= STEP_TOLERANCE * size_R)
        intercept_R = np.where(better_R, tried_intercept_R, intercept_R)
        slope_R = np.where(better_R, tried_slope_R, slope_R)
        loss_R = np.where(better_R, tried_loss_R, loss_R)
        step_R2 = np.where(better_R[:, None], tried_step_R2, step_R2)
        length_R = np.where(better_R, 1.0, length_R / 2)
        if done_R.all():
            break
    return np.where(done_R, intercept_R, np.nan), np.where(done_R, slope_R, np.nan)


def _newton(
    tallies: Sequence[Tally], log_odds: Sequence[FloatArray], intercept_R: FloatArray, slope_R: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The loss, and the Newton step in (intercept, slope)."""
    loss_R, gradient_R2, curvature_R3 = _moments(tallies, log_odds, intercept_R, slope_R)
    one_R, mixed_R, square_R = curvature_R3.T
    determinant_R = np.maximum(one_R * square_R - mixed_R**2, TINY)
    intercept_step_R = (square_R * gradient_R2[:, 0] - mixed_R * gradient_R2[:, 1]) / determinant_R
    slope_step_R = (one_R * gradient_R2[:, 1] - mixed_R * gradient_R2[:, 0]) / determinant_R
    return loss_R, np.stack([intercept_step_R, slope_step_R], axis=1)


def _moments(
    tallies: Sequence[Tally], log_odds: Sequence[FloatArray], intercept_R: FloatArray, slope_R: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Negative log-likelihood; its gradient; and its curvature in intercept, in both, and in slope."""
    loss_R, gradient_R2, curvature_R3 = (np.zeros((len(intercept_R), *shape)) for shape in ((), (2,), (3,)))
    for num_rows_RD, num_positive_RD, x_D in _pieces(tallies, log_odds):
        logit_RD = slope_R[:, None] * x_D + intercept_R[:, None]
        # exp(-|logit|) neither overflows nor loses what is small.
        tail_RD = np.exp(-np.abs(logit_RD))
        larger_RD = 1 / (1 + tail_RD)
        smaller_RD = tail_RD * larger_RD
        loss_RD = num_rows_RD * (np.maximum(logit_RD, 0) + np.log1p(tail_RD)) - num_positive_RD * logit_RD
        excess_RD = num_rows_RD * np.where(logit_RD >= 0, larger_RD, smaller_RD) - num_positive_RD
        variance_RD = num_rows_RD * larger_RD * smaller_RD
        loss_R += loss_RD.sum(axis=1)
        gradient_R2 += np.stack([excess_RD.sum(axis=1), _dot(excess_RD, x_D)], axis=1)
        curvature_R3 += np.stack([variance_RD.sum(axis=1), _dot(variance_RD, x_D), _dot(variance_RD, x_D**2)], axis=1)
    return loss_R, gradient_R2, curvature_R3


def _dot(weight_RD: FloatArray, x_D: FloatArray) -> FloatArray:
    # Not the operator: it wakes all threads for each small piece, which took ten times as long on a busy machine.
    return np.asarray(np.einsum("rd,d->r", weight_RD, x_D))


def _pieces(
    tallies: Sequence[Tally], log_odds: Sequence[FloatArray]
) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Rows, rows of the event and log-odds, a few probabilities at a time."""
    for tally, x_D in zip(tallies, log_odds, strict=True):
        width = max(1, PIECE_SIZE // len(tally.num_rows_RD))
        for start in range(0, len(x_D), width):
            piece = slice(start, start + width)
            yield tally.num_rows_RD[:, piece], tally.num_positive_RD[:, piece], x_D[piece]
