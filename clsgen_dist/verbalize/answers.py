"""Answers of a model and the labels of their rows: read from a file, dealt to two halves, counted.

Shape legend: N rows, K labels, P prompts.

A row whose answer holds no distribution stays in: it has no probabilities, a cause why, and a place in every rate.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clsgen_dist.calibrate.folds import deal_folds
from clsgen_dist.calibrate.simplex import average_prompts, default_floor
from clsgen_dist.config.run import label_text
from clsgen_dist.data.files import read_jsonl
from clsgen_dist.data.rows import label_numbers
from clsgen_dist.data.splits import normalised
from clsgen_dist.errors import DataError
from clsgen_dist.records import UNLABELLED, group_name
from clsgen_dist.verbalize.parsing import Said, parse_distribution

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model said of N rows.

    Attributes:
        source: what to call these rows in messages: a file, a split.
        labels: names of the K labels in the order of their numbers.
        ids: unique.
        said: what was understood of each answer; `probabilities` is None where nothing was.
        labels_N: number of the true label, -1 where it is unknown.
        groups_N: name of each row's group, as `name_groups` makes it; rows of a group belong together.
        texts: what the answers are about, or None where that is not known.
        token_probabilities: name -> N x K probabilities that the model's tokens gave to the labels; a row of NaN where
            there are none.
    """

    source: str
    labels: tuple[str, ...]
    ids: tuple[str, ...]
    said: tuple[Said, ...]
    labels_N: IntArray
    groups_N: npt.NDArray[np.str_]
    texts: tuple[str, ...] | None = None
    token_probabilities: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Our own bugs only: `read_answers` refuses what a user may get wrong."""
        num_rows = len(self.ids)
        assert len(self.said) == len(self.labels_N) == len(self.groups_N) == num_rows
        assert self.texts is None or len(self.texts) == num_rows
        assert all(p.shape == (num_rows, len(self.labels)) for p in self.token_probabilities.values())

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def said_NK(self) -> FloatArray:
        """What was said, renormalised; a row of NaN where nothing was understood."""
        nothing = (np.nan,) * len(self.labels)
        rows = [nothing if said.probabilities is None else said.probabilities for said in self.said]
        return np.array(rows, dtype=np.float64).reshape(len(self), len(self.labels))

    @property
    def parsed_N(self) -> BoolArray:
        """Whether an answer was understood."""
        return np.array([said.probabilities is not None for said in self.said], dtype=bool)

    @property
    def parse_rate(self) -> float:
        """Share of the answers that were understood."""
        return float(self.parsed_N.mean())

    def count_failures(self) -> dict[str, int]:
        """Cause -> answers that were not understood for it, the most frequent first."""
        causes = Counter(said.fault for said in self.said if said.probabilities is None)
        return {str(cause): n for cause, n in sorted(causes.items(), key=lambda item: (-item[1], str(item[0])))}

    def take(self, rows: npt.ArrayLike) -> Answers:
        """Some of the rows, by number or by a mask."""
        index = np.arange(len(self))[np.asarray(rows)]
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            said=tuple(self.said[i] for i in index),
            labels_N=self.labels_N[index],
            groups_N=self.groups_N[index],
            texts=None if self.texts is None else tuple(self.texts[i] for i in index),
            token_probabilities={name: p_NK[index] for name, p_NK in self.token_probabilities.items()},
        )

    def fingerprint(self) -> str:
        """SHA-256 of ids, labels and what was said, to tell which rows a fit has seen; the order does not matter."""
        rows = sorted(
            json.dumps([id, int(label), said.probabilities], ensure_ascii=True)
            for id, label, said in zip(self.ids, self.labels_N, self.said, strict=True)
        )
        return hashlib.sha256("\n".join([json.dumps(list(self.labels)), *rows]).encode("ascii")).hexdigest()


def read_answers(path: Path, labels: Sequence[str], *, sum_tolerance: float) -> Answers:
    """Read answers that were collected elsewhere.

    Each line is a JSON object: `id`, `label` (a label's name or number, or null where it is unknown), `answer` (the
    model's words; null counts as no answer), and perhaps `group` and `text`. Other keys are ignored.

    Args:
        path: a JSONL file.
        labels: names of the labels in the order of their numbers.
        sum_tolerance: how far from 1 the stated probabilities may add up, as in `parse_distribution`.

    Raises:
        DataError: the file is missing, empty or broken, a line lacks a key or has one of a wrong type, a label is
            unknown, two lines have one id, or some lines have a text and others none; names file and line.
    """
    number_of = label_numbers(labels)
    place_of: dict[str, str] = {}
    rows: list[tuple[str, int, str, str | None, str | None]] = []
    for place, record in read_jsonl(path):
        id = _identity(place, record)
        if id in place_of:
            raise DataError(f"{place}: has the id {id[:40]!r}, as {place_of[id]} has; expected each id once")
        place_of[id] = place
        text, group = record.get("text"), record.get("group")
        if text is not None and not isinstance(text, str):
            raise DataError(f"{place}: the text is {type(text).__name__}, expected words or null")
        if rows and (text is None) != (rows[0][4] is None):
            raise DataError(
                f"{place}: {'no' if text is None else 'a'} text, unlike {place_of[rows[0][0]]}; expected a text on "
                "every line or on none"
            )
        if isinstance(group, bool) or not isinstance(group, str | int | None):
            raise DataError(f"{place}: the group is {type(group).__name__}, expected a name, a whole number or null")
        named = None if group in (None, "") else str(group)
        rows.append((id, _label(place, record, number_of), _answer(place, record), named, text))
    if not rows:
        raise DataError(f"{path}: no answers in it; expected one JSON object a line, with id, label and answer")
    texts = tuple(text for *_, text in rows if text is not None)
    return Answers(
        source=str(path),
        labels=tuple(labels),
        ids=tuple(row[0] for row in rows),
        said=tuple(parse_distribution(row[2], labels, sum_tolerance=sum_tolerance) for row in rows),
        labels_N=np.array([row[1] for row in rows], dtype=np.int64),
        groups_N=name_groups([row[0] for row in rows], [row[3] for row in rows]),
        texts=texts or None,
    )


def name_groups(ids: Sequence[str], groups: Sequence[str | None]) -> npt.NDArray[np.str_]:
    """The name of each row's group, see `group_name`; shape (N,)."""
    return np.array([group_name(id, group) for id, group in zip(ids, groups, strict=True)], dtype=np.str_)


def split_answers(answers: Answers, *, seed: int) -> tuple[Answers, Answers]:
    """Deal answers to two halves, one to fit on and one to test on.

    Groups, and rows of the same text, stay whole; each half gets, as closely as the groups allow, the same share of
    each label and of the answers that were not understood.

    Raises:
        DataError: all rows belong together, so that a half would be empty.
    """
    kinds_N = 2 * answers.labels_N + answers.parsed_N
    units_N = _units(answers)
    fit_N = deal_folds(kinds_N, units_N, num_folds=2, generator=np.random.default_rng(seed)) == 0
    if fit_N.all() or not fit_N.any():
        raise DataError(
            f"{answers.source}: all {len(answers)} answers are of one group or text, so they cannot be dealt to two "
            "halves; give answers to fit on in a file of their own"
        )
    fit, test = answers.take(fit_N), answers.take(~fit_N)
    return replace(fit, source=f"{fit.source} (half to fit on)"), replace(test, source=f"{test.source} (half to test)")


def check_apart(fit: Answers, test: Answers, *, allow_shared_groups: bool = False) -> None:
    """Refuse rows to fit on that are also rows to test on: every number would be too good.

    Raises:
        DataError: the two share an id, a group (unless that is allowed) or a text (case and spacing aside), or have
            other labels.
    """
    if fit.labels != test.labels:
        raise DataError(f"{fit.source} has the labels {list(fit.labels)}, {test.source} {list(test.labels)}")
    kinds: list[tuple[str, set[str], set[str]]] = [("ids", set(fit.ids), set(test.ids))]
    if not allow_shared_groups:
        kinds.append(("groups", set(fit.groups_N.tolist()), set(test.groups_N.tolist())))
    if fit.texts is not None and test.texts is not None:
        kinds.append(("texts", {normalised(t) for t in fit.texts}, {normalised(t) for t in test.texts}))
    for kind, of_fit, of_test in kinds:
        shared = len(of_fit & of_test)
        if shared:
            raise DataError(
                f"{fit.source} and {test.source} share {shared} {kind}, expected none: what is fitted on rows says "
                "nothing about the same rows; take them out of one of the two"
            )


def average_said(
    per_prompt: Sequence[Sequence[Said]], *, num_labels: int, floor: float | None
) -> tuple[tuple[Said, ...], float]:
    """One answer a row from the answers to P paraphrases: the mean of log probabilities of those understood.

    Args:
        per_prompt: for each paraphrase, what was said of each of the N rows.
        num_labels: K.
        floor: least probability before the logarithm is taken; None takes `default_floor` of all said values.

    Returns:
        What was said of each row, with the fault of the first paraphrase where none was understood; and the floor,
        which whoever inverts the averages should use again.
    """
    nothing = (np.nan,) * num_labels
    said_PNK = np.array(
        [[nothing if s.probabilities is None else s.probabilities for s in said] for said in per_prompt], dtype=float
    )
    understood = said_PNK.reshape(-1, num_labels)
    understood = understood[~np.isnan(understood).any(axis=1)]
    if not len(understood):
        return tuple(per_prompt[0]), 0.0 if floor is None else floor
    chosen = default_floor(understood) if floor is None else floor
    mean_NK = average_prompts(said_PNK, floor=chosen)
    rows = [
        first if np.isnan(mean_K).any() else Said(tuple(mean_K.tolist()), None, None, "mean of prompts")
        for first, mean_K in zip(per_prompt[0], mean_NK, strict=True)
    ]
    return tuple(rows), chosen


def _identity(place: str, record: Mapping[str, Any]) -> str:
    id = record.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise DataError(f"{place}: 'id' is {_kind(record, 'id')}, expected a name or a whole number")
    return str(id)


def _label(place: str, record: Mapping[str, Any], number_of: Mapping[str, int]) -> int:
    if "label" not in record:
        raise DataError(f"{place}: no 'label'; expected a label's name or number, or null where it is unknown")
    value = record["label"]
    if value is None or value == "":
        return UNLABELLED
    number = number_of.get(label_text(value)) if isinstance(value, str | int | float) else None
    if number is None:
        raise DataError(
            f"{place}: unknown label {label_text(value)[:40]!r}; expected one of {', '.join(map(repr, number_of))} "
            "(task.labels)"
        )
    return number


def _answer(place: str, record: Mapping[str, Any]) -> str:
    if "answer" not in record:
        raise DataError(f"{place}: no 'answer'; expected the model's words, or null where there was no answer")
    answer = record["answer"]
    if answer is not None and not isinstance(answer, str):
        # An object that was parsed before has lost what it said twice.
        raise DataError(f"{place}: 'answer' is {_kind(record, 'answer')}, expected the model's words as they were")
    return answer or ""


def _kind(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return "missing" if key not in record else "empty" if value in (None, "") else type(value).__name__


def _units(answers: Answers) -> IntArray:
    """Number of the unit of each row: rows of one group, or of the same text, and whatever hangs together by both."""
    group_N = np.unique(answers.groups_N, return_inverse=True)[1]
    if answers.texts is None:
        return group_N.astype(np.int64)
    text_N = np.unique([normalised(text) for text in answers.texts], return_inverse=True)[1] + group_N.max() + 1
    size = int(text_N.max()) + 1
    links = coo_array((np.ones(len(answers)), (group_N, text_N)), shape=(size, size))
    return np.asarray(connected_components(links, directed=False)[1][group_N], dtype=np.int64)
