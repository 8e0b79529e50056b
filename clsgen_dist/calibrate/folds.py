"""Rows dealt to folds: whole groups, labels in about equal shares.

Shape legend: N rows, G groups, K distinct labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def deal_folds(
    labels_N: npt.ArrayLike, groups_N: npt.ArrayLike, *, num_folds: int, generator: np.random.Generator
) -> IntArray:
    """Number of each row's fold.

    Groups are shuffled, ordered by how many rows of each label they hold, the rarest label first, and dealt like
    cards, so that folds have about the same share of each label. With fewer groups than folds, some folds are empty.

    Args:
        labels_N: number of the label, or of any other kind of row whose share should be the same.
        groups_N: name or number of each row's group.
        num_folds: folds.
        generator: of the shuffle.

    Returns:
        0 to num_folds - 1, one a row; rows of one group are in one fold.
    """
    label_N = np.unique(labels_N, return_inverse=True)[1]
    group_N = np.unique(groups_N, return_inverse=True)[1]
    num_rows_K = np.bincount(label_N)
    counts_GK = np.zeros((int(group_N.max()) + 1, len(num_rows_K)), dtype=np.int64)
    np.add.at(counts_GK, (group_N, label_N), 1)
    shuffled_G = generator.permutation(len(counts_GK))
    common_first_K = np.argsort(num_rows_K, kind="stable")[::-1]
    # The last key counts most, and most rows come first.
    dealt_G = shuffled_G[np.lexsort(-counts_GK[shuffled_G][:, common_first_K].T)]
    fold_G = np.empty(len(counts_GK), dtype=np.int64)
    fold_G[dealt_G] = np.arange(len(counts_GK)) % num_folds
    return np.asarray(fold_G[group_N], dtype=np.int64)
