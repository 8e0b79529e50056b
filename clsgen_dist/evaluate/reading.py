"""Which label each explanation argues for, by whoever reads it, and what comes of it beside the head.

Shape legend: N predictions, M texts.

Three readers, one interface: the verdict that a text opens with (here), a classifier of words (`text_reader`), and a
chat model (`judge`). Each says a label or that it is unclear; how many it read is always shown beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clsgen_dist.evaluate.columns import Columns
from clsgen_dist.evaluate.explanations import alignment, describe_alignment
from clsgen_dist.records import UNLABELLED, Prediction

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unavailable:
    """A reader that could not be had.

    Attributes:
        reason: why, in words.
    """

    reason: str


@dataclass(frozen=True)
class Reading:
    """What one reader read, in the order of the predictions.

    Attributes:
        free_N: number of the label that the free explanation argues for; -1 where that is unclear, or there is none.
        conditioned_N: the same of the explanation that follows the head.
        facts: of the reader itself, as metrics.json has them.
    """

    free_N: IntArray
    conditioned_N: IntArray
    facts: Mapping[str, Any] = field(default_factory=dict)


class Reader(Protocol):
    """Reads a label off explanations."""

    def read(self, texts: Sequence[str]) -> tuple[IntArray, Mapping[str, Any]]:
        """Number of the label that each text argues for, -1 where that is unclear, and facts of the reader."""
        ...


def read_verdicts(predictions: Sequence[Prediction], labels: Sequence[str]) -> Reading:
    """The reader `verdict`: the label that a text opens with; of a conditioned one, the predicted label."""
    number_of = {name: number for number, name in enumerate(labels)}
    return Reading(
        free_N=_numbers([None if p.free_verdict is None else number_of[p.free_verdict] for p in predictions]),
        conditioned_N=_numbers([None if p.explanation is None else number_of[p.predicted] for p in predictions]),
    )


def read_words(reader: Reader, predictions: Sequence[Prediction]) -> Reading:
    """Has a reader look at the words after the verdict, of free and conditioned explanations at one time.

    Raises:
        TeacherError: as the reader does.
    """
    texts = [(p.free_explanation, p.explanation) for p in predictions]
    asked = [text for pair in texts for text in pair if text is not None]
    labels_M, facts = reader.read(asked)
    assert labels_M.shape == (len(asked),), f"read {labels_M.shape} of {len(asked)} texts"
    said = iter(labels_M.tolist())
    read = [[None if text is None else next(said) for text in pair] for pair in texts]
    return Reading(_numbers([free for free, _ in read]), _numbers([own for _, own in read]), facts)


def describe_readings(
    columns: Columns, read: Mapping[str, Reading | Unavailable], *, num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """The part `explanation` of metrics.json, as far as it is about what explanations argue for.

    Args:
        columns: predictions and rows.
        read: what each reader found, or why it could not be had, by its name.
        num_bootstrap, seed: resamples behind each interval.

    Returns:
        The numbers of `alignment` for the verdict of the free explanations; readers: name -> free and conditioned, each
        `describe_alignment` on the rows that have such an explanation, and reader, its facts, where there are any;
        unavailable: name -> reason.
    """
    asked = {"free": columns.free_asked_N, "conditioned": columns.conditioned_asked_N}
    readers: dict[str, dict[str, Any]] = {}
    for name, found in read.items():
        if isinstance(found, Unavailable):
            continue
        readers[name] = {
            kind: describe_alignment(
                said_N[asked[kind]],
                columns.predicted_N[asked[kind]],
                columns.probability_NK[asked[kind]],
                columns.group_N[asked[kind]],
                num_bootstrap=num_bootstrap,
                seed=seed,
            )
            for kind, said_N in (("free", found.free_N), ("conditioned", found.conditioned_N))
        }
        if found.facts:
            readers[name]["reader"] = dict(found.facts)
    free_N = columns.free_asked_N
    return {
        **alignment(columns.verdict_N[free_N], columns.predicted_N[free_N], columns.probability_NK[free_N]),
        "readers": readers,
        "unavailable": {name: found.reason for name, found in read.items() if isinstance(found, Unavailable)},
    }


def _numbers(labels: Sequence[int | None]) -> IntArray:
    return np.array([UNLABELLED if label is None else label for label in labels], dtype=np.int64)
