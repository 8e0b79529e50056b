"""Resamples of groups of rows.

Shape legend: N rows, K labels, G groups, R resamples.

A resample is a number of times for each row, so that every number becomes a weighted sum and many resamples are
measured at once. Rows of one group (a patient, a trial) come and go together: resampling rows as if they were
independent makes intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Draws, as a multiple of the resamples wanted, after which rows of one label are taken for the rule.
MAX_DRAW_FACTOR = 50


def number_groups(groups_N: npt.ArrayLike | None, num_rows: int) -> IntArray:
    """Number of each row's group, from 0; None makes each row a group of its own.

    Raises:
        DataError: all rows are of one group.
    """
    given_N = np.arange(num_rows) if groups_N is None else np.asarray(groups_N)
    assert given_N.shape == (num_rows,), f"groups must be one a row, found shape {given_N.shape} for {num_rows} rows"
    group_N = np.unique(given_N, return_inverse=True)[1].astype(np.int64)
    if group_N.max() < 1:
        raise DataError(
            f"evaluation: all {num_rows} labelled rows are of one group, so nothing can be resampled; expected at "
            "least two groups; set data.group_column to null where rows are independent"
        )
    return group_N


def resamples(
    labels_N: IntArray, group_N: IntArray, *, num_bootstrap: int, block: int, seed: int
) -> Iterator[tuple[FloatArray, int]]:
    """Resamples that hold two labels or more, in blocks; how they fall into blocks does not change them.

    Args:
        labels_N: number of the true label.
        group_N: as `number_groups` gives them.
        num_bootstrap: resamples wanted.
        block: resamples of one block at most.
        seed: seed of the draws.

    Yields:
        weight_RN, how often each row was drawn; and the number of resamples of one label that were dropped on the way.

    Raises:
        DataError: resamples hardly ever hold two labels.
    """
    generator = np.random.default_rng(seed)
    num_groups = int(group_N.max()) + 1
    truth_NK = np.eye(int(labels_N.max()) + 1)[labels_N]
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
