"""From predictions to the content of `metrics.json`.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.errors import NumericsError
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics, null_ece
from clsgen_dist.evaluate.columns import Columns, to_columns
from clsgen_dist.evaluate.confusion import count_confusions
from clsgen_dist.evaluate.decisions import decision_metrics
from clsgen_dist.evaluate.intervals import bootstrap_intervals
from clsgen_dist.evaluate.metrics import probability_metrics
from clsgen_dist.evaluate.parts import describe_parts
from clsgen_dist.evaluate.reading import Reading, Unavailable
from clsgen_dist.evaluate.selective import answer_when_sure
from clsgen_dist.evaluate.words import describe_words
from clsgen_dist.records import UNLABELLED, LanguageScores, Prediction, Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: How far a probability may lie on the wrong side of the threshold before the prediction counts as another model's.
DECISION_TOLERANCE = 1e-6


def evaluate(
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    *,
    labels: list[str],
    threshold: float | None,
    calibrated: bool,
    costs: Sequence[Sequence[float]] | None,
    sure_probability: float,
    num_bootstrap: int,
    num_bins: int,
    seed: int,
    read: Mapping[str, Reading | Unavailable] | None = None,
    scores: LanguageScores | None = None,
) -> dict[str, Any]:
    """The content of `metrics.json`.

    Raw probabilities decide by the largest one; calibrated ones as the predictions did, at the operating threshold.
    Rows without a label count in `num_rows` and in `explanation`, not in the metrics of probabilities.

    Args:
        threshold: operating threshold of the last label of two; None: the largest probability decides.
        calibrated: whether a calibrator was fitted.
        costs: cost of deciding on the column's label where the line's label is the true one, or None.
        sure_probability: largest probability from which an answer counts as sure.
        num_bootstrap, num_bins: resamples behind each interval (drawn with `seed`), bins of the calibration errors.
        read: by name of the reader, which label each explanation argues for, in the order of the predictions.
        scores: what the tuned model and its base say of explanations and general text, or None.

    Returns:
        num_rows, num_labelled_rows, num_groups, labels, is_calibrated, threshold; raw and calibrated: the numbers of
        `probability_metrics`, `calibration_metrics` and `null_ece` with their intervals; decisions: `decision_metrics`
        of the calibrated probabilities, answer_when_sure, and confusion: labelled rows by true label (line) and
        decision (column); subgroups: `describe_parts`; explanation and language: `describe_words`; and bayes where
        every row has a true probability (two labels only): what the generating probability itself scores, and the
        mean |p - true p| of the last label before and after calibration, on labelled rows.

    Raises:
        ConfigError: costs or sure_probability cannot be.
        DataError: predictions do not fit the rows, or metrics are undefined (no labels, one label, one group).
        NumericsError: a probability is not one, or a prediction does not follow from the threshold.
    """
    columns = to_columns(predictions, rows, labels)
    _check_decisions(columns, threshold)
    known_N = columns.label_N != UNLABELLED
    truth_N, group_N = columns.label_N[known_N], columns.group_N[known_N]
    resampling: dict[str, int] = {"num_bootstrap": num_bootstrap, "seed": seed}
    resample = partial(bootstrap_intervals, groups_N=group_N, num_bootstrap=num_bootstrap, num_bins=num_bins, seed=seed)

    def measure(probability_NK: FloatArray, predicted_N: IntArray) -> dict[str, Any]:
        return {
            **probability_metrics(probability_NK, truth_N, predicted_N, num_bins=num_bins),
            **null_ece(probability_NK, num_bins=num_bins, seed=seed),
            **calibration_metrics(probability_NK, truth_N, num_bins=num_bins),
            **resample(probability_NK, truth_N, predicted_N),
        }

    raw_NK, probability_NK = columns.raw_probability_NK[known_N], columns.probability_NK[known_N]
    answered = (probability_NK, truth_N)
    explanation, language = describe_words(predictions, rows, columns, read or {}, scores, **resampling)
    content: dict[str, Any] = {
        "num_rows": len(predictions),
        "num_labelled_rows": int(known_N.sum()),
        "num_groups": len(np.unique(group_N)),
        "labels": list(labels),
        "is_calibrated": calibrated,
        "threshold": threshold,
        "raw": measure(raw_NK, decide(raw_NK, None)),
        "calibrated": measure(probability_NK, columns.predicted_N[known_N]),
        "decisions": {
            **decision_metrics(*answered, group_N, threshold=threshold, cost_KK=costs, **resampling),
            "answer_when_sure": answer_when_sure(*answered, sure_probability, group_N, **resampling),
            "confusion": count_confusions(predictions, labels).num_rows_KK.tolist(),
        },
        "subgroups": describe_parts(columns, num_bins=num_bins, **resampling),
        "explanation": explanation,
        "language": language,
    }
    if columns.true_probability_N is not None and len(labels) == 2:
        content["bayes"] = _bayes(columns, columns.true_probability_N, known_N, num_bins)
    return content


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


def _bayes(columns: Columns, true_probability_N: FloatArray, known_N: BoolArray, num_bins: int) -> dict[str, float]:
    true_N = true_probability_N[known_N]
    true_NK = np.stack([1 - true_N, true_N], axis=1)
    best = probability_metrics(true_NK, columns.label_N[known_N], decide(true_NK, None), num_bins=num_bins)
    return {name: best[name] for name in ("auroc", "nll", "brier", "ece")} | {
        "mean_abs_error_raw": float(np.mean(np.abs(columns.raw_probability_NK[known_N, 1] - true_N))),
        "mean_abs_error_calibrated": float(np.mean(np.abs(columns.probability_NK[known_N, 1] - true_N))),
    }
