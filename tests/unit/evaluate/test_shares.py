"""Intervals of shares: against drawing rows one by one, at the edges, and what groups do to them."""

import numpy as np
import pytest

from clsgen_dist.evaluate import shares
from clsgen_dist.evaluate.resampling import number_groups
from clsgen_dist.evaluate.shares import draw_groups, percentile_interval, ratio_interval, share_interval


def test_a_resample_draws_as_many_groups_as_there_are_and_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = number_groups(["b", "a", "b", "c"], 4)
    whole = np.concatenate(list(draw_groups(group, num_bootstrap=50, seed=3)))
    assert whole.shape == (50, 3)
    assert set(whole.sum(axis=1)) == {3.0}
    monkeypatch.setattr(shares, "BLOCK_SIZE", 28)
    blocks = list(draw_groups(group, num_bootstrap=50, seed=3))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_it_agrees_with_copying_the_rows_of_each_drawn_group() -> None:
    generator = np.random.default_rng(0)
    counted = generator.random(60) < 0.4
    hit = counted & (generator.random(60) < 0.6)
    group = generator.integers(0, 20, 60)
    group[:20] = np.arange(20)
    drawn = np.random.default_rng(5).integers(0, 20, size=(300, 20))
    slow = []
    for groups in drawn:
        rows = np.concatenate([np.flatnonzero(group == g) for g in groups])
        slow.append(hit[rows].sum() / counted[rows].sum())
    fast = share_interval(hit, counted, group, num_bootstrap=300, seed=5)
    assert fast == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=1e-12)
    squares = share_interval(hit, counted, group, num_bootstrap=300, seed=5, transform=np.square)
    assert squares == pytest.approx(np.percentile(np.square(slow), [2.5, 97.5]), abs=1e-12)


@pytest.mark.parametrize("num_trials", [1, 3, 50])
def test_nothing_but_hits_is_no_certainty(num_trials: int) -> None:
    # Clopper and Pearson: the probability of a hit at which all of n trials hit in 2.5 % of cases.
    counted = np.arange(100) < num_trials
    low, high = share_interval(counted, counted, np.arange(100), num_bootstrap=20, seed=0) or ()
    assert (low**num_trials, high) == (pytest.approx(0.025), 1.0)
    low, high = share_interval(~counted & False, counted, np.arange(100), num_bootstrap=20, seed=0) or ()
    assert (low, (1 - high) ** num_trials) == (0.0, pytest.approx(0.025))


def test_trials_are_groups_and_not_rows() -> None:
    every = np.ones(100, dtype=bool)
    low, high = share_interval(every, every, np.arange(100) // 50, num_bootstrap=20, seed=0) or ()
    assert (low**2, high) == (pytest.approx(0.025), 1.0)


def test_of_nothing_there_is_no_share() -> None:
    none = np.zeros(5, dtype=bool)
    assert share_interval(none, none, np.arange(5), num_bootstrap=20, seed=0) is None


def test_percentiles_leave_out_what_is_undefined_and_do_not_invent_bounds() -> None:
    assert percentile_interval([np.nan, *range(101), np.nan]) == pytest.approx([2.5, 97.5])
    assert percentile_interval([np.nan, np.nan]) is None
    assert percentile_interval([*range(99), np.inf]) is not None
    assert percentile_interval([*range(90), *[np.inf] * 10]) is None
    assert percentile_interval([-np.inf] * 10 + [0.0] * 90) is None


def test_a_ratio_of_sums_agrees_with_copying_the_rows_of_each_drawn_group() -> None:
    generator = np.random.default_rng(0)
    above, below = generator.normal(size=60), generator.uniform(1, 5, size=60)
    group = np.concatenate([np.arange(20), generator.integers(0, 20, 40)])
    slow = []
    for groups in np.random.default_rng(5).integers(0, 20, size=(300, 20)):
        rows = np.concatenate([np.flatnonzero(group == g) for g in groups])
        slow.append(above[rows].sum() / below[rows].sum())
    fast = ratio_interval(above, below, group, num_bootstrap=300, seed=5)
    assert fast == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=1e-12)


def test_a_ratio_of_one_group_has_no_interval() -> None:
    assert ratio_interval([1.0, 2.0], [1.0, 1.0], np.zeros(2, dtype=np.int64), num_bootstrap=10, seed=0) is None
