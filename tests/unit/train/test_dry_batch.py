"""The micro-batch that is run before the first step, and what counts as memory that has run out."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from clsgen_dist.train.dry_batch import heaviest, is_out_of_memory


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
