"""Where the points of a reliability diagram lie if every probability is right: chance alone, by simulation.

Shape legend: N rows, M rows of a bin, S simulations, B bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clsgen_dist.evaluate.metrics import bin_numbers

FloatArray = npt.NDArray[np.float64]

#: Rows whose labels are drawn at a time; bounds memory.
PIECE_SIZE = 4096


def null_band(
    probability_N: npt.ArrayLike, *, num_bins: int, num_draws: int = 1000, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """The middle 95 % of the frequency in each bin, where labels are drawn from the probabilities themselves.

    It holds bin by bin: of twenty bins of a perfectly calibrated model, one lies outside.

    Args:
        probability_N: probability of the event, 0 to 1.
        num_bins: bins of equal width.
        num_draws: simulations.
        seed: seed of the draws.

    Returns:
        low_B, high_B: shares, 0 to 1; NaN where a bin holds no rows.

    Source: Broecker and Smith 2007, "Increasing the reliability of reliability diagrams", Weather and Forecasting 22.
    """
    probability_N = np.asarray(probability_N, dtype=np.float64)
    bin_N = bin_numbers(probability_N, num_bins)
    generator = np.random.default_rng(seed)
    low_B, high_B = np.full(num_bins, np.nan), np.full(num_bins, np.nan)
    for number in np.unique(bin_N):
        probability_M = probability_N[bin_N == number]
        happened_S = np.zeros(num_draws)
        for start in range(0, len(probability_M), PIECE_SIZE):
            some_M = probability_M[start : start + PIECE_SIZE]
            happened_S += (generator.random((num_draws, len(some_M))) < some_M).sum(axis=1)
        # Counts are whole: the band ends on one that was drawn, so that it holds at least 95 %.
        ends = np.quantile(happened_S, [0.025, 0.975], method="inverted_cdf")
        low_B[number], high_B[number] = ends / len(probability_M)
    return low_B, high_B
