"""The micro-batch that is run before the first step, and what counts as memory that has run out."""

from __future__ import annotations

import resource
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clsgen_dist.train import dry_batch
from clsgen_dist.train.dry_batch import check_fits, heaviest, is_out_of_memory


class Split:
    """Lengths and scored tokens alone."""

    def __init__(self, lengths: list[int], scored: list[int]) -> None:
        self.lengths, self.num_scored = np.array(lengths), np.array(scored)

    def __len__(self) -> int:
        return len(self.lengths)


def test_the_heaviest_micro_batch_has_the_long_rows() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(10, 30, size=400).tolist()
    split = Split(lengths, [length // 3 for length in lengths])
    split.lengths[[17, 230]] = 100
    split.num_scored[[17, 230]] = 90
    for world_size in (1, 2):
        members = heaviest(split, 3, 8, 120, world_size)  # type: ignore[arg-type]
        assert {17, 230} & set(members)
        assert split.lengths[members].sum() <= 120


def test_one_row_is_enough() -> None:
    assert heaviest(Split([5], [0]), 0, 8, 10, 2) == [0]  # type: ignore[arg-type]


@pytest.mark.parametrize(("token_budget", "num_rows"), [(100, [2, 4]), (1000, [8])])
def test_the_whole_budget_is_tried_only_where_rows_of_a_step_fill_more_than_half(
    token_budget: int, num_rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows of 20 tokens a step."""
    tried: list[int] = []

    def rehearse(engine: object, ranks: object, split: object, weights: object, members: list[int], *_: object) -> None:
        tried.append(len(members))

    monkeypatch.setattr(dry_batch, "_rehearse", rehearse)
    engine = SimpleNamespace(optimizer_steps=int, module=torch.nn.Identity())
    check_fits(
        engine,  # type: ignore[arg-type]
        SimpleNamespace(world_size=1, rank=0),  # type: ignore[arg-type]
        Split([20] * 40, [5] * 40),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        seed=0,
        global_batch=8,
        token_budget=token_budget,
        one_line=False,
    )
    assert tried == num_rows


def test_what_torch_says_where_there_is_no_memory() -> None:
    """Said by a process that may take no more."""
    program = (
        "import resource, torch\n"
        "from clsgen_dist.train.dry_batch import is_out_of_memory\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, {resource.RLIM_INFINITY}))\n"
        "try:\n    torch.empty(2**34)\nexcept RuntimeError as error:\n    print(is_out_of_memory(error))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.split() == ["True"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(torch.OutOfMemoryError("CUDA out of memory"), True), (MemoryError(), True), (RuntimeError("mat1 x mat2"), False)],
)
def test_other_errors_are_none_of_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
