"""Temperature: one number that makes logits as sure as they deserve to be.

Shape legend: N rows, K labels.

It never changes which label is the largest, and for two labels it leaves the AUROC as it is: it mends sharpness, not
ranking and not a bias.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from clsgen_dist.calibrate.simplex import shifted

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Numbers of a block of rows: what a processor keeps at hand.
BLOCK = 1 << 16


def fit_temperature(
    logits_NK: FloatArray, labels_N: IntArray, max_temperature: float
) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """The temperature of the least negative log-likelihood, between 1 / max_temperature and max_temperature.

    The mean negative log-likelihood is convex in beta = 1 / temperature, so its slope rises with beta: the slopes at
    the two bounds say whether the optimum lies between them, and where they differ in sign it has one root.

    Returns:
        The parameters of the map, and warnings.
    """
    num_rows, below_NK = len(labels_N), shifted(logits_NK)
    upper = math.log(max_temperature)
    own_mean = float(np.mean(below_NK[np.arange(num_rows), labels_N]))

    def slope(log_beta: float) -> float:
        return _mean_expected(math.exp(log_beta), below_NK) - own_mean

    warnings = []
    if not below_NK.any():
        temperature = 1.0
        warnings.append(
            f"all logits of each of the {num_rows} calibration rows are equal: no temperature changes anything"
        )
    elif slope(-upper) >= 0:
        temperature = float(max_temperature)
        warnings.append(
            f"the temperature stopped at its upper bound, {max_temperature:g}: on the {num_rows} calibration rows the "
            "logits carry no information about the label, or point away from it (are the labels in the right order?)"
        )
    elif slope(upper) <= 0:
        temperature = 1 / max_temperature
        warnings.append(
            f"the temperature stopped at its lower bound, {1 / max_temperature:g}: the model separates the {num_rows} "
            "calibration rows without an error, so they cannot say how sure it should be; use more rows, and check "
            "that none of them was trained on"
        )
    else:
        temperature = math.exp(-brentq(slope, -upper, upper, xtol=1e-13, rtol=1e-14))
    return {"temperature": (temperature,)}, warnings


def _mean_expected(beta: float, below_NK: FloatArray) -> float:
    """Mean over rows of the expected logit at temperature 1 / beta."""
    num_rows, num_labels = below_NK.shape
    size = max(1, BLOCK // num_labels)
    total = 0.0
    for start in range(0, num_rows, size):
        block_BK = below_NK[start : start + size]
        with np.errstate(over="ignore"):
            weights_BK = np.exp(beta * block_BK)
        total += float(np.sum(np.einsum("bk,bk->b", weights_BK, block_BK) / weights_BK.sum(axis=1)))
    return total / float(num_rows)
