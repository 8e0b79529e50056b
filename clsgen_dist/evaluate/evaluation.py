"""From predictions to the content of `metrics.json`.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.errors import DataError, NumericsError
from clsgen_dist.evaluate.explanations import alignment
from clsgen_dist.evaluate.intervals import bootstrap_intervals
from clsgen_dist.evaluate.metrics import probability_metrics
from clsgen_dist.records import UNLABELLED, Prediction, Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: How far a probability may lie on the wrong side of the threshold before the prediction counts as another model's.
DECISION_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Columns:
    """Predictions and their rows as arrays, in the order of the predictions.

    Attributes:
        label_N: number of the true label; -1 where it is unknown.
        probability_NK: calibrated probability of each label.
        raw_probability_NK: the same before calibration.
        predicted_N: number of the predicted label.
        explained_N: whether an explanation was asked for.
        verdict_N: number of the label that the free explanation argues for; -1 where that is unclear.
        group_N: number of the row's group.
        true_probability_N: generating probability of the last label, or None where a row lacks it.
    """

    label_N: IntArray
    probability_NK: FloatArray
    raw_probability_NK: FloatArray
    predicted_N: IntArray
    explained_N: BoolArray
    verdict_N: IntArray
    group_N: IntArray
    true_probability_N: FloatArray | None


def to_columns(predictions: Sequence[Prediction], rows: Sequence[Row], labels: Sequence[str]) -> Columns:
    """Put predictions and rows of one split side by side, matched by id.

    Raises:
        DataError: no predictions; the two do not hold the same ids once each; a label name is unknown; labels differ.
    """
    if not predictions:
        raise DataError("evaluation: found no predictions, expected one a row")
    row_of = {row.id: row for row in rows}
    ids = [prediction.id for prediction in predictions]
    if len(row_of) != len(rows) or len(set(ids)) != len(ids) or set(ids) != set(row_of):
        strangers = sorted(set(ids) ^ set(row_of))[:3]
        raise DataError(
            f"evaluation: found {len(ids)} predictions for {len(rows)} rows, expected one for each id, each id once"
            + (f"; without a partner: {', '.join(strangers)}" if strangers else "")
        )
    number_of = {name: number for number, name in enumerate(labels)}
    rows = [row_of[id] for id in ids]
    for prediction, row in zip(predictions, rows, strict=True):
        single = {prediction.predicted, prediction.label, prediction.free_verdict} - {None}
        for names in (set(prediction.probability), set(prediction.raw_probability), single | set(labels)):
            if names != set(labels):
                raise DataError(
                    f"evaluation: the prediction of row {row.id} names {sorted(map(str, names))}, expected exactly "
                    f"{sorted(labels)}; see task.labels"
                )
        if row.label != (None if prediction.label is None else number_of[prediction.label]):
            raise DataError(
                f"evaluation: row {row.id} has label number {row.label}, its prediction {prediction.label!r}"
            )
    truths = [row.true_probability for row in rows if row.true_probability is not None]
    group_of: dict[tuple[str, str], int] = {}
    groups = [
        group_of.setdefault(("row", r.id) if r.group is None else ("group", r.group), len(group_of)) for r in rows
    ]
    return Columns(
        label_N=np.array([UNLABELLED if row.label is None else row.label for row in rows], dtype=np.int64),
        probability_NK=np.array([[p.probability[name] for name in labels] for p in predictions], dtype=np.float64),
        raw_probability_NK=np.array(
            [[p.raw_probability[name] for name in labels] for p in predictions], dtype=np.float64
        ),
        predicted_N=np.array([number_of[p.predicted] for p in predictions], dtype=np.int64),
        explained_N=np.array(
            [p.explanation is not None or p.free_verdict is not None for p in predictions], dtype=bool
        ),
        verdict_N=np.array(
            [UNLABELLED if p.free_verdict is None else number_of[p.free_verdict] for p in predictions], dtype=np.int64
        ),
        group_N=np.array(groups, dtype=np.int64),
        true_probability_N=np.array(truths, dtype=np.float64) if len(truths) == len(rows) else None,
    )


def evaluate(
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    *,
    labels: list[str],
    threshold: float | None,
    calibrated: bool,
    language: dict[str, float],
    num_bootstrap: int,
    num_bins: int,
    seed: int,
) -> dict[str, Any]:
    """The content of `metrics.json`.

    Raw probabilities decide by the largest one; calibrated ones as the predictions did, at the operating threshold.
    Rows without a label count in `num_rows` and in `explanation`, not in the metrics of probabilities.

    Args:
        threshold: operating threshold of the last label of two; None: the largest probability decides.
        calibrated: whether a calibrator was fitted.
        language: metrics of the generated language, taken over as they are.
        num_bootstrap, num_bins: resamples behind each interval (drawn with `seed`), bins of the calibration errors.

    Returns:
        num_rows, num_labelled_rows, num_groups, labels, is_calibrated, threshold, raw, calibrated, explanation,
        language; and bayes where every row has a true probability (two labels only): what the generating probability
        itself scores, and the mean |p - true p| of the last label before and after calibration, on labelled rows.

    Raises:
        DataError: predictions do not fit the rows, or metrics are undefined (no labels, one label, one group).
        NumericsError: a probability is not one, a prediction does not follow from the threshold, or a metric of the
            language is NaN or infinite.
    """
    columns = to_columns(predictions, rows, labels)
    _check_decisions(columns, threshold)
    _check_finite(language)
    known_N = columns.label_N != UNLABELLED
    truth_N, group_N = columns.label_N[known_N], columns.group_N[known_N]
    resample = partial(bootstrap_intervals, groups_N=group_N, num_bootstrap=num_bootstrap, num_bins=num_bins, seed=seed)

    def measure(probability_NK: FloatArray, predicted_N: IntArray) -> dict[str, Any]:
        metrics = probability_metrics(probability_NK, truth_N, predicted_N, num_bins=num_bins)
        return {**metrics, **resample(probability_NK, truth_N, predicted_N)}

    raw_NK = columns.raw_probability_NK[known_N]
    content: dict[str, Any] = {
        "num_rows": len(predictions),
        "num_labelled_rows": int(known_N.sum()),
        "num_groups": len(np.unique(group_N)),
        "labels": list(labels),
        "is_calibrated": calibrated,
        "threshold": threshold,
        "raw": measure(raw_NK, decide(raw_NK, None)),
        "calibrated": measure(columns.probability_NK[known_N], columns.predicted_N[known_N]),
        "explanation": _alignment(columns),
        "language": dict(language),
    }
    if columns.true_probability_N is not None and len(labels) == 2:
        content["bayes"] = _bayes(columns, columns.true_probability_N, known_N, num_bins)
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in one move, so that a reader meets the whole file or none.

    Raises:
        NumericsError: a number is NaN or infinite, which JSON cannot say.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NumericsError(
            f"{path}: found a number that is NaN or infinite, expected finite ones ({error})"
        ) from error
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_decisions(columns: Columns, threshold: float | None) -> None:
    """Refuse predictions that were decided at another threshold than the one that is reported."""
    expected_N = decide(columns.probability_NK, threshold)
    at = np.arange(len(expected_N))
    if threshold is not None and columns.probability_NK.shape[1] == 2:
        margin_N = np.abs(columns.probability_NK[:, 1] - threshold)
    else:
        margin_N = columns.probability_NK[at, expected_N] - columns.probability_NK[at, columns.predicted_N]
    num_wrong = int(((expected_N != columns.predicted_N) & (margin_N > DECISION_TOLERANCE)).sum())
    if num_wrong:
        raise NumericsError(
            f"evaluation: {num_wrong} of {len(expected_N)} predictions do not follow from their probabilities and the "
            f"threshold {threshold}; predict again with the bundle that holds this threshold"
        )


def _check_finite(language: dict[str, float]) -> None:
    for name, value in language.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NumericsError(f"evaluation: language.{name} is {value}, expected a finite number")


def _alignment(columns: Columns) -> dict[str, float | int | None]:
    asked_N = columns.explained_N
    return alignment(columns.verdict_N[asked_N], columns.predicted_N[asked_N], columns.probability_NK[asked_N])


def _bayes(columns: Columns, true_probability_N: FloatArray, known_N: BoolArray, num_bins: int) -> dict[str, float]:
    true_N = true_probability_N[known_N]
    true_NK = np.stack([1 - true_N, true_N], axis=1)
    best = probability_metrics(true_NK, columns.label_N[known_N], decide(true_NK, None), num_bins=num_bins)
    return {name: best[name] for name in ("auroc", "nll", "brier", "ece")} | {
        "mean_abs_error_raw": float(np.mean(np.abs(columns.raw_probability_NK[known_N, 1] - true_N))),
        "mean_abs_error_calibrated": float(np.mean(np.abs(columns.probability_NK[known_N, 1] - true_N))),
    }
