"""Calibration of parts of the rows: by a column, by a trait of the text, by region of confidence.

Shape legend: N rows, K labels, G groups, R resamples, B bins, D distinct probabilities.

One temperature for all can leave one clinic's probabilities too high and another's too low. Small parts look badly
calibrated by chance alone, so each calibration error stands beside that of a perfectly calibrated model on as many
rows; and of twenty parts, one lies outside its 95 % by chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.evaluate.calibration_line import calibration_in_the_large
from clsgen_dist.evaluate.calibration_metrics import null_ece
from clsgen_dist.evaluate.metrics import bin_numbers, calibration_error, checked, top_label
from clsgen_dist.evaluate.resampling import number_groups
from clsgen_dist.evaluate.shares import draw_groups, percentile_interval
from clsgen_dist.evaluate.tallies import SortedRows, Tally, sort_rows

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Event = Literal["last_label", "top_label"]

#: Rows below which a part is put together with the other small ones.
MIN_ROWS = 50


@dataclass(frozen=True)
class Subgroup:
    """How well an event's probability fits on a part of the rows.

    Attributes:
        name: value of the column, or "(fewer than N rows)".
        num_rows: rows.
        num_groups: groups among them (patients, trials), which the intervals rest on.
        mean_probability: mean probability of the event.
        share_positive: share of rows where it happened.
        ece: calibration error, bins of equal width.
        ece_ci: 95 %; leans upwards, as `bootstrap_intervals` says. None where all rows are of one group.
        ece_null: mean calibration error of a perfectly calibrated model with these probabilities.
        ece_null_ci: the middle 95 % of it; an `ece` inside is no sign of miscalibration.
        intercept: what has to be added to all log-odds so that their mean probability is `share_positive`; above 0
            the probabilities are too low. None where the event happened always or never.
        intercept_ci: 95 %; None where all rows are of one group, or so few differ that it has no bound.
        auroc: how well the probability ranks the event; None where it happened always or never.
    """

    name: str
    num_rows: int
    num_groups: int
    mean_probability: float
    share_positive: float
    ece: float
    ece_ci: list[float] | None
    ece_null: float
    ece_null_ci: list[float]
    intercept: float | None
    intercept_ci: list[float] | None
    auroc: float | None


def subgroup_calibration(
    probabilities_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    subgroup_N: Sequence[str],
    groups_N: npt.ArrayLike | None,
    *,
    num_bins: int,
    num_bootstrap: int,
    seed: int,
    min_rows: int = MIN_ROWS,
    event: Event | None = None,
) -> list[Subgroup]:
    """Calibration of each part of the rows.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        labels_N: number of the true label.
        subgroup_N: name of each row's part.
        groups_N: group of each row, resampled within each part; None makes each row a group of its own.
        num_bins: bins of equal width of the calibration error.
        num_bootstrap: resamples behind each interval.
        seed: seed of resamples and draws; those of a part do not depend on which others there are.
        min_rows: parts with fewer rows are put together.
        event: what the probability is of. "last_label": the last label is the true one. "top_label": the one with the
            largest probability is; right for regions of confidence, where both ends of the last label's would cancel
            out. None: the last label of two, the top label of more.

    Returns:
        Parts, that with the most rows first; the small ones last, together.

    Raises:
        ConfigError: an event of another name, or min_rows below 1.
        DataError: not one part a row, or as `metrics.probability_metrics`.
        NumericsError: as `metrics.probability_metrics`.
    """
    probabilities_NK, labels_N = checked(probabilities_NK, labels_N)
    num_rows = len(labels_N)
    if event not in (None, "last_label", "top_label"):
        raise ConfigError(f"subgroups: found the event {event!r}, expected last_label or top_label")
    if min_rows < 1:
        raise ConfigError(f"subgroups: found min_rows {min_rows}, expected 1 or more")
    if len(subgroup_N) != num_rows or not all(isinstance(name, str) for name in subgroup_N):
        raise DataError(
            f"subgroups: expected a name for each of the {num_rows} labelled rows, found {len(subgroup_N)} values"
            " that are not all text; see the column that subgroups are taken from"
        )
    group_N = np.arange(num_rows) if groups_N is None else np.asarray(groups_N)
    if group_N.shape != (num_rows,):
        raise DataError(f"subgroups: found groups of shape {group_N.shape} for {num_rows} rows, expected one a row")
    if event == "last_label" or (event is None and probabilities_NK.shape[1] == 2):
        probability_N, positive_N = probabilities_NK[:, -1], labels_N == probabilities_NK.shape[1] - 1
    else:
        probability_N, positive_N = top_label(probabilities_NK, labels_N)
    part_N = np.asarray(subgroup_N, dtype=object)
    rows_of = {
        name: np.flatnonzero(part_N == name)
        for name, count in sorted(Counter(subgroup_N).items(), key=lambda item: (-item[1], item[0]))
        if count >= min_rows
    }
    small_N = np.setdiff1d(np.arange(num_rows), np.concatenate([np.empty(0, dtype=int), *rows_of.values()]))
    if len(small_N):
        rows_of[f"(fewer than {min_rows} rows)"] = small_N
    return [
        _measure(name, probability_N[rows], positive_N[rows], group_N[rows], num_bins, num_bootstrap, seed)
        for name, rows in rows_of.items()
    ]


def _measure(
    name: str,
    probability_N: FloatArray,
    positive_N: BoolArray,
    groups_N: npt.NDArray[np.generic],
    num_bins: int,
    num_bootstrap: int,
    seed: int,
) -> Subgroup:
    num_groups = len(np.unique(groups_N))
    varies = bool(positive_N.any() and not positive_N.all())
    ece_ci, intercept_ci, intercept = None, None, None
    if varies:
        intercept = float(_intercepts(sort_rows(probability_N, positive_N), np.ones((1, len(positive_N))))[0])
    if num_groups > 1:
        group_N = number_groups(groups_N, len(positive_N))
        ece_ci, intercept_ci = _intervals(probability_N, positive_N, group_N, num_bins, num_bootstrap, seed)
    null: dict[str, Any] = null_ece(np.stack([1 - probability_N, probability_N], axis=1), num_bins=num_bins, seed=seed)
    return Subgroup(
        name=name,
        num_rows=len(positive_N),
        num_groups=num_groups,
        mean_probability=float(probability_N.mean()),
        share_positive=float(positive_N.mean()),
        ece=calibration_error(probability_N, positive_N, num_bins),
        ece_ci=ece_ci,
        ece_null=null["ece_null"],
        ece_null_ci=null["ece_null_ci"],
        intercept=intercept,
        intercept_ci=intercept_ci if varies else None,
        auroc=float(roc_auc_score(positive_N, probability_N)) if varies else None,
    )


def _intervals(
    probability_N: FloatArray, positive_N: BoolArray, group_N: IntArray, num_bins: int, num_bootstrap: int, seed: int
) -> tuple[list[float] | None, list[float] | None]:
    """Intervals of the calibration error and of the intercept, from the same resamples."""
    num_groups = int(group_N.max()) + 1
    excess_GB = np.zeros((num_groups, num_bins))
    np.add.at(excess_GB, (group_N, bin_numbers(probability_N, num_bins)), probability_N - positive_N)
    size_G, sorted_rows = np.bincount(group_N).astype(np.float64), sort_rows(probability_N, positive_N)
    errors, intercepts = [], []
    for times_RG in draw_groups(group_N, num_bootstrap=num_bootstrap, seed=seed):
        errors.append(np.abs(times_RG @ excess_GB).sum(axis=1) / (times_RG @ size_G))
        intercepts.append(_intercepts(sorted_rows, times_RG[:, group_N]))
    return percentile_interval(np.concatenate(errors)), percentile_interval(np.concatenate(intercepts))


def _intercepts(sorted_rows: SortedRows, weight_RN: FloatArray) -> FloatArray:
    """Calibration in the large by weight; infinite where a resample holds no event (minus), or nothing else (plus)."""
    tally = sorted_rows.tally(weight_RN)
    total_R, positive_R = tally.num_rows_RD.sum(axis=1), tally.num_positive_RD.sum(axis=1)
    intercept_R = np.where(positive_R > 0, np.inf, -np.inf)
    both_R = (positive_R > 0) & (positive_R < total_R)
    if both_R.any():
        solvable = Tally(tally.value_D, tally.num_rows_RD[both_R], tally.num_positive_RD[both_R])
        intercept_R[both_R] = calibration_in_the_large(solvable)
    return intercept_R
