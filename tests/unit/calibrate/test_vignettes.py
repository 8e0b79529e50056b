"""Where the true probability is known: what a calibration on 1,000 rows does to the error of the probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import logit

from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.calibrate.selection import select_calibrator
from clsgen_dist.data.synthetic import vignettes

FloatArray = npt.NDArray[np.float64]


def heads(truth_N: FloatArray, seed: int) -> dict[str, FloatArray]:
    """Log-odds of heads that are right but for some noise, too sure, and biased."""
    noise_N = np.random.default_rng(seed).normal(size=len(truth_N))
    right_N = logit(truth_N.clip(1e-6, 1 - 1e-6)) + 0.3 * noise_N
    return {"good": right_N, "overconfident": 2.5 * right_N, "biased": right_N + 1.5}


@pytest.mark.parametrize("name", ["good", "overconfident", "biased"])
def test_the_error_falls_or_stays_where_the_head_was_good(name: str) -> None:
    rows = list(vignettes(1000, seed=11, split="calibration"))
    test = list(vignettes(3000, seed=11, split="test"))
    fit_N = heads(np.array([row.true_probability for row in rows]), seed=1)[name]
    truth_N = np.array([row.true_probability for row in test])
    test_N = heads(truth_N, seed=2)[name]
    labels_N = np.array([row.label for row in rows])
    selection = select_calibrator(
        np.stack([np.zeros_like(fit_N), fit_N], axis=1), labels_N, max_temperature=100.0, seed=0
    )
    logits_N2 = np.stack([np.zeros_like(test_N), test_N], axis=1)
    before_N = np.abs(IDENTITY.apply(logits_N2)[:, 1] - truth_N)
    after_N = np.abs(selection.calibrator.apply(logits_N2)[:, 1] - truth_N)
    if name == "good":
        draws = np.random.default_rng(3).integers(0, len(test), size=(500, len(test)))
        low, high = np.percentile(before_N[draws].mean(axis=1), [2.5, 97.5])
        assert low <= after_N.mean() <= high, "within the interval of doing nothing"
    else:
        assert after_N.mean() < before_N.mean() / 2
