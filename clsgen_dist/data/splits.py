"""Which row belongs to which split, and proof that the splits share nothing.

A survey keeps a few numbers a row (hashes of id, text and group, the label), never the text, so that a million rows
cost some 40 MB.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from clsgen_dist.errors import DataError
from clsgen_dist.records import SPLITS, UNLABELLED, Row


@dataclass(frozen=True)
class Survey:
    """What is known of the rows of one source, one entry a row (shape N).

    Attributes:
        source: name of the source, for messages.
        lines: line, or number, of the row in its source.
        ids, texts, groups: 64-bit hashes; texts are compared without case and spacing; group 0 means none.
        labels: number of the label, UNLABELLED where it is unknown.
        explained: whether the row has an explanation.
    """

    source: str
    lines: np.ndarray
    ids: np.ndarray
    texts: np.ndarray
    groups: np.ndarray
    labels: np.ndarray
    explained: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, index: int) -> str:
        return f"{self.source}:{self.lines[index]}"

    def take(self, keep: np.ndarray) -> Survey:
        """The survey of some of the rows."""
        columns = (getattr(self, n)[keep] for n in ("lines", "ids", "texts", "groups", "labels", "explained"))
        return Survey(self.source, *columns)


def survey(source: str, rows: Iterable[tuple[str, Row]]) -> Survey:
    """Looks at every row once. Raises what reading the rows raises."""
    lines, labels, explained = array("q"), array("i"), array("b")
    ids, texts, groups = array("Q"), array("Q"), array("Q")
    for place, row in rows:
        lines.append(int(place.rsplit(":", 1)[1]))
        ids.append(_hash(row.id))
        texts.append(text_hash(row.text))
        groups.append(0 if row.group is None else _hash(row.group))
        labels.append(UNLABELLED if row.label is None else row.label)
        explained.append(row.explanation is not None)
    hashes = [np.frombuffer(column, dtype=np.uint64) for column in (ids, texts, groups)]
    return Survey(
        source=source,
        lines=np.frombuffer(lines, dtype=np.int64),
        ids=hashes[0],
        texts=hashes[1],
        groups=hashes[2],
        labels=np.frombuffer(labels, dtype=np.int32),
        explained=np.frombuffer(explained, dtype=np.int8).astype(bool),
    )


def normalised(text: str) -> str:
    """The text as it is compared between splits: without case and spacing."""
    return " ".join(text.casefold().split())


def text_hash(text: str) -> int:
    """64 bits by which texts are compared, without case and spacing."""
    return _hash(normalised(text))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def assign(rows: Survey, fractions: Mapping[str, float], *, seed: int) -> np.ndarray:
    """Deals rows to splits: whole groups, labels in equal shares.

    Rows of one group, and rows of the same text, stay together. Groups come largest first, each to the split that
    lacks most of the group's labels, so that shares hold as closely as the groups allow.

    Args:
        rows: survey of N rows.
        fractions: share of the rows of each split but train, which takes the rest.
        seed: order of groups of the same size.

    Returns:
        Index into SPLITS of each row, shape (N,), int8.
    """
    names = [name for name in SPLITS if name == "train" or name in fractions]
    shares = np.array([1.0 - sum(fractions.values()) if n == "train" else fractions[n] for n in names])
    by_unit, starts, sizes = _units(rows)
    kinds, label_index = np.unique(rows.labels, return_inverse=True)
    totals = np.bincount(label_index, minlength=len(kinds)).astype(float)
    lacking = shares[:, None] * totals[None, :]  # rows that each split still wants, by label
    order = np.random.default_rng(seed).permutation(len(starts))
    order = order[np.argsort(-sizes[order], kind="stable")]
    chosen = np.empty(len(rows), dtype=np.int8)
    for unit in order:
        members = by_unit[starts[unit] : starts[unit] + sizes[unit]]
        counts = np.bincount(label_index[members], minlength=len(kinds))
        best = int(np.argmax((lacking / (shares[:, None] * totals)) @ counts))
        lacking[best] -= counts
        chosen[members] = SPLITS.index(names[best])
    return chosen


def _units(rows: Survey) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that must stay together: linked by a group or by the same text.

    Returns:
        Indices of the N rows, those of one unit side by side; where each unit starts among them, and its size. Plain
        arrays: an object for each of a million units would cost more than all else that is known of the rows.
    """
    parent = np.arange(len(rows))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for keys in (rows.texts, rows.groups):
        order = np.argsort(keys, kind="stable")
        for first, second in pairwise(order):
            if keys[first] == keys[second] and keys[first] != 0:
                parent[root(int(second))] = root(int(first))
    roots = np.fromiter((root(index) for index in range(len(rows))), dtype=np.int64, count=len(rows))
    by_unit = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[by_unit], prepend=-1))
    return by_unit, starts, np.diff(starts, append=len(rows))


def check_splits(splits: Mapping[str, Survey], labels: Sequence[str], *, needs_explanations: bool) -> None:
    """Refuses splits that would give wrong numbers.

    Raises:
        DataError: two rows have one id; a text or a group stands in two splits; a split has one class only; a label
            has no training row; no training row has an explanation although one is needed.
    """
    _refuse_shared(splits, "ids", "the same id", within=True)
    _refuse_shared(splits, "texts", "the same text (case and spacing aside)", within=False)
    _refuse_shared(splits, "groups", "the same group", within=False)
    for name, rows in splits.items():
        present = np.unique(rows.labels[rows.labels != UNLABELLED])
        if len(present) < 2:
            found = f"only {labels[present[0]]!r}" if len(present) else "no label at all"
            raise DataError(f"{rows.source} ({name}): found {found}, expected rows of at least two labels")
        if name == "train" and len(present) < len(labels):
            absent = [label for index, label in enumerate(labels) if index not in present]
            raise DataError(
                f"{rows.source} (train): no row with label {absent[0]!r}; add rows, or take it from task.labels"
            )
    if needs_explanations and not splits["train"].explained.any():
        raise DataError(
            f"{splits['train'].source} (train): no row has an explanation while objective.w_gen > 0; "
            "name their column in data.explanation_column, or set objective.w_gen and kl_weight to 0"
        )


def _refuse_shared(splits: Mapping[str, Survey], column: str, what: str, *, within: bool) -> None:
    keys = np.concatenate([getattr(rows, column) for rows in splits.values()])
    owner = np.concatenate([np.full(len(rows), index) for index, rows in enumerate(splits.values())])
    position = np.concatenate([np.arange(len(rows)) for rows in splits.values()])
    order = np.argsort(keys, kind="stable")
    first, second = order[:-1], order[1:]
    clash = (keys[first] == keys[second]) & (keys[first] != 0)
    if not within:
        clash &= owner[first] != owner[second]
    if clash.any():
        surveys, names = list(splits.values()), list(splits)
        at = int(np.flatnonzero(clash)[0])
        one, other = (f"{surveys[owner[i]].place(position[i])} ({names[owner[i]]})" for i in (first[at], second[at]))
        raise DataError(f"{one} and {other} have {what}; {int(clash.sum())} such pair(s)")
