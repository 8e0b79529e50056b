"""From logits of labelled rows to how a bundle decides: the calibrator first, then the operating threshold.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.prior import with_prior
from clsgen_dist.calibrate.scaling import IDENTITY, MIN_LABELLED_ROWS, Calibrator, fit_calibrator
from clsgen_dist.calibrate.selection import select_calibrator
from clsgen_dist.calibrate.thresholds import choose_threshold, threshold_interval
from clsgen_dist.config.sections import Calibrate
from clsgen_dist.errors import DataError
from clsgen_dist.records import UNLABELLED, Row, group_name
from clsgen_dist.sealed import Decision

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Rows to fit on.

    Attributes:
        logits_NK: head logits, nats.
        labels_N: number of the label; UNLABELLED where it is unknown.
        groups_N: name of each row's group; rows without one are groups of their own.
        sha256: over ids, labels and logits, to tell which rows a fit has seen.
    """

    logits_NK: FloatArray
    labels_N: IntArray
    groups_N: npt.NDArray[np.str_]
    sha256: str


def labelled(rows: Sequence[Row], logits: Sequence[Sequence[float]]) -> Labelled:
    """Puts rows and the logits of a model side by side."""
    logits_NK = np.array(logits, dtype=np.float64)
    labels_N = np.array([UNLABELLED if row.label is None else row.label for row in rows], dtype=np.int64)
    names = [group_name(row.id, row.group) for row in rows]
    digest = hashlib.sha256("\n".join(row.id for row in rows).encode())
    digest.update(labels_N.tobytes())
    digest.update(logits_NK.tobytes())
    return Labelled(logits_NK, labels_N, np.array(names, dtype=np.str_), digest.hexdigest())


def fit_decision(
    rows: Labelled, settings: Calibrate, labels: Sequence[str], *, num_bootstrap: int, seed: int
) -> tuple[Decision, list[str]]:
    """Fits a calibrator, and chooses a threshold on what it gives.

    Args:
        rows: rows that the model has not learned from.
        settings: which calibrator, for which prior, and what the threshold is chosen for.
        labels: names of the labels in the order of their numbers.
        num_bootstrap: resamples of groups behind the interval of the threshold.
        seed: seed of folds and resamples.

    Returns:
        How to decide, and warnings in plain English. Where no threshold can do what was asked for, that of the largest
        F1 stands in and a warning says so: a training that took days does not end without a bundle.

    Raises:
        DataError: see `fit_calibrator`.
    """
    calibrator, candidates, warnings = _calibrator(rows, settings, seed)
    facts: dict[str, Any] = {
        "num_rows": int((rows.labels_N != UNLABELLED).sum()),
        "rows_sha256": rows.sha256,
        "asked": settings.method,
        "candidates": candidates,
    }
    known_N = rows.labels_N != UNLABELLED
    weight_N = None
    if settings.prior is not None:
        prior_K = [settings.prior[name] for name in labels]
        calibrator = with_prior(calibrator, rows.labels_N, prior_K)
        assert calibrator.log_prior_shift is not None
        # The rows have the old shares; a threshold is for the new ones.
        weight_N = np.exp(np.array(calibrator.log_prior_shift))[rows.labels_N[known_N]]
        facts["prior"] = dict(settings.prior)
    if len(labels) != 2:
        return Decision(calibrator, None, facts | {"warnings": warnings}), warnings
    probability_N = calibrator.apply(rows.logits_NK)[known_N, -1]
    positive_N = rows.labels_N[known_N] == 1
    rule, value = settings.threshold, settings.threshold_value
    if rule != "cost" and len(positive_N) < MIN_LABELLED_ROWS:
        warnings.append(f"a threshold from {len(positive_N)} labelled rows is little more than chance")
    try:
        threshold = choose_threshold(probability_N, positive_N, rule=rule, value=value, weight_N=weight_N)
    except DataError as error:
        if rule == "best_f1":
            raise
        warnings.append(f"{error}. The threshold of the largest F1 stands in")
        rule, value = "best_f1", None
        threshold = choose_threshold(probability_N, positive_N, rule=rule, value=value, weight_N=weight_N)
    facts |= {"threshold_rule": rule, "threshold_value": value}
    if len(np.unique(rows.groups_N[known_N])) > 1:
        facts["threshold_ci"] = threshold_interval(
            probability_N,
            positive_N,
            rows.groups_N[known_N],
            rule=rule,
            value=value,
            num_bootstrap=num_bootstrap,
            seed=seed,
            weight_N=weight_N,
        )
    return Decision(calibrator, threshold, facts | {"warnings": warnings}), warnings


def _calibrator(rows: Labelled, settings: Calibrate, seed: int) -> tuple[Calibrator, list[dict[str, Any]], list[str]]:
    """The calibrator, what it was chosen from, and warnings."""
    if settings.method == "none":
        return IDENTITY, [], []
    known_N = rows.labels_N != UNLABELLED
    if settings.method == "auto" and len(np.unique(rows.groups_N[known_N])) > 1:
        selection = select_calibrator(
            rows.logits_NK,
            rows.labels_N,
            groups_N=rows.groups_N,
            max_temperature=settings.max_temperature,
            seed=seed,
        )
        return selection.calibrator, [asdict(c) for c in selection.candidates], list(selection.warnings)
    method = "temperature" if settings.method == "auto" else settings.method
    calibrator, warnings = fit_calibrator(
        rows.logits_NK, rows.labels_N, method=method, max_temperature=settings.max_temperature
    )
    if settings.method == "auto":
        warnings = [
            "all calibration rows are of one group, so calibrators cannot be compared; the temperature was taken",
            *warnings,
        ]
    return calibrator, [], warnings
