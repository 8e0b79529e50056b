"""Vector scaling: a scale and a bias for each of three or more labels.

Shape legend: N rows, B rows of a block, K labels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.families import MOST_EXTREME, centred
from clsgen_dist.calibrate.newton import minimise
from clsgen_dist.calibrate.simplex import shifted
from clsgen_dist.calibrate.temperature import BLOCK, fit_temperature
from clsgen_dist.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Weights of the ridge: as if scale * T - 1, and bias in nats, had been drawn from normal distributions of these
#: precisions. Of 0.1 to 30, these lose least on simulated rows: 50 to 1,000 of them, 3 to 20 labels, with wrong
#: sharpness, wrong shares, wrong scales or nothing wrong.
SCALE_RIDGE, BIAS_RIDGE = 10.0, 2.0


def fit_vector(
    logits_NK: FloatArray, labels_N: IntArray, max_temperature: float
) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """Scales and biases on centred logits, drawn mildly toward the best temperature and no bias.

    The objective is the negative log-likelihood of all rows plus SCALE_RIDGE / 2 times the squares of scale * T - 1
    and BIAS_RIDGE / 2 times the squares of the biases: it is strictly convex, and its optimum is finite for separated
    rows and for labels that no row has.

    Returns:
        The parameters of the map, and warnings: those of the temperature, and labels whose scale is not above 0.

    Raises:
        DataError: logits of a row that lie more than 1e6 apart.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; the ridge is ours.
    """
    farthest = -float(shifted(logits_NK).min())
    if farthest > MOST_EXTREME:
        raise DataError(
            f"calibration: found logits {farthest:g} apart in a row, expected {MOST_EXTREME:g} at most; mend the "
            "logits, or set calibrate.method to temperature"
        )
    fitted, warnings = fit_temperature(logits_NK, labels_N, max_temperature)
    beta = 1 / fitted["temperature"][0]
    tempered_NK = beta * centred(logits_NK)
    num_rows, num_labels = tempered_NK.shape
    prior = np.repeat([1.0, 0.0], num_labels)
    ridge = np.repeat([SCALE_RIDGE, BIAS_RIDGE], num_labels) / num_rows

    def objective(at: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        value, gradient, hessian = _likelihood(at, tempered_NK, labels_N)
        away = at - prior
        return value + float(ridge @ away**2) / 2, gradient + ridge * away, hessian + np.diag(ridge)

    unbounded = np.full(2 * num_labels, np.inf)
    found = minimise(objective, prior, -unbounded, unbounded)
    scale, bias = beta * found[:num_labels], found[num_labels:]
    turned = np.flatnonzero(scale <= 0)
    if len(turned):
        warnings.append(
            f"the scale of label number {', '.join(map(str, turned))} is not above 0: on the {num_rows} calibration "
            "rows a larger logit makes the label less likely (are the labels in the right order?)"
        )
    return {"scale": tuple(scale.tolist()), "bias": tuple(bias.tolist())}, warnings


def _likelihood(at: FloatArray, tempered_NK: FloatArray, labels_N: IntArray) -> tuple[float, FloatArray, FloatArray]:
    """Mean negative log-likelihood, its gradient and its Hessian, by relative scales and biases."""
    num_rows, num_labels = tempered_NK.shape
    value, gradient, hessian = 0.0, np.zeros(2 * num_labels), np.zeros((2 * num_labels, 2 * num_labels))
    # The diagonal of the Hessian's four quarters.
    square, cross, plain = np.zeros(num_labels), np.zeros(num_labels), np.zeros(num_labels)
    size = max(1, BLOCK // num_labels)
    for start in range(0, num_rows, size):
        z_BK, label_B = tempered_NK[start : start + size], labels_N[start : start + size]
        row_B = np.arange(len(label_B))
        below_BK = shifted(at[:num_labels] * z_BK + at[num_labels:])
        weights_BK = np.exp(below_BK)
        sum_B = weights_BK.sum(axis=1)
        p_BK = weights_BK / sum_B[:, None]
        value += float(np.sum(np.log(sum_B) - below_BK[row_B, label_B]))
        both = np.concatenate([p_BK * z_BK, p_BK], axis=1)
        hessian -= both.T @ both
        square += np.einsum("bk,bk->k", both[:, :num_labels], z_BK)
        cross += both[:, :num_labels].sum(axis=0)
        plain += p_BK.sum(axis=0)
        own_B = z_BK[row_B, label_B]
        gradient[:num_labels] -= np.bincount(label_B, weights=own_B, minlength=num_labels)
        gradient[num_labels:] -= np.bincount(label_B, minlength=num_labels)
    gradient += np.concatenate([cross, plain])
    hessian += np.block([[np.diag(square), np.diag(cross)], [np.diag(cross), np.diag(plain)]])
    return value / num_rows, gradient / num_rows, hessian / num_rows
