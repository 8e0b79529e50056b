"""The records that travel between stages. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
        references: further reasons that people wrote, which explanations are compared with and nothing learns from.
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
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """JSON knows no tuples: a row that came through it is equal to the row that went in."""
        pairs = tuple((column, value) for column, value in self.subgroups)
        object.__setattr__(self, "subgroups", pairs)
        object.__setattr__(self, "references", tuple(self.references))


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


@dataclass(frozen=True, kw_only=True, slots=True)
class TextScore:
    """What a text costs a language model: minus the log-likelihood of its tokens, summed, in nats.

    Attributes:
        id: of the row, or name of the passage.
        num_tokens: tokens that were scored, at least one.
        tuned: under the tuned model, or None where that was not asked for.
        base: under the base model, or None where there is none.
        kl: KL(base || tuned), summed over the scored positions, in nats; None where that was not asked for.
    """

    id: str
    num_tokens: int
    tuned: float | None
    base: float | None
    kl: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapScore:
    """The words of one explanation after the verdict that they were written for, and after every other one.

    Attributes:
        id: of the row.
        num_tokens: tokens of the words, at least one; the verdict is given and not counted.
        own: number of the label whose verdict they were written for.
        log_likelihoods: of the words after the verdict of each label under the tuned model, nats.
    """

    id: str
    num_tokens: int
    own: int
    log_likelihoods: list[float]


@dataclass(frozen=True, kw_only=True)
class LanguageScores:
    """What the tuned model and its base say of given words; that of several ranks is put together by `merge`.

    Attributes:
        swaps: explanations that follow the head.
        references: explanations that rows brought along, after the verdict of the row's label.
        free: explanations that the model wrote when it was left alone, under the base model; empty without one.
        general: passages of general text.
        no_base: why there is no base model, or None where there is one.
    """

    swaps: list[SwapScore]
    references: list[TextScore]
    free: list[TextScore]
    general: list[TextScore]
    no_base: str | None

    @classmethod
    def merge(cls, parts: Sequence[LanguageScores]) -> LanguageScores:
        """The scores of all parts; at least one part, all of the same model."""
        return cls(
            swaps=[score for part in parts for score in part.swaps],
            references=[score for part in parts for score in part.references],
            free=[score for part in parts for score in part.free],
            general=[score for part in parts for score in part.general],
            no_base=parts[0].no_base,
        )


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
        columns: settings of `data` that override those of the bundle, as words.
        settings: settings of `predict` and `ray`, likewise.
        storage: address of the run that the bundle is of, where it stands in an object store.
    """

    bundle: Path
    source: str
    output: Path
    base: str | None
    columns: tuple[str, ...]
    settings: tuple[str, ...]
    storage: str | None = None


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
