"""The benchmark of the choice of a calibrator: what it fits on, and how it counts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.calibrator_selection import compare, excess_of, load_splits, table
from clsgen_dist.calibrate.scaling import fit_calibrator


def test_means_are_over_all_sets_of_the_pool() -> None:
    calibration, test = load_splits(170, 300, seed=3)
    found = compare("timid", 80, 3, calibration, test)

    logits_N2 = np.stack([np.zeros(300), test.log_odds["timid"]], axis=1)
    odds, labels = calibration.log_odds["timid"], calibration.labels_N
    expected = []
    for part in (slice(0, 80), slice(80, 160)):  # ten rows are left over
        fit_on = np.stack([np.zeros(80), odds[part]], axis=1)
        p = fit_calibrator(fit_on, labels[part], method="temperature", max_temperature=100.0)[0].apply(logits_N2)[:, 1]
        expected.append(-np.mean(test.truth_N * np.log(p) + (1 - test.truth_N) * np.log1p(-p)))
    assert found["temperature"] == pytest.approx(np.mean(expected), rel=1e-9)
    assert found["selection"] < found["none"]
    assert found["after"] < found["mean abs(p - true p) before"]


def test_the_excess_is_over_the_method_that_is_best_in_the_mean() -> None:
    means = {"none": [0.5, 0.1], "platt": [0.2, 0.2], "selection": [0.21, 0.22]}
    means |= {"mean abs(p - true p) before": [0.0, 0.0], "after": [0.0, 0.0]}
    result = {"head": "made up", "num_rows": 50, "means": means}

    np.testing.assert_allclose(excess_of(result), [0.01, 0.02])
    assert "| made up | 50 | 0.3000 | 0.2000 | 0.2150 | +0.0150 ± 0.0050 **(over)** | 0.0000 | 0.0000 |" in table(
        [result]
    )
