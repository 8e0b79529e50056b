"""The layout of a micro-batch: every row once, in order, with its positions, and scored where it should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.data.batch import Batch, collate
from clsgen_dist.data.tokens import TokenizedRow
from tests.support.tiny import tiny_tokenized

sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 6)), min_size=1, max_size=30)


def read_back(batch: Batch, rows: list[TokenizedRow]) -> None:
    """Asserts that a batch says of each row what the row is."""
    ids, positions = batch.input_ids.flatten(), batch.position_ids.flatten()
    width = batch.input_ids.shape[1]
    used = torch.zeros_like(ids, dtype=torch.bool)
    for number, row in enumerate(rows):
        start = int(batch.cls_index[number]) - len(row.prompt) + 1
        whole = np.concatenate([row.prompt, row.completion[:-1]])
        place = slice(start, start + len(whole))
        assert start // width == (start + len(whole) - 1) // width, "a row stands in one line"
        assert ids[place].tolist() == whole.tolist()
        assert positions[place].tolist() == list(range(len(whole)))
        assert not used[place].any()
        used[place] = True
        mine = batch.lm_rows == number
        assert batch.lm_targets[mine].tolist() == row.completion[row.num_unscored :].tolist()
        first = int(batch.cls_index[number]) + row.num_unscored
        assert batch.lm_index[mine].tolist() == list(range(first, first + len(row.completion) - row.num_unscored))
    assert not ids[~used].any()
    assert not positions[~used].any(), "a padded place is a row of its own"
    assert batch.labels.tolist() == [row.label for row in rows]


@given(sizes, st.booleans())
@settings(max_examples=80)
def test_every_row_stands_once_in_one_line(shape: list[tuple[int, int]], one_line: bool) -> None:
    rows = tiny_tokenized(shape)
    read_back(collate(rows, one_line=one_line), rows)


@given(sizes)
@settings(max_examples=40)
def test_one_line_has_no_padding(shape: list[tuple[int, int]]) -> None:
    batch = collate(tiny_tokenized(shape), one_line=True)
    assert batch.input_ids.shape == (1, sum(prompt + max(0, completion - 1) for prompt, completion in shape))


def test_lines_hold_several_rows_with_little_padding() -> None:
    rows = tiny_tokenized([(n % 9 + 4, n % 5) for n in range(64)])
    batch = collate(rows)
    num_tokens = sum(len(row.prompt) + max(0, len(row.completion) - 1) for row in rows)
    assert 1 < batch.input_ids.shape[0] < len(rows)
    assert num_tokens > 0.9 * batch.input_ids.numel()


def test_few_rows_of_unequal_length_are_paired() -> None:
    """A step of 16 sentences of 60 to 100 tokens: a line for each would be one fifth of padding."""
    lengths = np.random.default_rng(0).integers(60, 101, size=16).tolist()
    batch = collate(tiny_tokenized([(length, 0) for length in lengths]))
    assert sum(lengths) > 0.94 * batch.input_ids.numel()


def test_long_rows_have_a_line_each() -> None:
    """One line of eight long rows would make attention, which grows with the square, the larger part of the cost."""
    assert collate(tiny_tokenized([(2000, 1)] * 8)).input_ids.shape == (8, 2000)


def test_no_rows_are_one_place_that_nobody_reads() -> None:
    batch = collate([])
    assert batch.input_ids.tolist() == [[0]]
    assert batch.position_ids.tolist() == [[0]]
    for name in ("cls_index", "labels", "lm_index", "lm_targets", "lm_rows"):
        assert getattr(batch, name).shape == (0,)
        assert getattr(batch, name).dtype == torch.long


@pytest.mark.parametrize("name", Batch.__dataclass_fields__)
def test_a_batch_moves_whole(name: str) -> None:
    batch = collate(tiny_tokenized([(3, 2)]))
    assert getattr(batch.to("meta"), name).device.type == "meta"
