"""Decisions in numbers: at the operating threshold, when sure, over thresholds, and at what cost.

Shape legend: N rows, K labels.

A threshold, or a confidence to answer from, is chosen on calibration rows; what is said of it here comes from other
rows. Chosen and reported on the same rows, the best F1 of 100 rows is ten points too good.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import ConfigError
from clsgen_dist.evaluate.costs import CURVE_THRESHOLDS, expected_cost, net_benefit
from clsgen_dist.evaluate.metrics import checked
from clsgen_dist.evaluate.resampling import number_groups
from clsgen_dist.evaluate.selective import (
    answer_when_sure,
    aurc,
    aurc_interval,
    best_aurc,
    coverage_at_risk,
    risk_coverage,
)
from clsgen_dist.evaluate.shares import share_interval

FloatArray = npt.NDArray[np.float64]

#: Shares of wrong answers at which the coverage is read off.
MAX_RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)

#: Confidences from which on rows are answered.
MIN_CONFIDENCES = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def estimate_at_threshold(
    probability_N: npt.ArrayLike,
    positive_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    threshold: float,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """What a threshold that was chosen elsewhere does on these rows.

    The threshold stays as it is in every resample, so the intervals say how sure one is of this threshold on rows like
    these, not how a threshold would vary that is chosen anew.

    Args:
        probability_N: calibrated probability of the positive label, 0 to 1.
        positive_N: whether the row has the positive label.
        groups_N: group of each row; None makes each row a group of its own.
        threshold: rows with at least this probability are flagged.
        num_bootstrap: resamples behind the intervals.
        seed: seed of the resamples.

    Returns:
        threshold, num_rows, num_positive, num_flagged, precision (None where nothing is flagged), recall, f1,
        share_flagged, and precision_ci, recall_ci, f1_ci, share_flagged_ci: [low, high], 95 %, groups resampled (as
        `shares.share_interval` where a share is 0 or 1).

    Raises:
        ConfigError: the threshold is not a number.
        DataError, NumericsError: as `metrics.probability_metrics`; or fewer than two groups.
    """
    if not np.isfinite(threshold):
        raise ConfigError(f"threshold: found {threshold!r}, expected a number")
    probability_N = np.asarray(probability_N, dtype=np.float64)
    probabilities_NK, labels_N = checked(np.stack([1 - probability_N, probability_N], axis=1), positive_N)
    group_N = number_groups(groups_N, len(labels_N))
    true_N, flagged_N = labels_N == 1, probabilities_NK[:, 1] >= threshold
    found_N, either_N, every_N = true_N & flagged_N, true_N | flagged_N, np.ones(len(labels_N), dtype=bool)
    num_positive, num_flagged, num_found = (int(rows_N.sum()) for rows_N in (true_N, flagged_N, found_N))

    def interval(hit_N: npt.ArrayLike, counted_N: npt.ArrayLike, **options: Any) -> list[float] | None:
        return share_interval(hit_N, counted_N, group_N, num_bootstrap=num_bootstrap, seed=seed, **options)

    return {
        "threshold": float(threshold),
        "num_rows": len(labels_N),
        "num_positive": num_positive,
        "num_flagged": num_flagged,
        "precision": num_found / num_flagged if num_flagged else None,
        "precision_ci": interval(found_N, flagged_N),
        "recall": num_found / num_positive,
        "recall_ci": interval(found_N, true_N),
        "f1": 2 * num_found / (num_positive + num_flagged),
        "f1_ci": interval(found_N, either_N, transform=_f1_of_overlap),
        "share_flagged": num_flagged / len(labels_N),
        "share_flagged_ci": interval(flagged_N, every_N),
    }


def decision_metrics(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    *,
    threshold: float | None,
    cost_KK: npt.ArrayLike | None = None,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """What `metrics.json` says of decisions.

    Args:
        probabilities_NK: calibrated probability of each label; rows sum to 1.
        labels_N: number of the true label.
        groups_N: group of each row; None makes each row a group of its own.
        threshold: operating threshold of the last label of two; None where there is none.
        cost_KK: cost of deciding on the column's label where the row's label is the true one, or None.
        num_bootstrap: resamples behind each interval.
        seed: seed of the resamples.

    Returns:
        at_threshold: `estimate_at_threshold`; None without a threshold or with more than two labels.
        selective: aurc, aurc_ci, aurc_best (as many mistakes, all of them least sure), error_rate (which is the area
            of a confidence that says nothing), coverage_at_risk (for each of `MAX_RISKS`), when_sure (for each of
            `MIN_CONFIDENCES`).
        net_benefit: threshold, model, treat_all: lists over `costs.CURVE_THRESHOLDS`; None with more than two labels.
        expected_cost: `costs.ExpectedCost` as a dictionary; None without a cost matrix.

    Raises:
        ConfigError: a threshold or a cost matrix that cannot be.
        DataError, NumericsError: as `metrics.probability_metrics`; or fewer than two groups.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    options: dict[str, int] = {"num_bootstrap": num_bootstrap, "seed": seed}
    content: dict[str, Any] = {"at_threshold": None}
    if probabilities_NK.shape[1] == 2 and threshold is not None:
        content["at_threshold"] = estimate_at_threshold(
            probabilities_NK[:, 1], labels_N == 1, groups_N, threshold, **options
        )
    curve = risk_coverage(probabilities_NK, labels_N)
    at_risk = [(risk, *coverage_at_risk(curve, risk)) for risk in MAX_RISKS]
    content["selective"] = {
        "aurc": aurc(curve),
        "aurc_ci": aurc_interval(probabilities_NK, labels_N, groups_N, **options),
        "aurc_best": best_aurc(curve),
        "error_rate": float(curve.risk_D[-1]),
        "coverage_at_risk": [
            {"max_risk": risk, "coverage": coverage, "min_confidence": confidence}
            for risk, coverage, confidence in at_risk
        ],
        "when_sure": [
            answer_when_sure(probabilities_NK, labels_N, confidence, groups_N, **options)
            for confidence in MIN_CONFIDENCES
        ],
    }
    content["net_benefit"] = None
    if probabilities_NK.shape[1] == 2:
        benefit = net_benefit(probabilities_NK[:, 1], labels_N == 1, CURVE_THRESHOLDS)
        content["net_benefit"] = {
            "threshold": benefit.threshold_T.tolist(),
            "model": benefit.model_T.tolist(),
            "treat_all": benefit.treat_all_T.tolist(),
        }
    content["expected_cost"] = None if cost_KK is None else asdict(expected_cost(probabilities_NK, labels_N, cost_KK))
    return content


def _f1_of_overlap(overlap: FloatArray) -> FloatArray:
    """F1, of the share that is found among rows that are positive or flagged."""
    return 2 * overlap / (1 + overlap)
