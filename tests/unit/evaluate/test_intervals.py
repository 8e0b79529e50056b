"""Bootstrap intervals: against the slow way, against theory, and what groups do to them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clsgen_dist.errors import DataError
from clsgen_dist.evaluate import resampling, tallies
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics
from clsgen_dist.evaluate.intervals import BLOCK_SIZE, bootstrap_intervals
from clsgen_dist.evaluate.metrics import probability_metrics

NAMES = [
    *("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label", "ece_equal_mass", "ece_classwise"),
    *("mce", "brier_reliability", "brier_resolution", "brier_uncertainty"),
    *("calibration_slope", "calibration_intercept", "calibration_in_the_large"),
]
LINE = ("calibration_slope", "calibration_intercept", "calibration_in_the_large")


def draw(num_rows: int, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    # Rounded, so that there are ties.
    probability = generator.dirichlet(np.ones(num_labels), size=num_rows).round(2)
    probability[:, -1] = 1 - probability[:, :-1].sum(axis=1)
    probability = probability.clip(0, 1)
    labels = (generator.random((num_rows, 1)) > probability.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    return probability, labels


def intervals(
    probability: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0, num: int = 500
) -> dict[str, list[float] | int | None]:
    predicted = probability.argmax(axis=1)
    return bootstrap_intervals(probability, labels, predicted, groups, num_bootstrap=num, num_bins=10, seed=seed)


def width(interval: list[float] | int | None) -> float:
    assert isinstance(interval, list)
    return interval[1] - interval[0]


@pytest.mark.parametrize("num_labels", [2, 3])
def test_they_agree_with_resampling_row_by_row(num_labels: int) -> None:
    probability, labels = draw(120, num_labels, seed=1)
    groups = np.arange(120) // 2
    # The same draws, done the slow way: copy the rows of each drawn group and measure the copy.
    drawn = np.random.default_rng(7).integers(0, 60, size=(100, 60))
    slow: dict[str, list[float | None]] = {name: [] for name in NAMES}
    for groups_drawn in drawn:
        rows = np.concatenate([np.flatnonzero(groups == g) for g in groups_drawn])
        p, truth = probability[rows], labels[rows]
        found: dict[str, float | None] = {**probability_metrics(p, truth, p.argmax(axis=1), num_bins=10)}
        found |= calibration_metrics(p, truth, num_bins=10)
        assert set(found) == set(NAMES)
        for name in NAMES:
            slow[name].append(found[name])
    fast = intervals(probability, labels, groups, seed=7, num=100)
    assert set(fast) == {f"{name}_ci" for name in NAMES} | {"num_redrawn"}
    for name, values in slow.items():
        if num_labels > 2 and name == "calibration_in_the_large":
            assert fast[f"{name}_ci"] is None
        else:
            expected = np.percentile(np.array(values, dtype=float), [2.5, 97.5])
            np.testing.assert_allclose(fast[f"{name}_ci"], expected, rtol=1e-9, atol=1e-12)
    assert fast["num_redrawn"] == 0


def test_how_resamples_fall_into_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probability, _ = draw(40, 2, seed=8)
    labels = (np.arange(40) % 20 == 0).astype(int)  # some resamples lack a positive row and are drawn again
    together = intervals(probability, labels, num=100)
    monkeypatch.setattr("clsgen_dist.evaluate.intervals.BLOCK_SIZE", 40 * 7)
    apart = intervals(probability, labels, num=100)
    assert apart["num_redrawn"] == together["num_redrawn"] != 0
    for name in NAMES:
        assert apart[f"{name}_ci"] == pytest.approx(together[f"{name}_ci"], rel=1e-9)


def test_a_resample_of_separated_labels_takes_the_slope_interval_away() -> None:
    # One wrong row of twenty: a third of the resamples lack it, and no line is the best for them.
    probability = np.linspace(0.05, 0.95, 20)
    labels = (probability > 0.5).astype(int)
    labels[0] = 1
    found = intervals(np.stack([1 - probability, probability], axis=1), labels, num=100)
    assert found["calibration_slope_ci"] is found["calibration_intercept_ci"] is None
    assert width(found["calibration_in_the_large_ci"]) > 0


def test_the_same_seed_gives_the_same_intervals_and_another_one_does_not() -> None:
    probability, labels = draw(200, 2, seed=2)
    assert intervals(probability, labels, seed=3) == intervals(probability, labels, seed=3)
    assert intervals(probability, labels, seed=3) != intervals(probability, labels, seed=4)


def test_they_hold_the_true_value_about_nineteen_times_in_twenty() -> None:
    # The truth, of a very large draw from the same source.
    probability, labels = draw(200_000, 2, seed=100)
    truth = probability_metrics(probability, labels, probability.argmax(axis=1), num_bins=10)
    truth |= {"calibration_slope": 1.0, "calibration_intercept": 0.0, "calibration_in_the_large": 0.0}
    held = dict.fromkeys(("auroc", "auprc", "f1", "accuracy", "nll", "brier"), 0) | dict.fromkeys(LINE, 0)
    for seed in range(100):
        found = intervals(*draw(300, 2, seed=seed), seed=seed, num=200)
        for name in held:
            low, high = found[f"{name}_ci"]  # type: ignore[misc]
            held[name] += low <= truth[name] <= high
    assert all(88 <= count <= 99 for count in held.values()), held


def test_four_times_the_rows_halve_the_width() -> None:
    ratios = []
    for seed in range(10):
        few, many = intervals(*draw(400, 2, seed=seed)), intervals(*draw(1600, 2, seed=seed))
        ratios.append(width(many["nll_ci"]) / width(few["nll_ci"]))
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.07)


def test_copies_of_rows_narrow_rows_but_not_groups() -> None:
    probability, labels = draw(200, 2, seed=5)
    copied, copied_labels, groups = np.repeat(probability, 4, axis=0), np.repeat(labels, 4), np.repeat(range(200), 4)
    single = intervals(probability, labels)
    by_row, by_group = intervals(copied, copied_labels), intervals(copied, copied_labels, groups)
    for name in ("auroc_ci", "auprc_ci", "f1_ci", "nll_ci", "brier_ci", "calibration_slope_ci"):
        assert by_group[name] == pytest.approx(single[name])
        assert width(by_group[name]) > 1.6 * width(by_row[name])


def test_group_numbers_are_names_only() -> None:
    probability, labels = draw(100, 2, seed=6)
    groups = np.arange(100) // 3
    assert intervals(probability, labels, groups) == intervals(probability, labels, groups * 1000 + 5)


def test_resamples_of_one_label_are_drawn_again_and_counted() -> None:
    probability, _ = draw(30, 2, seed=8)
    labels = np.zeros(30, dtype=int)
    labels[0] = 1
    found = intervals(probability, labels)
    # (29/30)^30 = 0.36 of the resamples lack the only positive row: 500 * 0.36 / 0.64 are dropped.
    assert 200 < float(found["num_redrawn"]) < 370  # type: ignore[arg-type]
    assert all(np.isfinite(found[f"{name}_ci"]).all() for name in NAMES if name not in LINE[:2])


def test_one_group_cannot_be_resampled() -> None:
    probability, labels = draw(30, 2, seed=9)
    with pytest.raises(DataError, match="one group"):
        intervals(probability, labels, np.zeros(30))


def test_rows_are_sorted_once_for_all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    num_sorts = 0

    def sort_rows(probability_N: np.ndarray, event_N: np.ndarray) -> tallies.SortedRows:
        nonlocal num_sorts
        num_sorts += 1
        return tallies.sort_rows(probability_N, event_N)

    monkeypatch.setattr("clsgen_dist.evaluate.intervals.sort_rows", sort_rows)
    for num in (1, 300):
        num_sorts = 0
        intervals(*draw(400, 2, seed=10), num=num)
        assert num_sorts == 3, "one for each label, and one for the largest probability"


def test_resamples_are_measured_in_blocks_that_a_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def resamples(*arguments: Any, **options: Any) -> Iterator[tuple[np.ndarray, int]]:
        for weight_RN, num_dropped in resampling.resamples(*arguments, **options):
            shapes.append(weight_RN.shape)
            yield weight_RN, num_dropped

    monkeypatch.setattr("clsgen_dist.evaluate.intervals.resamples", resamples)
    intervals(*draw(2000, 2, seed=10), num=120)
    # 100 000 numbers are 50 resamples of 2000 rows.
    assert shapes == [(50, 2000), (50, 2000), (20, 2000)]
    assert max(np.prod(shape) for shape in shapes) <= BLOCK_SIZE
