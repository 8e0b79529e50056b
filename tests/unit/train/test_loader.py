"""Micro-batches laid out ahead are those that would be laid out in their turn, and so are their errors."""

from __future__ import annotations

import threading
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from clsgen_dist.data.batch import Batch, collate
from clsgen_dist.data.plan import MicroBatch
from clsgen_dist.data.tokens import TokenizedRow, TokenizedSplit, write_tokenized
from clsgen_dist.train.loader import Loader
from tests.support.tiny import tiny_tokenized

#: Rows of three steps: with several micro-batches, with an empty one, with one.
PLANS: dict[int, list[MicroBatch]] = {0: [[0, 1], [2], [3, 4]], 1: [[5], []], 2: [[6, 7]]}
CPU = torch.device("cpu")


@pytest.fixture
def split(tmp_path: Path) -> TokenizedSplit:
    write_tokenized(tmp_path / "rows.arrow", [tiny_tokenized([(n + 2, n % 3) for n in range(8)])])
    return TokenizedSplit(tmp_path / "rows.arrow")


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Batch))


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("steps", [[0, 1, 2], [1, 2], [0, 2], [1, 1]], ids=str)
def test_each_step_has_its_own(split: TokenizedSplit, steps: list[int], ahead: bool) -> None:
    """From the beginning, from where a run goes on, and where a step is passed over or taken again."""
    loader = Loader(split, PLANS.__getitem__, CPU, one_line=False, ahead=ahead)
    for step in steps:
        plan, batches = loader.open(step)
        assert plan == PLANS[step]
        found = list(batches)
        assert len(found) == len(plan)
        for members, batch in zip(plan, found, strict=True):
            assert same(batch, collate([split[row] for row in members]))


class Noting:
    """A split that notes who reads it, and fails at one row."""

    def __init__(self, split: TokenizedSplit, broken: int) -> None:
        self._split, self._broken = split, broken
        self.readers: list[tuple[int, str]] = []

    def __getitem__(self, row: int) -> TokenizedRow:
        self.readers.append((row, threading.current_thread().name))
        if row == self._broken:
            raise OSError(f"row {row} cannot be read")
        return self._split[row]


@pytest.mark.parametrize(("broken", "step", "num_good"), [(3, 0, 2), (5, 1, 0), (6, 2, 0)])
def test_an_error_of_the_thread_is_told_where_it_belongs(
    split: TokenizedSplit, broken: int, step: int, num_good: int
) -> None:
    loader = Loader(Noting(split, broken), PLANS.__getitem__, CPU, one_line=False, ahead=True)  # type: ignore[arg-type]
    for before in range(step):
        assert len(list(loader.open(before)[1])) == len(PLANS[before])
    found = []
    with pytest.raises(OSError, match=f"row {broken} cannot be read"):  # noqa: PT012 - the place is the point
        for batch in loader.open(step)[1]:
            found.append(batch)
    assert len(found) == num_good


def test_the_next_one_is_laid_out_while_one_is_in_use(split: TokenizedSplit) -> None:
    noting = Noting(split, broken=-1)
    loader = Loader(noting, PLANS.__getitem__, CPU, one_line=False, ahead=True)  # type: ignore[arg-type]
    _, batches = loader.open(0)
    next(batches)
    wait_for(noting, 2)
    next(batches), next(batches)
    wait_for(noting, 5)
    assert all(name.startswith("loader") for row, name in noting.readers if row not in PLANS[0][0])


def wait_for(noting: Noting, row: int) -> None:
    """Until a row was read that nobody has asked for yet."""
    for _ in range(1000):
        if row in [read for read, _ in noting.readers]:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"row {row} was not read ahead")
