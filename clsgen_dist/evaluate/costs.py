"""What decisions are worth: net benefit over thresholds, and expected cost of a cost matrix.

Shape legend: N rows, K labels, T thresholds.

Both presuppose calibrated probabilities: a threshold and a Bayes decision take a probability at its word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import ConfigError
from clsgen_dist.evaluate.metrics import checked

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Thresholds of the decision curve: every percent, without 1, where a false alarm would cost infinitely much.
CURVE_THRESHOLDS = tuple(round(0.01 * percent, 2) for percent in range(100))

#: Expected costs that differ by less than this part of the largest cost are the same.
TIE_TOLERANCE = 1e-12


@dataclass(frozen=True)
class NetBenefit:
    """A decision curve, in true positives a row.

    Attributes:
        threshold_T: probabilities from which a row is flagged, as given.
        model_T: net benefit of flagging where the model's probability is at least the threshold.
        treat_all_T: net benefit of flagging every row. That of flagging none is 0.
    """

    threshold_T: FloatArray
    model_T: FloatArray
    treat_all_T: FloatArray


def net_benefit(probability_N: npt.ArrayLike, positive_N: npt.ArrayLike, thresholds: npt.ArrayLike) -> NetBenefit:
    """Net benefit TP/n - FP/n * t/(1-t) at each threshold t.

    Whoever acts from probability t on holds a false alarm for t/(1-t) times as bad as a row found is good. A model is
    of use at a threshold where its net benefit is above that of flagging all rows and above 0.

    Args:
        probability_N: calibrated probability of the positive label, 0 to 1.
        positive_N: whether the row has the positive label.
        thresholds: 0 or more and below 1, in any order.

    Raises:
        ConfigError: a threshold is NaN or outside that range (at 1 a false alarm costs infinitely much).
        DataError, NumericsError: as `metrics.probability_metrics`.

    Source: Vickers and Elkin 2006 (Medical Decision Making 26), decision curve analysis.
    """
    threshold_T = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
    assert threshold_T.ndim == 1, f"expected a list of thresholds, found shape {threshold_T.shape}"
    outside_T = ~((threshold_T >= 0) & (threshold_T < 1))
    if outside_T.any():
        raise ConfigError(
            f"net benefit: found the threshold {threshold_T[outside_T][0]:g}, expected numbers from 0 to below 1"
        )
    probability_N = np.asarray(probability_N, dtype=np.float64)
    probabilities_NK, labels_N = checked(np.stack([1 - probability_N, probability_N], axis=1), positive_N)
    probability_N, num_rows = probabilities_NK[:, 1], len(labels_N)
    sorted_positive_N, sorted_negative_N = (np.sort(probability_N[labels_N == label]) for label in (1, 0))
    num_positive, num_negative = len(sorted_positive_N), len(sorted_negative_N)
    true_positives_T = num_positive - np.searchsorted(sorted_positive_N, threshold_T, side="left")
    false_positives_T = num_negative - np.searchsorted(sorted_negative_N, threshold_T, side="left")
    odds_T = threshold_T / (1 - threshold_T)
    return NetBenefit(
        threshold_T=threshold_T,
        model_T=true_positives_T / num_rows - false_positives_T / num_rows * odds_T,
        treat_all_T=num_positive / num_rows - num_negative / num_rows * odds_T,
    )


@dataclass(frozen=True)
class ExpectedCost:
    """Mean cost a row, in the unit of the cost matrix, of four ways to decide.

    Attributes:
        bayes: the decision with the least cost that the probabilities expect.
        arg_max: the label with the largest probability, whatever mistakes cost.
        constant: the one decision for all rows that is cheapest on these rows; a model dearer than that is of no use.
        constant_label: number of the label that is decided then.
        expected_bayes: what the probabilities themselves expect `bayes` to cost; far from `bayes` they are not
            calibrated where it matters.
    """

    bayes: float
    arg_max: float
    constant: float
    constant_label: int
    expected_bayes: float


def expected_cost(probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike, cost_KK: npt.ArrayLike) -> ExpectedCost:
    """Mean cost of decisions on labelled rows.

    Args:
        probabilities_NK: calibrated probability of each label; rows sum to 1.
        labels_N: number of the true label.
        cost_KK: cost of deciding on the column's label where the row's label is the true one; may be negative.

    Raises:
        ConfigError: costs are not finite numbers of K by K, or some label is decided wrongly at less than rightly,
            which no decision rule should be made to do (rows and columns mixed up?).
        DataError, NumericsError: as `metrics.probability_metrics`.

    Source: Elkan 2001 (IJCAI), the foundations of cost-sensitive learning.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    cost_KK = _checked_cost(cost_KK, probabilities_NK.shape[1])
    decided_N, expected_N = _bayes(probabilities_NK, cost_KK)
    mean_cost_K = cost_KK[labels_N].mean(axis=0)
    constant_label = int(mean_cost_K.argmin())
    return ExpectedCost(
        bayes=float(cost_KK[labels_N, decided_N].mean()),
        arg_max=float(cost_KK[labels_N, probabilities_NK.argmax(axis=1)].mean()),
        constant=float(mean_cost_K[constant_label]),
        constant_label=constant_label,
        expected_bayes=float(expected_N.mean()),
    )


def _bayes(probabilities_NK: FloatArray, cost_KK: FloatArray) -> tuple[IntArray, FloatArray]:
    """The cheapest decision of each row, and what it is expected to cost.

    Of equal costs the first label is decided on, but of two labels the last, as at the threshold c_FP / (c_FP + c_FN)
    that says the same for two labels (p >= threshold).
    """
    cost_NK = probabilities_NK @ cost_KK
    least_N = cost_NK.min(axis=1)
    cheapest_NK = cost_NK <= least_N[:, None] + TIE_TOLERANCE * np.abs(cost_KK).max()
    decided_N = cheapest_NK[:, 1].astype(np.int64) if cost_NK.shape[1] == 2 else cheapest_NK.argmax(axis=1)
    return decided_N, least_N


def _checked_cost(cost_KK: npt.ArrayLike, num_labels: int) -> FloatArray:
    where = "cost matrix"
    try:
        cost_KK = np.asarray(cost_KK, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: expected {num_labels} rows of {num_labels} numbers, one a label") from error
    if cost_KK.shape != (num_labels, num_labels):
        raise ConfigError(
            f"{where}: found shape {cost_KK.shape}, expected {num_labels} rows (the true label) of {num_labels} "
            "numbers (the label decided on), in the order of task.labels"
        )
    if not np.isfinite(cost_KK).all():
        raise ConfigError(f"{where}: found a cost that is NaN or infinite, expected finite numbers")
    cheaper_K = np.flatnonzero((cost_KK < np.diag(cost_KK)[:, None]).any(axis=1))
    if len(cheaper_K):
        raise ConfigError(
            f"{where}: where label number {cheaper_K[0]} is the true one, another decision is cheaper than the right "
            "one; expected the cost on the diagonal to be the least of its row; rows are the true label, columns the "
            "label decided on"
        )
    return cost_KK
