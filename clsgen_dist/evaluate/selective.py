"""Selective prediction: answer where the model is sure, and leave the rest to a person.

Shape legend: N rows, K labels, D distinct confidences, R resamples.

The answer is the label with the largest probability, and the confidence is that probability. Rows of equal confidence
are answered together or not at all: which of them comes first would be chance, and a curve that breaks ties shows
coverages that no rule can reach. Said probabilities hold few distinct values, so this is the rule and not a corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import ConfigError
from clsgen_dist.evaluate.metrics import checked, top_label
from clsgen_dist.evaluate.resampling import number_groups
from clsgen_dist.evaluate.shares import draw_groups, percentile_interval, share_interval

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Confidences that differ by less are the same: 0.7 said of one label or of the other, after some arithmetic.
TIE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class RiskCoverage:
    """What is answered, and how wrong it is, at every confidence that can be asked for.

    Attributes:
        confidence_D: distinct confidences, falling: answering the rows that are at least that sure.
        coverage_D: share of the rows that is answered, rising to 1.
        risk_D: share of wrong answers among the answered rows.
        num_rows: rows behind the curve.
    """

    confidence_D: FloatArray
    coverage_D: FloatArray
    risk_D: FloatArray
    num_rows: int


def risk_coverage(probabilities_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> RiskCoverage:
    """The risk-coverage curve, a step for each distinct confidence.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.

    Raises:
        DataError, NumericsError: as `metrics.probability_metrics`.

    Source: El-Yaniv and Wiener 2010 (JMLR 11), selective classification.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    confidence_N, right_N = top_label(probabilities_NK, labels_N)
    order_N, starts_D = _steps(confidence_N)
    ends_D = np.append(starts_D[1:], len(order_N))
    return RiskCoverage(
        # The least of its step, so that asking for at least that much answers all of it.
        confidence_D=confidence_N[order_N[ends_D - 1]],
        coverage_D=ends_D / len(order_N),
        risk_D=np.cumsum(~right_N[order_N])[ends_D - 1] / ends_D,
        num_rows=len(order_N),
    )


def aurc(curve: RiskCoverage) -> float:
    """Area under the risk-coverage curve, 0 to 1; lower is better.

    Each row counts with the risk of the first step that answers it: without ties that is the usual mean of the risks
    at 1, 2, ... N answered rows, and where all confidences are equal it is the share of wrong answers.

    Source: Geifman et al. 2019 (arXiv 1805.08206), section 2.
    """
    return float(np.sum(np.diff(curve.coverage_D, prepend=0.0) * curve.risk_D))


def best_aurc(curve: RiskCoverage) -> float:
    """The area of a curve with as many wrong answers, all of them less confident than every right one."""
    num_right = curve.num_rows - round(float(curve.risk_D[-1]) * curve.num_rows)
    answered_N = np.arange(1, curve.num_rows + 1)
    return float(np.mean(np.maximum(answered_N - num_right, 0) / answered_N))


def coverage_at_risk(curve: RiskCoverage, max_risk: float) -> tuple[float, float | None]:
    """The largest coverage at which at most this share of answers is wrong.

    Risk need not rise with coverage, so a step may lie beyond others that are riskier. A confidence that is read off
    here is chosen on these rows: judge it on others.

    Args:
        curve: a risk-coverage curve.
        max_risk: share of wrong answers, 0 to 1.

    Returns:
        Coverage, and the confidence to ask for; 0 and None where no coverage is that safe.

    Raises:
        ConfigError: max_risk is not a number from 0 to 1.
    """
    if not 0 <= max_risk <= 1:
        raise ConfigError(f"risk: found {max_risk!r}, expected a share of wrong answers from 0 to 1")
    safe_D = np.flatnonzero(curve.risk_D <= max_risk + 1e-12)  # 1 of 20 is 0.05, whatever its last digit
    if not len(safe_D):
        return 0.0, None
    return float(curve.coverage_D[safe_D[-1]]), float(curve.confidence_D[safe_D[-1]])


def answer_when_sure(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    min_confidence: float,
    groups_N: npt.ArrayLike | None = None,
    *,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """What becomes of answering only where the largest probability is at least this.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.
        min_confidence: smallest probability of an answer, 0 to 1.
        groups_N: group of each row; None makes each row a group of its own.
        num_bootstrap: resamples behind the intervals.
        seed: seed of the resamples.

    Returns:
        min_confidence, num_answered, share_answered (of all rows), accuracy (of the answered rows; None without any),
        and share_answered_ci, accuracy_ci: [low, high], 95 %, groups resampled.

    Raises:
        ConfigError: min_confidence is not a number from 0 to 1.
        DataError, NumericsError: as `metrics.probability_metrics`; or fewer than two groups.
    """
    if not 0 <= min_confidence <= 1:
        raise ConfigError(f"confidence: found {min_confidence!r}, expected a probability from 0 to 1")
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    group_N = number_groups(groups_N, len(labels_N))
    confidence_N, right_N = top_label(probabilities_NK, labels_N)
    sure_N = confidence_N >= min_confidence - TIE_TOLERANCE
    num_sure, every_N = int(sure_N.sum()), np.ones(len(labels_N), dtype=bool)
    return {
        "min_confidence": float(min_confidence),
        "num_answered": num_sure,
        "share_answered": num_sure / len(labels_N),
        "share_answered_ci": share_interval(sure_N, every_N, group_N, num_bootstrap=num_bootstrap, seed=seed),
        "accuracy": float(np.mean(right_N[sure_N])) if num_sure else None,
        "accuracy_ci": share_interval(sure_N & right_N, sure_N, group_N, num_bootstrap=num_bootstrap, seed=seed),
    }


def aurc_interval(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    *,
    num_bootstrap: int,
    seed: int,
) -> list[float] | None:
    """95 % interval of the area under the risk-coverage curve, groups resampled.

    Returns:
        [low, high]; None where all answers are right, or all wrong, which resampling cannot vary.

    Raises:
        DataError, NumericsError: as `metrics.probability_metrics`; or fewer than two groups.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    group_N = number_groups(groups_N, len(labels_N))
    confidence_N, right_N = top_label(probabilities_NK, labels_N)
    if right_N.all() or not right_N.any():
        return None
    order_N, starts_D = _steps(confidence_N)
    sorted_wrong_N, samples = ~right_N[order_N], []
    for times_RG in draw_groups(group_N, num_bootstrap=num_bootstrap, seed=seed):
        weight_RN = times_RG[:, group_N[order_N]]
        rows_RD = np.add.reduceat(weight_RN, starts_D, axis=1)
        wrong_RD = np.add.reduceat(weight_RN * sorted_wrong_N, starts_D, axis=1)
        answered_RD = np.cumsum(rows_RD, axis=1)
        # Steps before the first drawn row answer nothing and weigh nothing.
        risk_RD = np.cumsum(wrong_RD, axis=1) / np.maximum(answered_RD, 1)
        samples.append((rows_RD * risk_RD).sum(axis=1) / answered_RD[:, -1])
    return percentile_interval(np.concatenate(samples))


def _steps(confidence_N: FloatArray) -> tuple[IntArray, IntArray]:
    """Rows by falling confidence, and where in that order each distinct confidence starts."""
    order_N = np.argsort(-confidence_N, kind="stable")
    falls_N = -np.diff(confidence_N[order_N], prepend=math.inf)
    return order_N, np.flatnonzero(falls_N > TIE_TOLERANCE)
