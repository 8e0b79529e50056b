"""The records that travel between stages. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: The splits of a data set, in the order in which a model meets them.
SPLITS = ("train", "validation", "calibration", "test")

#: Splits whose explanations a model may learn from.
EXPLAINED_SPLITS = ("train", "validation")

#: What a row needs to be known by, when its label is not.
UNLABELLED = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One text with a label and, perhaps, an explanation.

    Attributes:
        id: unique in its data set.
        text: what the model decides on.
        label: number of the label in `task.labels`, or None where it is unknown.
        explanation: why the label holds, in words, or None.
        group: rows of one group (a patient, a trial) never stand in two splits; None is a group of its own.
        true_probability: probability of the last label from which the label was drawn, where a generator knows it.
        subgroups: (column, value) of each column whose values are looked at one by one in an evaluation.
    """

    id: str
    text: str
    label: int | None = None
    explanation: str | None = None
    group: str | None = None
    true_probability: float | None = None
    subgroups: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """JSON knows no tuples: a row that came through it is equal to the row that went in."""
        if self.subgroups:
            pairs = tuple((column, value) for column, value in self.subgroups)
            object.__setattr__(self, "subgroups", pairs)


#: Rows, from the first, as often as asked.
RowSource = Callable[[], Iterator[Row]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a model says of one row.

    Attributes:
        id: id of the row.
        label: name of the row's label, or None where it is unknown.
        probability: calibrated probability of each label by name; sums to 1.
        raw_probability: the same before calibration.
        predicted: name of the predicted label: at the operating threshold for two labels, the largest one otherwise.
        explanation: the explanation that follows the predicted label, or None where none was asked for.
        free_verdict: label that the model writes when it is left alone; None where that is no label at all.
        free_explanation: what it writes then, after that verdict, if any; None where nobody asked.
        is_cut, is_free_cut: whether the explanation, and the free one, met the limit of tokens before its end.
        logits: head logits, or log-likelihoods of the verdicts where no head was trained, one a label, in the order of
            `task.labels`.
    """

    id: str
    label: str | None
    probability: dict[str, float]
    raw_probability: dict[str, float]
    predicted: str
    explanation: str | None
    free_verdict: str | None
    free_explanation: str | None
    is_cut: bool
    is_free_cut: bool
    logits: list[float]


def group_name(id: str, group: str | None) -> str:
    """A name for a row's group; a row without a group is one of its own, whatever other groups are called."""
    return f"row {id}" if group is None else f"group {group}"


@dataclass(frozen=True)
class PredictRequest:
    """What a person asks of a finished bundle.

    Attributes:
        bundle: folder of the bundle.
        source: rows to predict.
        output: file of predictions to write.
        base: folder of the base model where it has moved, or None.
        explain: whether to write explanations.
        columns: settings of `data` that override those of the bundle, as words.
    """

    bundle: Path
    source: str
    output: Path
    base: str | None
    explain: bool
    columns: tuple[str, ...]


@dataclass(frozen=True)
class CalibrateRequest:
    """What a person asks of a finished bundle.

    Attributes:
        bundle: its folder.
        source: labelled rows to fit on.
        test: labelled rows to measure on, or None.
        base: folder of the base model where it has moved, or None.
        columns: settings of `data` that override those of the bundle, as words.
        settings: settings of `calibrate`, `evaluate` and `run.seed`, as words.
    """

    bundle: Path
    source: str
    test: str | None
    base: str | None
    columns: tuple[str, ...]
    settings: tuple[str, ...]


@dataclass(frozen=True)
class EvaluateRequest:
    """What a person asks of a finished bundle.

    Attributes:
        bundle: its folder.
        source: rows to predict, and to measure on where they are labelled.
        output: folder that the results are written to.
        explanations: rows with explanations that the model was trained on, for the reader text, or None.
        base: folder of the base model where it has moved, or None.
        columns: settings of `data` that override those of the bundle, as words.
        settings: settings of `evaluate`, `predict` and `run.seed`, as words.
    """

    bundle: Path
    source: str
    output: Path
    explanations: Path | None
    base: str | None
    columns: tuple[str, ...]
    settings: tuple[str, ...]
