"""Rows dealt to folds: whole groups, labels in about equal shares.

Shape legend: N rows, G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def deal_folds(groups_N: npt.NDArray[Any], labels_N: IntArray, *, num_folds: int, seed: int) -> IntArray:
    """Number of each row's fold.

    Groups are shuffled, ordered by label and dealt like cards, so that folds have about the same share of each label
    where rows are groups of their own. With fewer groups than folds, some folds are empty.

    Args:
        groups_N: name or number of each row's group.
        labels_N: number of the label; the one of a group's first row stands for the group.
        num_folds: folds.
        seed: of the shuffle.

    Returns:
        0 to num_folds - 1, one a row; rows of one group are in one fold.
    """
    _, first_G, group_N = np.unique(groups_N, return_index=True, return_inverse=True)
    shuffled_G = np.random.default_rng(seed).permutation(len(first_G))
    dealt_G = shuffled_G[np.argsort(labels_N[first_G][shuffled_G], kind="stable")]
    fold_G = np.empty(len(first_G), dtype=np.int64)
    fold_G[dealt_G] = np.arange(len(first_G)) % num_folds
    return np.asarray(fold_G[group_N], dtype=np.int64)
