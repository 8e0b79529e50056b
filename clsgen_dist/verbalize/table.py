"""The numbers of the study's tables: every metric of a method, precision and recall by threshold, the floor's effect.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics, null_ece
from clsgen_dist.evaluate.intervals import bootstrap_intervals
from clsgen_dist.evaluate.metrics import negative_log_likelihood, probability_metrics
from clsgen_dist.verbalize.methods import SAID, Evidence, Method, Settings, fit_method

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Thresholds of the table of precision and recall; the picture has every one that occurs.
THRESHOLDS = tuple(step / 20 for step in range(1, 20))

#: Floors at which the temperature is fitted again, beside halves and doubles of the one in use.
FLOORS = (1e-12, 1e-6, 1e-3)


def measure(
    probability_NK: FloatArray,
    labels_N: IntArray,
    groups_N: npt.NDArray[Any],
    *,
    num_bins: int,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Every metric of one method on labelled rows; the label with the largest probability is the one decided on.

    Returns:
        num_rows, and what `probability_metrics`, `calibration_metrics`, `null_ece` and `bootstrap_intervals` give.

    Raises:
        DataError: no rows, rows of one label only, or of one group.
        NumericsError: a row holds no probabilities.
    """
    predicted_N = decide(probability_NK, None)
    return {
        "num_rows": len(labels_N),
        **probability_metrics(probability_NK, labels_N, predicted_N, num_bins=num_bins),
        **calibration_metrics(probability_NK, labels_N, num_bins=num_bins),
        **null_ece(probability_NK, num_bins=num_bins, seed=seed),
        **bootstrap_intervals(
            probability_NK,
            labels_N,
            predicted_N,
            groups_N,
            num_bootstrap=num_bootstrap,
            num_bins=num_bins,
            seed=seed,
        ),
    }


def flags(probability_NK: FloatArray, labels_N: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """What a threshold flags, and whether that is right.

    Returns:
        Of two labels the last one's probability of each row; of more, each label's of each row, one after another, so
        that precision and recall are pooled over labels (micro).
    """
    num_labels = probability_NK.shape[1]
    if num_labels == 2:
        return probability_NK[:, 1], labels_N == 1
    return probability_NK.ravel(), np.eye(num_labels, dtype=bool)[labels_N].ravel()


def tabulate_thresholds(
    probability_NK: FloatArray, labels_N: IntArray, thresholds: Sequence[float] = THRESHOLDS
) -> list[dict[str, float | None]]:
    """Precision and recall of flagging what has at least a probability, at each threshold.

    Returns:
        threshold, precision (None where nothing is flagged), recall, share_flagged: of rows; for more than two labels
        of pairs of row and label.
    """
    probability_M, right_M = flags(probability_NK, labels_N)
    lines: list[dict[str, float | None]] = []
    for threshold in thresholds:
        flagged_M = probability_M >= threshold
        num_found, num_flagged = int((flagged_M & right_M).sum()), int(flagged_M.sum())
        lines.append(
            {
                "threshold": threshold,
                "precision": num_found / num_flagged if num_flagged else None,
                "recall": num_found / int(right_M.sum()),
                "share_flagged": num_flagged / len(flagged_M),
            }
        )
    return lines


def tabulate_floors(fit: Evidence, test: Evidence, settings: Settings) -> list[dict[str, Any]]:
    """The temperature and its likelihood at other floors: a floor is a hidden setting of what is fitted.

    Args:
        fit: rows to fit on.
        test: rows to measure on; those without a label or an answer are left out.
        settings: of the study; its floor is one line of the table.

    Returns:
        floor, is_used, temperature, nll_fit, nll_test (None without rows): nats a row; rising floors.
    """
    method = Method("invert_softmax_temperature", SAID, "temperature")
    largest = 0.5 / fit.sources[SAID].shape[1]
    others = (*FLOORS, settings.floor / 2, 2 * settings.floor)
    floors = {settings.floor, *(min(floor, largest) for floor in others)} - {0.0}
    lines = []
    for floor in sorted(floors):
        fitted = fit_method(method, fit, replace(settings, floor=floor))
        losses = []
        for rows in (fit, test):
            own = rows.take(rows.usable_N(SAID))
            loss_N = negative_log_likelihood(fitted.predict(own), own.labels_N)
            losses.append(float(loss_N.mean()) if len(loss_N) else None)
        lines.append(
            {
                "floor": floor,
                "is_used": floor == settings.floor,
                "temperature": fitted.temperature,
                "nll_fit": losses[0],
                "nll_test": losses[1],
            }
        )
    return lines
