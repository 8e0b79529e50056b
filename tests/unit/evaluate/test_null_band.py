"""Where the points of a perfect model lie."""

import numpy as np
import pytest

from clsgen_dist.evaluate.null_band import null_band


def test_the_band_of_one_bin_is_that_of_a_binomial() -> None:
    # 100 rows of p = 0.5: a binomial's 2.5 % and 97.5 % points are 40 and 60.
    low, high = null_band(np.full(100, 0.5), num_bins=2, num_draws=20_000)
    assert low[1] == pytest.approx(0.40, abs=0.011)
    assert high[1] == pytest.approx(0.60, abs=0.011)


def test_bins_without_rows_have_no_band() -> None:
    low, high = null_band(np.full(10, 0.05), num_bins=10)
    assert np.isnan(low[1:]).all()
    assert np.isnan(high[1:]).all()


def test_certainty_has_no_width() -> None:
    low, high = null_band(np.array([0.0, 0.0, 1.0]), num_bins=2)
    assert low.tolist() == high.tolist() == [0.0, 1.0]


def test_more_rows_make_it_narrower_and_pieces_do_not_matter() -> None:
    few, many = (null_band(np.full(n, 0.3), num_bins=1) for n in (50, 10_000))
    assert few[1][0] - few[0][0] > 5 * (many[1][0] - many[0][0])
    assert many[1][0] - many[0][0] == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 10_000), rel=0.15)


def test_the_same_seed_draws_the_same() -> None:
    probability = np.linspace(0.01, 0.99, 200)
    first, second = (null_band(probability, num_bins=10, seed=3) for _ in range(2))
    assert np.array_equal(first, second)


def test_nineteen_of_twenty_calibrated_points_lie_inside() -> None:
    generator = np.random.default_rng(0)
    probability = generator.random(400)
    low, high = null_band(probability, num_bins=10, num_draws=4000)
    bins = np.minimum((10 * probability).astype(int), 9)
    inside = []
    for _ in range(300):
        happened = generator.random(400) < probability
        frequency = np.bincount(bins, happened, minlength=10) / np.bincount(bins, minlength=10)
        inside += list((frequency >= low) & (frequency <= high))
    assert 0.94 < np.mean(inside) < 0.985
