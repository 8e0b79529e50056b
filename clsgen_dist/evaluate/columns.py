"""Predictions and their rows side by side, as arrays.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import DataError
from clsgen_dist.records import UNLABELLED, Prediction, Row, group_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Columns:
    """Predictions and their rows as arrays, in the order of the predictions.

    Attributes:
        label_N: number of the true label; -1 where it is unknown.
        probability_NK: calibrated probability of each label.
        raw_probability_NK: the same before calibration.
        predicted_N: number of the predicted label.
        free_asked_N: whether a free explanation was asked for.
        conditioned_asked_N: whether one that follows the predicted label was asked for.
        verdict_N: number of the label that the free explanation opens with; -1 where that is none.
        group_N: number of the row's group.
        true_probability_N: generating probability of the last label, or None where a row lacks it.
        texts: what was decided on.
        subgroups: column -> its value of each row, for the columns that rows bring along.
    """

    label_N: IntArray
    probability_NK: FloatArray
    raw_probability_NK: FloatArray
    predicted_N: IntArray
    free_asked_N: BoolArray
    conditioned_asked_N: BoolArray
    verdict_N: IntArray
    group_N: IntArray
    true_probability_N: FloatArray | None
    texts: list[str]
    subgroups: dict[str, list[str]]


def to_columns(predictions: Sequence[Prediction], rows: Sequence[Row], labels: Sequence[str]) -> Columns:
    """Put predictions and rows of one split side by side, matched by id.

    Raises:
        DataError: no predictions; the two do not hold the same ids once each; a label name is unknown; labels differ;
            rows bring different columns of subgroups along.
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
    columns = [column for column, _ in rows[0].subgroups]
    for row in rows:
        if [column for column, _ in row.subgroups] != columns:
            raise DataError(
                f"evaluation: row {row.id} has other columns of subgroups than row {rows[0].id}, expected "
                f"{', '.join(columns) or 'none'}; see data.subgroup_columns"
            )
    truths = [row.true_probability for row in rows if row.true_probability is not None]
    group_of: dict[str, int] = {}
    groups = [group_of.setdefault(group_name(row.id, row.group), len(group_of)) for row in rows]
    return Columns(
        label_N=np.array([UNLABELLED if row.label is None else row.label for row in rows], dtype=np.int64),
        probability_NK=np.array([[p.probability[name] for name in labels] for p in predictions], dtype=np.float64),
        raw_probability_NK=np.array(
            [[p.raw_probability[name] for name in labels] for p in predictions], dtype=np.float64
        ),
        predicted_N=np.array([number_of[p.predicted] for p in predictions], dtype=np.int64),
        free_asked_N=np.array(
            [p.free_explanation is not None or p.free_verdict is not None for p in predictions], dtype=bool
        ),
        conditioned_asked_N=np.array([p.explanation is not None for p in predictions], dtype=bool),
        verdict_N=np.array(
            [UNLABELLED if p.free_verdict is None else number_of[p.free_verdict] for p in predictions], dtype=np.int64
        ),
        group_N=np.array(groups, dtype=np.int64),
        true_probability_N=np.array(truths, dtype=np.float64) if len(truths) == len(rows) else None,
        texts=[row.text for row in rows],
        subgroups={column: [row.subgroups[n][1] for row in rows] for n, column in enumerate(columns)},
    )
