"""Probabilities of rows that no bundle gave: completed, measured, and written as predictions are.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.config.run import RunConfig
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics, null_ece
from clsgen_dist.evaluate.intervals import bootstrap_intervals
from clsgen_dist.evaluate.metrics import probability_metrics
from clsgen_dist.records import Prediction, Row, group_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Forecast:
    """What is thought of the rows of a split.

    Attributes:
        rows: in their order.
        raw_NK: probabilities before calibration; a row of NaN where there are none.
        logits_NK: what a calibrator is fitted on and applied to, nats; NaN in the same rows.
    """

    rows: list[Row]
    raw_NK: FloatArray
    logits_NK: FloatArray

    @property
    def there_N(self) -> npt.NDArray[np.bool_]:
        """Rows that something is thought of."""
        return np.asarray(~np.isnan(self.logits_NK).any(axis=1), dtype=np.bool_)


def with_base_rate(
    forecast: Forecast, to_probability: Callable[[FloatArray], FloatArray], rate_K: FloatArray
) -> FloatArray:
    """Probabilities of all rows; the base rate in those that nothing is thought of."""
    there_N = forecast.there_N
    probability_NK = np.tile(rate_K, (len(there_N), 1))
    if there_N.any():
        probability_NK[there_N] = to_probability(forecast.logits_NK[there_N])
    return probability_NK


def as_predictions(
    forecast: Forecast, labels: Sequence[str], raw_NK: FloatArray, probability_NK: FloatArray, predicted_N: IntArray
) -> list[Prediction]:
    """The rows as predictions without explanations."""
    logits_NK = np.where(np.isnan(forecast.logits_NK), np.log(probability_NK), forecast.logits_NK)
    return [
        Prediction(
            id=row.id,
            label=None if row.label is None else labels[row.label],
            probability=dict(zip(labels, probability_NK[n].tolist(), strict=True)),
            raw_probability=dict(zip(labels, raw_NK[n].tolist(), strict=True)),
            predicted=labels[predicted_N[n]],
            explanation=None,
            free_verdict=None,
            free_explanation=None,
            is_cut=False,
            is_free_cut=False,
            logits=logits_NK[n].tolist(),
        )
        for n, row in enumerate(forecast.rows)
    ]


def measure(
    rows: Sequence[Row], probability_NK: FloatArray, predicted_N: IntArray, config: RunConfig
) -> dict[str, Any]:
    """The numbers of `raw` and of `calibrated` in metrics.json, on labelled rows.

    Raises:
        DataError: no labels, one label, one group.
    """
    known = [n for n, row in enumerate(rows) if row.label is not None]
    truth_N = np.array([rows[n].label for n in known], dtype=np.int64)
    groups_N = np.array([group_name(rows[n].id, rows[n].group) for n in known], dtype=np.str_)
    num_bins, seed = config.evaluate.num_bins, config.run.seed
    own_NK, said_N = probability_NK[known], predicted_N[known]
    return {
        **probability_metrics(own_NK, truth_N, said_N, num_bins=num_bins),
        **null_ece(own_NK, num_bins=num_bins, seed=seed),
        **calibration_metrics(own_NK, truth_N, num_bins=num_bins),
        **bootstrap_intervals(
            own_NK,
            truth_N,
            said_N,
            groups_N,
            num_bootstrap=config.evaluate.num_bootstrap,
            num_bins=num_bins,
            seed=seed,
        ),
    }
