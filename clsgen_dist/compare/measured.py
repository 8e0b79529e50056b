"""Predictions of test rows as arrays in one order for all arms, and paired resamples of them.

Shape legend: N rows, K labels, R resamples, S seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.evaluate.intervals import interval, resample_numbers
from clsgen_dist.evaluate.metrics import probability_metrics

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """Labelled test rows of one run, ascending by id.

    Attributes:
        ids: of the rows.
        groups_N: name of each row's group.
        labels_N: number of the true label.
        probability_NK: probability of each label.
        predicted_N: number of the label decided on.
    """

    ids: tuple[str, ...]
    groups_N: npt.NDArray[np.str_]
    labels_N: IntArray
    probability_NK: FloatArray
    predicted_N: IntArray

    def only(self, ids: frozenset[str]) -> Measured:
        """The rows with these ids."""
        kept = [n for n, id in enumerate(self.ids) if id in ids]
        return Measured(
            tuple(self.ids[n] for n in kept),
            self.groups_N[kept],
            self.labels_N[kept],
            self.probability_NK[kept],
            self.predicted_N[kept],
        )


def read_measured(folder: RunFolder, labels: Sequence[str], groups: Mapping[str, str], part: str) -> Measured:
    """Reads the predictions of a finished run.

    Args:
        folder: of the run.
        labels: names of the labels in the order of their numbers.
        groups: name of the group of every test row, by id.
        part: `calibrated`, decided as the run did; or `raw`, decided by the largest probability.
    """
    path = folder.evaluation("test") / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = sorted((line for line in lines if line["label"] is not None), key=lambda line: str(line["id"]))
    key = "raw_probability" if part == "raw" else "probability"
    number = {name: n for n, name in enumerate(labels)}
    probability_NK = np.array([[line[key][name] for name in labels] for line in lines], dtype=np.float64)
    said_N = np.array([number[line["predicted"]] for line in lines], dtype=np.int64)
    return Measured(
        tuple(line["id"] for line in lines),
        np.array([groups[line["id"]] for line in lines], dtype=np.str_),
        np.array([number[line["label"]] for line in lines], dtype=np.int64),
        probability_NK,
        decide(probability_NK, None) if part == "raw" else said_N,
    )


def resampled_means(measured: Sequence[Measured], names: Sequence[str], **draw: int) -> dict[str, list[float] | None]:
    """95 % interval of each number's mean over seeds.

    Args:
        measured: one a seed.
        names: of numbers of `probability_metrics`.
        draw: `num_bootstrap`, `num_bins` and `seed` of `resample_numbers`.
    """
    means = _means(measured, names, **draw)
    return {name: interval(means[name]) for name in names}


def paired_differences(
    one: Sequence[Measured], other: Sequence[Measured], names: Sequence[str], **draw: int
) -> tuple[int, dict[str, dict[str, Any]]]:
    """How the means over seeds of two arms differ, on the rows that both have.

    Returns:
        Number of those rows; and of each name the difference `mean`, first less second, and its 95 % interval `ci`.
    """
    shared = frozenset(one[0].ids) & frozenset(other[0].ids)
    first, second = ([measured.only(shared) for measured in arm] for arm in (one, other))
    means = [_means(arm, names, **draw) for arm in (first, second)]
    whole = [_whole(arm, names, draw["num_bins"]) for arm in (first, second)]
    return len(shared), {
        name: {"mean": whole[0][name] - whole[1][name], "ci": interval(means[0][name] - means[1][name])}
        for name in names
    }


def _means(measured: Sequence[Measured], names: Sequence[str], **draw: int) -> dict[str, FloatArray]:
    each = [
        resample_numbers(
            m.probability_NK,
            m.labels_N,
            m.predicted_N,
            m.groups_N,
            num_bootstrap=draw["num_bootstrap"],
            num_bins=draw["num_bins"],
            seed=draw["seed"],
            with_calibration=False,
        )[0]
        for m in measured
    ]
    return {name: np.mean([numbers[name] for numbers in each], axis=0) for name in names}


def _whole(measured: Sequence[Measured], names: Sequence[str], num_bins: int) -> dict[str, float]:
    each = [probability_metrics(m.probability_NK, m.labels_N, m.predicted_N, num_bins=num_bins) for m in measured]
    return {name: float(np.mean([numbers[name] for numbers in each])) for name in names}
