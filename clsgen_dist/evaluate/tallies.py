"""Rows counted by their probability: what ranking and calibration errors are measured on.

Shape legend: N rows, D distinct probabilities in ascending order, R weightings of the rows, B bins.

Rows of equal probability cannot be told apart, so they are counted together: no order among ties enters any number,
and one sort serves them all. A weighting says how often each row counts: once for the data as they are, as often as it
was drawn for a resample. Every number is of all weightings at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """Rows of each distinct probability.

    Attributes:
        value_D: probabilities, 0 to 1, ascending, each once.
        num_rows_RD: rows of that probability, by weight.
        num_positive_RD: those among them where the event happened.
    """

    value_D: FloatArray
    num_rows_RD: FloatArray
    num_positive_RD: FloatArray


@dataclass(frozen=True)
class SortedRows:
    """Rows in the order of their probability.

    Attributes:
        value_D: probabilities, ascending, each once.
        order_N: numbers of the rows in that order.
        start_D: where in that order the rows of each probability start.
        positive_N: whether the event happened, in that order.
    """

    value_D: FloatArray
    order_N: IntArray
    start_D: IntArray
    positive_N: npt.NDArray[np.bool_]

    def tally(self, weight_RN: FloatArray) -> Tally:
        """Count the rows by `weight_RN`, whole numbers from 0 in the order in which the rows were given."""
        sorted_RN = np.take(weight_RN, self.order_N, axis=1)
        num_rows_RD = np.add.reduceat(sorted_RN, self.start_D, axis=1)
        sorted_RN *= self.positive_N
        return Tally(self.value_D, num_rows_RD, np.add.reduceat(sorted_RN, self.start_D, axis=1))


def sort_rows(probability_N: npt.ArrayLike, positive_N: npt.ArrayLike) -> SortedRows:
    """Sort one or more rows by the probability of an event; NaN is not looked for."""
    # A column of a matrix lies scattered; sorting it in place of a copy would touch all of the matrix at every step.
    probability_N = np.ascontiguousarray(probability_N, dtype=np.float64)
    order_N = np.argsort(probability_N)
    sorted_N = probability_N[order_N]
    start_D = np.flatnonzero(np.concatenate(([True], sorted_N[1:] != sorted_N[:-1])))
    return SortedRows(sorted_N[start_D], order_N, start_D, np.asarray(positive_N, dtype=np.bool_)[order_N])


def area_under_roc(tally: Tally) -> FloatArray:
    """Pairs of a positive and another row that are ranked rightly, ties half; NaN where there is no such pair."""
    positive_RD = tally.num_positive_RD
    negative_RD = tally.num_rows_RD - positive_RD
    below_RD = np.cumsum(negative_RD, axis=1) - 0.5 * negative_RD
    pairs_R = positive_RD.sum(axis=1) * negative_RD.sum(axis=1)
    return _ratio((positive_RD * below_RD).sum(axis=1), pairs_R)


def average_precision(tally: Tally) -> FloatArray:
    """Mean over positive rows of the precision among rows at least as probable; NaN where none is positive."""
    positive_RD = tally.num_positive_RD
    above_RD = _at_or_above(tally.num_rows_RD)
    # Above every row that was drawn there is nothing, and nothing to add.
    precision_RD = _at_or_above(positive_RD) / np.where(above_RD > 0, above_RD, 1)
    return _ratio((positive_RD * precision_RD).sum(axis=1), positive_RD.sum(axis=1))


def mean_square(tally: Tally) -> FloatArray:
    """Mean (p - y)^2: the Brier score of one event."""
    positive_RD = tally.num_positive_RD
    sum_R = (tally.num_rows_RD - positive_RD) @ tally.value_D**2 + positive_RD @ (1 - tally.value_D) ** 2
    return np.asarray(sum_R / tally.num_rows_RD.sum(axis=1))


def decompose_mean_square(tally: Tally) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Reliability (0 is best), resolution (more is better) and uncertainty: Brier = reliability - resolution + it.

    Against the isotonic recalibration of the same rows (CORP), so that no bins have to be chosen. Reliability is never
    negative, and leans upwards as every calibration error does; resolution is that of the best monotone map.

    Source: Dimitriadis, Gneiting and Jordan 2021 (arXiv 2008.03033), section 3.
    """
    num_rows_R, num_positive_R = tally.num_rows_RD.sum(axis=1), tally.num_positive_RD.sum(axis=1)
    recalibrated_R = np.zeros(len(num_rows_R))
    for r, (num_rows_D, num_positive_D) in enumerate(zip(tally.num_rows_RD, tally.num_positive_RD, strict=True)):
        drawn_D = num_rows_D > 0
        num_rows_D, num_positive_D = num_rows_D[drawn_D], num_positive_D[drawn_D]
        # Whole numbers in each block make its share exact, whatever order the blocks were merged in.
        start_B = isotonic_regression(num_positive_D / num_rows_D, weights=num_rows_D).blocks[:-1]
        rows_B, positive_B = np.add.reduceat(num_rows_D, start_B), np.add.reduceat(num_positive_D, start_B)
        recalibrated_R[r] = (positive_B * (1 - positive_B / rows_B)).sum() / num_rows_R[r]
    uncertainty_R = num_positive_R * (1 - num_positive_R / num_rows_R) / num_rows_R
    return mean_square(tally) - recalibrated_R, uncertainty_R - recalibrated_R, uncertainty_R


def expected_error(tally: Tally, num_bins: int) -> FloatArray:
    """Expected calibration error in bins of equal width; a bin holds its lower edge, the last one both."""
    excess_RB, _ = _bins(tally, _equal_width(tally, num_bins))
    return np.asarray(np.abs(excess_RB).sum(axis=1) / tally.num_rows_RD.sum(axis=1))


def largest_error(tally: Tally, num_bins: int) -> FloatArray:
    """Maximum calibration error: the largest |mean probability - frequency| of a bin of equal width with rows."""
    excess_RB, num_rows_RB = _bins(tally, _equal_width(tally, num_bins))
    return np.asarray((np.abs(excess_RB) / np.where(num_rows_RB > 0, num_rows_RB, 1)).max(axis=1))


def equal_mass_error(tally: Tally, num_bins: int) -> FloatArray:
    """Expected calibration error in bins of about equal mass.

    The inner edges are the quantiles 1 / B, ..., (B - 1) / B of the rows' probabilities, linear between two rows; a
    bin holds its lower edge. Ties stay together, so with few distinct probabilities there are fewer bins than asked
    for, and less equal ones.
    """
    excess_RB, _ = _bins(tally, _equal_mass(tally, num_bins))
    return np.asarray(np.abs(excess_RB).sum(axis=1) / tally.num_rows_RD.sum(axis=1))


def _equal_width(tally: Tally, num_bins: int) -> IntArray:
    """Where in D each bin starts, the same for all weightings."""
    start_B = np.searchsorted(tally.value_D, np.linspace(0.0, 1.0, num_bins + 1)[:-1])
    return np.tile(start_B, (len(tally.num_rows_RD), 1))


def _equal_mass(tally: Tally, num_bins: int) -> IntArray:
    """Where in D each bin starts, for each weighting."""
    upto_RD = np.cumsum(tally.num_rows_RD, axis=1)
    num_rows_R = upto_RD[:, -1]
    position_RB = (num_rows_R - 1)[:, None] * np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    lower_RB = np.floor(position_RB)
    upper_RB = np.minimum(lower_RB + 1, (num_rows_R - 1)[:, None])
    # One search for all weightings: each one's counts are lifted above those of the one before.
    lift_R1 = (np.arange(len(num_rows_R)) * (num_rows_R.max() + 1))[:, None]
    lifted = (upto_RD + lift_R1).ravel()
    first_R1 = (np.arange(len(num_rows_R)) * len(tally.value_D))[:, None]
    lower_value_RB, upper_value_RB = (
        tally.value_D[np.searchsorted(lifted, row_RB + lift_R1, side="right") - first_R1]
        for row_RB in (lower_RB, upper_RB)
    )
    edge_RB = lower_value_RB + (upper_value_RB - lower_value_RB) * (position_RB - lower_RB)
    # Rounding must not lift an edge above the row that it lies at.
    edge_RB = np.minimum(edge_RB, upper_value_RB)
    start_RB = np.searchsorted(tally.value_D, edge_RB)
    return np.concatenate([np.zeros((len(num_rows_R), 1), dtype=np.int64), start_RB], axis=1)


def _bins(tally: Tally, start_RB: IntArray) -> tuple[FloatArray, FloatArray]:
    """Sum of p - y, and rows, of each bin."""
    excess_RD = tally.num_rows_RD * tally.value_D - tally.num_positive_RD
    return _bin_sums(excess_RD, start_RB), _bin_sums(tally.num_rows_RD, start_RB)


def _bin_sums(value_RD: FloatArray, start_RB: IntArray) -> FloatArray:
    num_weightings, num_values = value_RD.shape
    end_RB = np.concatenate([start_RB[:, 1:], np.full((num_weightings, 1), num_values)], axis=1)
    first_R1 = (np.arange(num_weightings) * num_values)[:, None]
    # A bin may start past the last value: a zero stands there. One without values would be given its neighbour's.
    padded = np.append(value_RD.ravel(), 0.0)
    sum_RB = np.add.reduceat(padded, (start_RB + first_R1).ravel()).reshape(start_RB.shape)
    return np.where(start_RB < end_RB, sum_RB, 0.0)


def _at_or_above(count_RD: FloatArray) -> FloatArray:
    return np.asarray(np.cumsum(count_RD[:, ::-1], axis=1)[:, ::-1])


def _ratio(numerator_R: FloatArray, denominator_R: FloatArray) -> FloatArray:
    return np.asarray(numerator_R / np.where(denominator_R > 0, denominator_R, np.nan))
