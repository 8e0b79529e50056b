"""Rows dealt to folds: whole groups, labels in about equal shares.

Shape legend: N rows, G groups, K distinct labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def deal_folds(groups_N: npt.NDArray[Any], labels_N: IntArray, *, num_folds: int, seed: int) -> IntArray:
    """Number of each row's fold.

    Groups are shuffled, ordered by how many rows of each label they hold and dealt like cards, so that folds have about
    the same share of each label. With fewer groups than folds, some folds are empty.

    Args:
        groups_N: name or number of each row's group.
        labels_N: number of the label.
        num_folds: folds.
        seed: of the shuffle.

    Returns:
        0 to num_folds - 1, one a row; rows of one group are in one fold.
    """
    group_N = np.unique(groups_N, return_inverse=True)[1]
    kinds_K, label_N = np.unique(labels_N, return_inverse=True)
    counts_GK = np.zeros((int(group_N.max()) + 1, len(kinds_K)), dtype=np.int64)
    np.add.at(counts_GK, (group_N, label_N), 1)
    shuffled_G = np.random.default_rng(seed).permutation(len(counts_GK))
    dealt_G = shuffled_G[np.lexsort(counts_GK[shuffled_G].T)]
    fold_G = np.empty(len(counts_GK), dtype=np.int64)
    fold_G[dealt_G] = np.arange(len(counts_GK)) % num_folds
    return np.asarray(fold_G[group_N], dtype=np.int64)
