"""Packed, padded left, padded right, pad token equal to EOS: the same logits of both heads, in every family."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from clsgen_dist.data.batch import collate
from clsgen_dist.data.tokens import TokenizedRow
from clsgen_dist.model.dual_head import DualHead, DualHeadOutput
from tests.support.tiny import FAMILIES, WINDOW, tiny_dual, tiny_tokenized

TOLERANCE = 1e-5
EOS = 2

#: Tokens of prompt and completion; several rows reach past Gemma's window.
SHAPES = [(5, 4), (20, 9), (1, 0), (3, 1), (14, 0), (7, 6), (2 * WINDOW, 3), (9, 12), (1, 5), (4, 4)] * 3

dual = cache(tiny_dual)


def packed(
    model: DualHead, rows: list[TokenizedRow], *, one_line: bool = False, with_base: bool = False
) -> DualHeadOutput:
    batch = collate(rows, one_line=one_line)
    with torch.no_grad():
        output = model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index, with_base=with_base)
    assert isinstance(output, DualHeadOutput)
    return output


def sequence(row: TokenizedRow) -> list[int]:
    return [*row.prompt.tolist(), *row.completion[:-1].tolist()]


def padded(model: DualHead, rows: list[TokenizedRow], *, side: str, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both heads' logits the textbook way: transformers' own model, all logits, a mask, the padding on one side."""
    width = max(len(sequence(row)) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    starts = []
    for b, row in enumerate(rows):
        start = 0 if side == "right" else width - len(sequence(row))
        ids[b, start : start + len(sequence(row))] = torch.tensor(sequence(row))
        mask[b, start : start + len(sequence(row))] = 1
        starts.append(start)
    with torch.no_grad():
        output = model.causal_lm(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            output_hidden_states=True,
            use_cache=False,
        )
        ends = [start + len(row.prompt) - 1 for start, row in zip(starts, rows, strict=True)]
        cls = model.head(output.hidden_states[-1][range(len(rows)), ends])
    scored = [
        output.logits[b, ends[b] + row.num_unscored : ends[b] + len(row.completion)] for b, row in enumerate(rows)
    ]
    return cls, torch.cat(scored)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_packed_is_padded_on_either_side(family: str, lora: bool) -> None:
    model, rows = dual(family, lora=lora), tiny_tokenized(SHAPES)
    layouts = {
        "packed": packed(model, rows)[:2],
        "one line": packed(model, rows, one_line=True)[:2],
        "left": padded(model, rows, side="left", pad=0),
        "right": padded(model, rows, side="right", pad=0),
        "left, pad is EOS": padded(model, rows, side="left", pad=EOS),
        "right, pad is EOS": padded(model, rows, side="right", pad=EOS),
    }
    assert collate(rows).input_ids.shape[0] > 1
    cls, lm = layouts["right"]
    assert cls.std() > 0.1
    assert lm.std() > 0.1
    for name, (other_cls, other_lm) in layouts.items():
        torch.testing.assert_close(other_cls, cls, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")
        torch.testing.assert_close(other_lm, lm, atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("one_line", [False, True])
def test_a_row_does_not_read_its_neighbours(family: str, one_line: bool) -> None:
    """The layout stays, the neighbours' tokens change: bit-equal logits, unless a mask or a cache is passed."""
    model, rows = dual(family), tiny_tokenized(SHAPES)
    others = [row if n % 2 else changed(row) for n, row in enumerate(rows)]
    mine, theirs = packed(model, rows, one_line=one_line), packed(model, others, one_line=one_line)
    assert torch.equal(mine.cls_logits_EK[1::2], theirs.cls_logits_EK[1::2])
    owners = collate(rows, one_line=one_line).lm_rows
    assert torch.equal(mine.lm_logits_NV[owners % 2 == 1], theirs.lm_logits_NV[owners % 2 == 1])
    assert not torch.equal(mine.cls_logits_EK[::2], theirs.cls_logits_EK[::2])


def changed(row: TokenizedRow) -> TokenizedRow:
    return TokenizedRow(row.prompt // 2 + 5, row.completion // 2 + 5, row.label, row.num_unscored)


def contaminated(**extra: Any) -> float:
    """How far a row's state moves with its neighbour, with an argument too many."""
    model, rows = dual("llama"), tiny_tokenized([(6, 0), (6, 0)])
    states = []
    for first in (rows[0], changed(rows[0])):
        batch = collate([first, rows[1]], one_line=True)
        more = {name: torch.ones_like(batch.input_ids) if value == "ones" else value for name, value in extra.items()}
        with torch.no_grad():
            output = model.decode(input_ids=batch.input_ids, position_ids=batch.position_ids, **more)
        states.append(output.last_hidden_state[0, int(batch.cls_index[1])])
    return float((states[0] - states[1]).abs().max())


def test_the_trap_is_real() -> None:
    """What the model must not pass: with it, transformers lets packed rows read each other and says nothing."""
    assert contaminated(use_cache=False) == 0
    assert contaminated(use_cache=True) > 0.01
    assert contaminated(use_cache=False, attention_mask="ones") > 0.01


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_decoder_is_called_without_mask_and_cache(lora: bool) -> None:
    model, seen = tiny_dual(lora=lora), []
    decoder = model.causal_lm.get_decoder()
    decoder.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    packed(model, tiny_tokenized(SHAPES), with_base=lora)
    assert len(seen) == 1 + lora
    for args, kwargs in seen:
        assert args == ()
        assert kwargs["use_cache"] is False
        assert kwargs.get("attention_mask") is None
        assert kwargs.get("past_key_values") is None
        assert kwargs["position_ids"] is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_probability_is_bit_equal_whatever_explanation_follows(family: str) -> None:
    model, rows = dual(family), tiny_tokenized(SHAPES)
    other = [TokenizedRow(row.prompt, np.roll(row.completion, 1) // 3 + 5, row.label, row.num_unscored) for row in rows]
    one, two = packed(model, rows), packed(model, other)
    assert torch.equal(one.cls_logits_EK, two.cls_logits_EK)
    assert not torch.equal(one.lm_logits_NV, two.lm_logits_NV)
    bare = [TokenizedRow(row.prompt, row.completion[:0], row.label, 0) for row in rows]
    torch.testing.assert_close(packed(model, bare).cls_logits_EK, one.cls_logits_EK, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_micro_batch_runs_and_gives_a_gradient_of_zero(family: str) -> None:
    model = tiny_dual(family).train()
    batch = collate([])
    output = model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
    assert output.cls_logits_EK.shape == (0, 2)
    assert output.lm_logits_NV.shape == (0, 320)
    (output.cls_logits_EK.sum() + output.lm_logits_NV.sum()).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
