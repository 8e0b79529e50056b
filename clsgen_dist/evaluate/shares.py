"""95 % intervals of shares and of other numbers that are sums over groups.

Shape legend: N rows, G groups, R resamples.

What is a sum over rows is summed over each group first, so that a resample costs G numbers and not N. The draws are
those of `resampling.resamples` with the same seed, but none is dropped: a share needs no two labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Numbers of one block of resamples: 16 MB a matrix, however many rows there are.
BLOCK_SIZE = 2_000_000

#: The share of resamples that lies outside an interval on each side.
TAIL = 0.025


def draw_groups(group_N: IntArray, *, num_bootstrap: int, seed: int) -> Iterator[FloatArray]:
    """Blocks of resamples: how often each group was drawn.

    As many groups are drawn as there are, with replacement. The same seed draws the same, whatever the block size; a
    block is small enough for a matrix of its resamples by all rows.

    Args:
        group_N: number of each row's group, 0 to G - 1.
        num_bootstrap: resamples.
        seed: seed of the draws.

    Yields:
        times_RG: float64, whole numbers; each row sums to G.
    """
    generator = np.random.default_rng(seed)
    num_groups = int(group_N.max()) + 1
    block = max(1, BLOCK_SIZE // len(group_N))
    for first in range(0, num_bootstrap, block):
        num_now = min(block, num_bootstrap - first)
        drawn_RG = generator.integers(0, num_groups, size=(num_now, num_groups))
        cell_RG = drawn_RG + num_groups * np.arange(num_now)[:, None]
        times_RG = np.bincount(cell_RG.ravel(), minlength=num_now * num_groups).reshape(num_now, num_groups)
        yield times_RG.astype(np.float64)


def percentile_interval(samples_R: npt.ArrayLike) -> list[float] | None:
    """The middle 95 % of what resamples gave.

    Args:
        samples_R: a number of each resample; NaN where it is undefined there, and left out; may be infinite.

    Returns:
        [low, high], or None where no number is left or a bound is infinite.
    """
    given_R = np.asarray(samples_R, dtype=np.float64)
    defined_R = given_R[~np.isnan(given_R)]
    if not len(defined_R):
        return None
    with np.errstate(invalid="ignore"):  # between two infinite samples there is no number
        low, high = np.percentile(defined_R, [100 * TAIL, 100 - 100 * TAIL])
    return [float(low), float(high)] if np.isfinite([low, high]).all() else None


def share_interval(
    hit_N: npt.ArrayLike,
    counted_N: npt.ArrayLike,
    group_N: IntArray,
    *,
    num_bootstrap: int,
    seed: int,
    transform: Callable[[FloatArray], FloatArray] = lambda share: share,
) -> list[float] | None:
    """95 % interval of the share of counted rows that are hits.

    Resamples in which nothing is counted are left out. Where every counted row is a hit, or none is, no resample
    differs from the next, and the percentiles would claim certainty from however few rows: there the bound is that of
    Clopper and Pearson for as many independent trials as there are groups with a counted row.

    Args:
        hit_N: which rows are hits; only counted ones may be.
        counted_N: which rows count.
        group_N: number of each row's group, 0 to G - 1.
        num_bootstrap: resamples.
        seed: seed of the resamples.
        transform: a rising function of the share, of which the interval is wanted.

    Returns:
        [low, high], or None where no row counts.
    """
    hit_N, counted_N = np.asarray(hit_N, dtype=bool), np.asarray(counted_N, dtype=bool)
    assert not (hit_N & ~counted_N).any(), "a hit that is not counted"
    if not counted_N.any():
        return None
    hit_G, counted_G = np.bincount(group_N, weights=hit_N), np.bincount(group_N, weights=counted_N)
    if hit_G.sum() in (0, counted_G.sum()):
        bound = TAIL ** (1 / int((counted_G > 0).sum()))
        low, high = transform(np.asarray([0.0, 1 - bound] if not hit_G.any() else [bound, 1.0]))
        return [float(low), float(high)]
    samples = []
    for times_RG in draw_groups(group_N, num_bootstrap=num_bootstrap, seed=seed):
        counted_R = times_RG @ counted_G
        samples.append(transform(times_RG @ hit_G / np.where(counted_R > 0, counted_R, np.nan)))
    return percentile_interval(np.concatenate(samples))


def ratio_interval(
    numerator_N: npt.ArrayLike,
    denominator_N: npt.ArrayLike,
    group_N: IntArray,
    *,
    num_bootstrap: int,
    seed: int,
) -> list[float] | None:
    """95 % interval of the sum of one number of each row over the sum of another, as nats over tokens.

    Args:
        numerator_N: a number of each row.
        denominator_N: a number of each row, above 0.
        group_N: number of each row's group, 0 to G - 1.
        num_bootstrap: resamples.
        seed: seed of the resamples.

    Returns:
        [low, high], or None where all rows are of one group, which resampling cannot vary.
    """
    numerator_G, denominator_G = (
        np.bincount(group_N, weights=np.asarray(values, dtype=np.float64)) for values in (numerator_N, denominator_N)
    )
    if len(numerator_G) < 2:
        return None
    return percentile_interval(
        np.concatenate(
            [
                times_RG @ numerator_G / (times_RG @ denominator_G)
                for times_RG in draw_groups(group_N, num_bootstrap=num_bootstrap, seed=seed)
            ]
        )
    )
