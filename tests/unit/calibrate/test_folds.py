"""Folds keep groups whole and labels even."""

from __future__ import annotations

import numpy as np

from clsgen_dist.calibrate.folds import deal_folds


def test_groups_stay_whole() -> None:
    generator = np.random.default_rng(17)
    labels = (generator.random(300) < 0.1).astype(np.int64)
    groups = generator.permutation(np.repeat([f"g{n}" for n in range(100)], 3))
    fold = deal_folds(labels, groups, num_folds=5, generator=generator)
    assert all(len(set(fold[groups == name])) == 1 for name in groups)
    np.testing.assert_array_equal(np.bincount(fold), [60] * 5)
    assert np.ptp(np.bincount(fold, weights=labels)) <= 3


def test_rows_without_groups_are_dealt_evenly_by_label() -> None:
    generator = np.random.default_rng(3)
    labels = generator.choice([-2, 0, 5], p=[0.05, 0.25, 0.7], size=303)
    fold = deal_folds(labels, np.arange(303), num_folds=5, generator=generator)
    assert np.ptp(np.bincount(fold)) <= 1
    for label in (-2, 0, 5):
        assert np.ptp(np.bincount(fold, weights=labels == label)) <= 1


def test_groups_of_a_kind_are_dealt_evenly() -> None:
    """Which label a group begins with says nothing of the others that it holds."""
    labels = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (50, 1))
    fold = deal_folds(labels.ravel(), np.repeat(np.arange(200), 2), num_folds=2, generator=np.random.default_rng(0))
    assert np.bincount(fold, weights=labels.ravel()).tolist() == [100, 100]


def test_more_folds_than_groups_leave_some_empty() -> None:
    fold = deal_folds([0, 1, 0, 1], ["a", "a", "b", "b"], num_folds=5, generator=np.random.default_rng(0))
    assert sorted(set(fold.tolist())) == [0, 1]
