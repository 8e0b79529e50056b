"""Whether explanations argue for what the head decides.

Shape legend: N explained rows, K labels, G groups, R resamples.

Measured on explanations that the model wrote when it was left alone, and on those that follow the head's decision. Of
the latter the verdict agrees with the head by construction, and says nothing; other readers look at the words.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score

from clsgen_dist.evaluate.metrics import auroc, judged
from clsgen_dist.evaluate.shares import TAIL, draw_groups, percentile_interval
from clsgen_dist.evaluate.tallies import area_under_roc, sort_rows
from clsgen_dist.records import UNLABELLED

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Bins of confidence between 0 and 1, of equal width; those that no largest probability can fall into are left out.
NUM_CONFIDENCE_BINS = 10

#: How far below a bin's lower edge a confidence still counts as in it: 0.9 said, after some arithmetic.
EDGE_TOLERANCE = 1e-9

#: Share of resamples without a number above which there is no interval: 95 % of the others would not be 95 %.
MAX_UNDEFINED = 0.05


def alignment(
    verdict_N: npt.ArrayLike, predicted_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike
) -> dict[str, float | int | None]:
    """Agreement of what explanations argue for with the head.

    Args:
        verdict_N: number of the label that the explanation argues for; -1 where that is unclear.
        predicted_N: number of the label that the head predicts, at its operating threshold.
        probabilities_NK: the head's probability of each label.

    Returns:
        kappa: Cohen's kappa of verdict and prediction, on rows with a verdict, -1 to 1; None where it is undefined: no
            such rows, or both always say the same single label.
        auroc_alignment: AUROC with the verdict as truth and the head's probability as score (of the last label where
            K = 2, else the mean of one against the rest); None where all verdicts are the same.
        coverage: share of explained rows with a verdict; 0 where there are none.
        unparsed: explained rows without a verdict.
        agreement: share of rows with a verdict where it is the prediction; None without such rows.
        contradiction_rate: share of rows with a verdict where it is not; None without such rows.
        num_rows: explained rows.

    Source: arXiv 2604.11801 reports both agreements; its definition of AUROC-Alignment could not be read, and the one
    above is our reading.
    """
    verdict_N, predicted_N, probabilities_NK = _checked(verdict_N, predicted_N, probabilities_NK)
    num_rows = len(verdict_N)
    parsed_N = verdict_N != UNLABELLED
    num_parsed = int(parsed_N.sum())
    said_N, head_N = verdict_N[parsed_N], predicted_N[parsed_N]
    # Chance agreement is 1 where one label is all that either says: 0 / 0.
    kappa_defined = len(np.union1d(said_N, head_N)) > 1
    auroc_defined = len(np.unique(said_N)) > 1
    return {
        "kappa": float(cohen_kappa_score(said_N, head_N)) if kappa_defined else None,
        "auroc_alignment": auroc(probabilities_NK[parsed_N], said_N) if auroc_defined else None,
        "coverage": num_parsed / num_rows if num_rows else 0.0,
        "unparsed": num_rows - num_parsed,
        "agreement": float(np.mean(said_N == head_N)) if num_parsed else None,
        "contradiction_rate": float(np.mean(said_N != head_N)) if num_parsed else None,
        "num_rows": num_rows,
    }


def contradictions_by_confidence(
    verdict_N: npt.ArrayLike, predicted_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike
) -> list[dict[str, float | int | None]]:
    """How often explanations argue against the prediction where the head is unsure, and where it is sure.

    Args:
        verdict_N, predicted_N, probabilities_NK: as `alignment`.

    Returns:
        A bin of the head's largest probability each, from the lowest that K labels allow to 1: low (in the bin), high
        (in it only where it is 1), num_rows (with a verdict), contradiction_rate (None without such rows).
    """
    verdict_N, predicted_N, probabilities_NK = _checked(verdict_N, predicted_N, probabilities_NK)
    num_bins, parsed_N = NUM_CONFIDENCE_BINS, verdict_N != UNLABELLED
    confidence_N = probabilities_NK.max(axis=1, initial=0.0)
    bin_N = np.clip(np.floor((confidence_N + EDGE_TOLERANCE) * num_bins), 0, num_bins - 1)
    first = math.floor(num_bins / probabilities_NK.shape[1])
    found: list[dict[str, float | int | None]] = []
    for number in range(first, num_bins):
        inside_N = parsed_N & (bin_N == number)
        against = int((verdict_N[inside_N] != predicted_N[inside_N]).sum())
        num_rows = int(inside_N.sum())
        found.append(
            {
                "low": number / num_bins,
                "high": (number + 1) / num_bins,
                "num_rows": num_rows,
                "contradiction_rate": against / num_rows if num_rows else None,
            }
        )
    return found


def alignment_intervals(
    verdict_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    probabilities_NK: npt.ArrayLike,
    groups_N: npt.ArrayLike,
    *,
    num_bootstrap: int,
    seed: int,
) -> dict[str, list[float] | None]:
    """95 % percentile intervals of kappa and AUROC-alignment, by resampled groups.

    Rows without a verdict are drawn along, so that the number of those with one varies as it would.

    Args:
        verdict_N, predicted_N, probabilities_NK: as `alignment`.
        groups_N: number or name of each row's group.
        num_bootstrap: resamples.
        seed: seed of the resamples.

    Returns:
        kappa_ci, auroc_alignment_ci: [low, high]. None where the number itself is undefined, where there is one group
        alone, or where more than one in twenty resamples has no such number (one label said, say): what the others
        give would be too narrow. Fewer such resamples are left out. Where every verdict is the prediction, no resample
        differs from the next; the lower bound of kappa is then that at the agreement which Clopper and Pearson's
        bound gives for as many independent rows as there are groups with a verdict, and at the chance agreement found.
    """
    verdict_N, predicted_N, probabilities_NK = _checked(verdict_N, predicted_N, probabilities_NK)
    parsed_N = verdict_N != UNLABELLED
    group_N = np.unique(np.asarray(groups_N), return_inverse=True)[1].astype(np.int64)
    none: dict[str, list[float] | None] = {"kappa_ci": None, "auroc_alignment_ci": None}
    if not parsed_N.any() or group_N.max() < 1:
        return none
    num_labels = probabilities_NK.shape[1]
    agrees_N = verdict_N == predicted_N
    said_GK, head_GK = (_counts(label_N, parsed_N, group_N, num_labels) for label_N in (verdict_N, predicted_N))
    agreed_G = np.bincount(group_N, weights=agrees_N & parsed_N)
    sorted_by_label = [
        sort_rows(probabilities_NK[parsed_N, label], verdict_N[parsed_N] == label) for label in judged(num_labels)
    ]
    kappas, areas = [], []
    for times_RG in draw_groups(group_N, num_bootstrap=num_bootstrap, seed=seed):
        kappas.append(_kappa(times_RG @ agreed_G, times_RG @ said_GK, times_RG @ head_GK))
        weight_RN = times_RG[:, group_N[parsed_N]]
        areas.append(_mean_defined(np.stack([area_under_roc(rows.tally(weight_RN)) for rows in sorted_by_label])))
    kappa_ci, auroc_ci = _interval(np.concatenate(kappas)), _interval(np.concatenate(areas))
    if kappa_ci is not None and agrees_N[parsed_N].all():
        num_groups, total = int((said_GK.sum(axis=1) > 0).sum()), float(parsed_N.sum())
        least = TAIL ** (1 / num_groups)
        by_chance = float((said_GK.sum(axis=0) * head_GK.sum(axis=0)).sum()) / total**2
        kappa_ci = [max(-1.0, (least - by_chance) / (1 - by_chance)), 1.0]
    one_verdict = len(np.unique(verdict_N[parsed_N])) == 1
    return {"kappa_ci": kappa_ci, "auroc_alignment_ci": None if one_verdict else auroc_ci}


def describe_alignment(
    verdict_N: npt.ArrayLike,
    predicted_N: npt.ArrayLike,
    probabilities_NK: npt.ArrayLike,
    groups_N: npt.ArrayLike,
    *,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """All of `alignment` and `alignment_intervals`, and by_confidence: `contradictions_by_confidence`."""
    read = (verdict_N, predicted_N, probabilities_NK)
    return {
        **alignment(*read),
        **alignment_intervals(*read, groups_N, num_bootstrap=num_bootstrap, seed=seed),
        "by_confidence": contradictions_by_confidence(*read),
    }


def _checked(
    verdict_N: npt.ArrayLike, predicted_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike
) -> tuple[IntArray, IntArray, FloatArray]:
    verdict_N = np.asarray(verdict_N, dtype=np.int64)
    predicted_N = np.asarray(predicted_N, dtype=np.int64)
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    assert verdict_N.shape == predicted_N.shape == probabilities_NK.shape[:1]
    return verdict_N, predicted_N, probabilities_NK


def _counts(label_N: IntArray, counted_N: npt.NDArray[np.bool_], group_N: IntArray, num_labels: int) -> FloatArray:
    """How often each label stands in each group."""
    counts_GK = np.zeros((int(group_N.max()) + 1, num_labels))
    np.add.at(counts_GK, (group_N[counted_N], label_N[counted_N]), 1.0)
    return counts_GK


def _kappa(agreed_R: FloatArray, said_RK: FloatArray, head_RK: FloatArray) -> FloatArray:
    """Cohen's kappa from counts; NaN where nothing is said, or one label is all that either says."""
    total_R = said_RK.sum(axis=1)
    by_chance_R = (said_RK * head_RK).sum(axis=1) / np.maximum(total_R, 1) ** 2
    # Whole counts, so that no rounding makes a small number of 0.
    defined_R = (total_R > 0) & ((said_RK * head_RK).sum(axis=1) < total_R**2)
    agreement_R = agreed_R / np.maximum(total_R, 1)
    return np.where(defined_R, (agreement_R - by_chance_R) / np.where(defined_R, 1 - by_chance_R, 1.0), np.nan)


def _mean_defined(area_KR: FloatArray) -> FloatArray:
    """Mean over the labels where there is a number; NaN where there is none for any of them."""
    defined_KR = ~np.isnan(area_KR)
    num_defined_R = defined_KR.sum(axis=0)
    total_R = np.where(defined_KR, area_KR, 0.0).sum(axis=0)
    return np.where(num_defined_R > 0, total_R / np.maximum(num_defined_R, 1), np.nan)


def _interval(value_R: FloatArray) -> list[float] | None:
    if np.isnan(value_R).mean() > MAX_UNDEFINED:
        return None
    return percentile_interval(value_R)
