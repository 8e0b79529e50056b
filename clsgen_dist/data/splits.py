"""Which row belongs to which split, and proof that the splits share nothing.

A survey keeps a few numbers a row (hashes of id, text and group, the label), never the text, in files of a scratch
folder. One column at a time is read back, so that a million rows take some 35 MB for a moment and nothing after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from clsgen_dist.errors import DataError
from clsgen_dist.records import SPLITS, UNLABELLED, Row

_COLUMNS = {"files": "u2", "lines": "i8", "ids": "u8", "texts": "u8", "groups": "u8", "labels": "i4", "explained": "?"}
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Survey:
    """What is known of the rows of one source, or of some of them.

    Attributes:
        source: name of the source, for messages.
        files: of which it consists, for messages; the source itself where it is one file or none.
        folder: where the columns of the whole source lie.
        numbers: which of its rows are meant, ascending, shape (N,), int32.
    """

    source: str
    files: tuple[str, ...]
    folder: Path
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> np.ndarray:
        """Reads one number a row, shape (N,).

        Args:
            name: "files" (number of the row's file), "lines" (line, or number, of the row in it), "ids", "texts", "groups" (64-bit hashes; texts
                without case and spacing; group 0 means none), "labels" (UNLABELLED where it is unknown), or
                "explained" (whether the row has an explanation).
        """
        column: np.ndarray = np.fromfile(self.folder / name, dtype=_COLUMNS[name])[self.numbers]
        return column

    def place(self, index: int) -> str:
        return f"{self.files[self.column('files')[index]]}:{self.column('lines')[index]}"

    def take(self, numbers: np.ndarray) -> Survey:
        """The survey of some rows of the source, given by their ascending numbers."""
        return Survey(self.source, self.files, self.folder, numbers.astype(np.int32))


def survey(source: str, rows: Iterable[tuple[str, Row]], folder: Path) -> Survey:
    """Looks at every row once and fills a folder, which must stay as long as the survey is used.

    Raises:
        DataError: as reading the rows does.
    """
    folder.mkdir(parents=True)
    names: dict[str, int] = {}
    seen, num_rows = (_seen(place, row, names) for place, row in rows), 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("wb")) for name in _COLUMNS}
        while len(some := np.array(list(islice(seen, _ROWS_AT_ONCE)), dtype=list(_COLUMNS.items()))):
            for name, file in files.items():
                file.write(some[name].tobytes())
            num_rows += len(some)
    return Survey(source, tuple(names), folder, np.arange(num_rows, dtype=np.int32))


def _seen(place: str, row: Row, names: dict[str, int]) -> tuple[int, int, int, int, int, int, bool]:
    """The numbers of a row, in the order of `_COLUMNS`; numbers its file where it is a new one."""
    file, _, line = place.rpartition(":")
    return (
        names.setdefault(file, len(names)),
        int(line),
        _hash(row.id),
        text_hash(row.text),
        0 if row.group is None else _hash(row.group),
        UNLABELLED if row.label is None else row.label,
        row.explanation is not None,
    )


def normalised(text: str) -> str:
    """The text as it is compared between splits: without case and spacing."""
    return " ".join(text.casefold().split())


def text_hash(text: str) -> int:
    """64 bits by which texts are compared, without case and spacing."""
    return _hash(normalised(text))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def assign(rows: Survey, fractions: Mapping[str, float], *, seed: int, by_group: bool = True) -> np.ndarray:
    """Deals rows to splits: whole groups, labels in equal shares.

    Rows of one group, and rows of the same text, stay together; without `by_group` only those of the same text. Groups come largest first, each to the split that
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
    by_unit, starts, sizes = _units(rows, ("texts", "groups") if by_group else ("texts",))
    labels = rows.column("labels")
    kinds = np.unique(labels)
    label_index = np.searchsorted(kinds, labels).astype(np.int32)
    totals = np.bincount(label_index, minlength=len(kinds)).astype(float)
    lacking = shares[:, None] * totals[None, :]  # rows that each split still wants, by label
    order = np.random.default_rng(seed).permutation(len(starts)).astype(np.int32)
    order = order[np.argsort(-sizes[order], kind="stable")]
    chosen = np.empty(len(rows), dtype=np.int8)
    for unit in order:
        members = by_unit[starts[unit] : starts[unit] + sizes[unit]]
        counts = np.bincount(label_index[members], minlength=len(kinds))
        best = int(np.argmax((lacking / (shares[:, None] * totals)) @ counts))
        lacking[best] -= counts
        chosen[members] = SPLITS.index(names[best])
    return chosen


def _units(rows: Survey, links: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows that must stay together: with the same value in one of the columns `links`.

    Returns:
        Indices of the N rows, those of one unit side by side; where each unit starts among them, and its size. Plain
        arrays of int32: an object for each of a million units would cost more than all else that is known of the rows.
    """
    roots = _roots(rows, links)
    by_unit = np.argsort(roots, kind="stable").astype(np.int32)
    starts = np.flatnonzero(np.diff(roots[by_unit], prepend=np.int32(-1))).astype(np.int32)
    return by_unit, starts, np.diff(starts, append=np.int32(len(rows)))


def _roots(rows: Survey, links: Sequence[str]) -> np.ndarray:
    """One row of its unit for each of the N rows, the same for all rows of a unit."""
    parent = np.arange(len(rows), dtype=np.int32)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for name in links:
        for firsts, seconds in _pairs(rows.column(name)):
            for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True):
                parent[root(second)] = root(first)
    return np.fromiter((root(index) for index in range(len(rows))), dtype=np.int32, count=len(rows))


def _pairs(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows with the same key, 0 aside: of three rows the first and second, the second and third.

    Ordered by key, then by row. Keys with the same first byte at a time: sorting them all would take three times their
    memory.

    Yields:
        Indices of the first rows and of the second rows of some pairs.
    """
    first_bytes = (keys >> np.uint64(56)).astype(np.uint8)
    for first_byte in range(256):
        index = np.flatnonzero(first_bytes == first_byte)
        own = keys[index]
        order = np.argsort(own, kind="stable")
        index, own = index[order], own[order]
        same = (own[:-1] == own[1:]) & (own[1:] != 0)
        yield index[:-1][same], index[1:][same]


def check_splits(
    splits: Mapping[str, Survey],
    labels: Sequence[str],
    *,
    needs_explanations: bool,
    allow_shared_groups: bool = False,
) -> None:
    """Refuses splits that would give wrong numbers.

    Raises:
        DataError: two rows have one id; a text or, unless that is allowed, a group stands in two splits; a split has one class only; a label
            has no training row; no training row has an explanation although one is needed.
    """
    _refuse_shared(splits, "ids", "the same id", within=True)
    _refuse_shared(splits, "texts", "the same text (case and spacing aside)", within=False)
    if not allow_shared_groups:
        _refuse_shared(splits, "groups", "the same group", within=False)
    for name, rows in splits.items():
        present = np.setdiff1d(rows.column("labels"), [UNLABELLED])
        if len(present) < 2:
            found = f"only {labels[present[0]]!r}" if len(present) else "no label at all"
            raise DataError(f"{rows.source} ({name}): found {found}, expected rows of at least two labels")
        if name == "train" and len(present) < len(labels):
            absent = [label for index, label in enumerate(labels) if index not in present]
            raise DataError(
                f"{rows.source} (train): no row with label {absent[0]!r}; add rows, or take it from task.labels"
            )
    if needs_explanations and not splits["train"].column("explained").any():
        raise DataError(
            f"{splits['train'].source} (train): no row has an explanation while objective.w_gen > 0; "
            "name their column in data.explanation_column, or set objective.w_gen and kl_weight to 0"
        )


def _refuse_shared(splits: Mapping[str, Survey], column: str, what: str, *, within: bool) -> None:
    owner = np.repeat(np.arange(len(splits), dtype=np.int8), [len(rows) for rows in splits.values()])
    example, num_pairs = None, 0
    for first, second in _pairs(np.concatenate([rows.column(column) for rows in splits.values()])):
        clash = np.flatnonzero(within | (owner[first] != owner[second]))
        if example is None and len(clash):
            example = first[clash[0]], second[clash[0]]
        num_pairs += len(clash)
    if example is not None:
        one, other = (_place(splits, index) for index in example)
        raise DataError(f"{one} and {other} have {what}; {num_pairs} such pair(s)")


def _place(splits: Mapping[str, Survey], index: int) -> str:
    """Where the row of an index into all splits stands."""
    for name, rows in splits.items():
        if index < len(rows):
            return f"{rows.place(index)} ({name})"
        index -= len(rows)
    raise IndexError(index)
