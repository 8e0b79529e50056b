"""Greedy decoding from one prefill: as transformers writes, forced openings kept, ended rows let go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.predict.decoding import Written, decode_greedily, prefill
from tests.support.tiny import FAMILIES, WINDOW, tiny_dual

CPU = torch.device("cpu")
NO_END = 319  # an id that the models below do not write
NUM_NEW = 14


@cache
def dual(family: str, *, lora: bool = False) -> DualHead:
    """Gemma3 with an output layer of its own: with the tied one a random model repeats its last token."""
    model = tiny_dual(family, lora=lora, **({"tie_word_embeddings": False} if family == "gemma3" else {}))
    assert isinstance(model, DualHead)
    return model


def prompts(lengths: Sequence[int] = (3, 2 * WINDOW, 9, 5, 20)) -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [draw.integers(5, 300, length).tolist() for length in lengths]


def write(
    model: DualHead,
    texts: list[list[int]],
    forced: list[list[int]] | None = None,
    *,
    eos: int = NO_END,
    num: int = NUM_NEW,
) -> list[Written]:
    start = prefill(model, texts, CPU, with_cache=True)
    return decode_greedily(model, start, forced or [[] for _ in texts], eos=eos, max_new_tokens=num)


def generated(model: DualHead, prompt: list[int], *, eos: int = NO_END) -> list[int]:
    """What transformers writes, one prompt at a time, without EOS."""
    ids = model.causal_lm.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=NUM_NEW, eos_token_id=eos, pad_token_id=0
    )
    new: list[int] = ids[0, len(prompt) :].tolist()
    return new[: new.index(eos)] if eos in new else new


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_free_writing_is_that_of_transformers(family: str, lora: bool) -> None:
    """Gemma3's window is shorter than some of these prompts."""
    model, texts = dual(family, lora=lora), prompts()
    expected = [generated(model, prompt) for prompt in texts]
    assert len({tuple(ids) for ids in expected}) == len(texts)
    assert max(len(set(ids)) for ids in expected) > 5, "varied text, or the cache would not matter"
    assert [written.ids for written in write(model, texts)] == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_stops_a_row_and_the_others_go_on(family: str) -> None:
    model, texts = dual(family), prompts()
    endless = [generated(model, prompt) for prompt in texts]
    eos = endless[1][4]
    expected = [generated(model, prompt, eos=eos) for prompt in texts]
    assert min(map(len, expected)) < max(map(len, expected))
    found = [written.ids for written in write(model, texts, eos=eos)]
    assert found == expected
    assert not any(eos in ids for ids in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_ended_rows_cost_nothing_from_there_on(family: str) -> None:
    model, texts, widths = tiny_dual(family), prompts(), []
    endless = [generated(model, prompt) for prompt in texts]
    eos = endless[1][4]
    decoder = model.causal_lm.get_decoder()
    decoder.register_forward_pre_hook(lambda m, a, kwargs: widths.append(kwargs["input_ids"].shape), with_kwargs=True)
    lengths = [len(written.ids) for written in write(model, texts, eos=eos)]
    prompt_width = max(map(len, texts))
    assert widths[0] == (len(texts), prompt_width)
    alive = [sum(length > position for length in lengths) for position in range(NUM_NEW - 1)]
    assert [tuple(shape) for shape in widths[1:]] == [(number, 1) for number in alive if number]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prompt_is_read_once(family: str) -> None:
    model, seen = tiny_dual(family), []
    decoder = model.causal_lm.get_decoder()
    decoder.register_forward_pre_hook(lambda m, a, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    write(model, prompts(), [[7, 8]] * 5)
    assert seen == [20] + [1] * (NUM_NEW - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_forced_openings_are_followed_and_written_on_from(family: str) -> None:
    model, texts = dual(family), prompts()
    forced = [[50, 60, 70], [], [80], [90, 91, 92, 93, 94], [95]]
    found = write(model, texts, forced)
    for prompt, opening, written in zip(texts, forced, found, strict=True):
        assert written.ids[: len(opening)] == opening
        assert written.ids[len(opening) :] == generated(model, prompt + opening)[: NUM_NEW - len(opening)]


def test_it_is_noted_whether_the_opening_was_the_first_choice() -> None:
    model, texts = dual("llama"), prompts()
    own = [generated(model, prompt) for prompt in texts]
    forced = [own[0][:3], [*own[1][:2], own[1][2] - 1], [], [own[3][0] - 1, *own[3][1:3]], own[4][:1]]
    found = write(model, texts, forced)
    assert [written.forced_was_first_choice for written in found] == [True, False, True, False, True]
    assert found[0].ids == own[0], "a forced first choice is the free text"


def test_an_end_inside_a_forced_opening_does_not_end_the_row() -> None:
    model, texts = dual("llama"), prompts((4, 6))
    found = write(model, texts, [[NO_END, 9], [8]])
    assert next(written.ids[:2] for written in found) == [NO_END, 9]
    assert len(found[0].ids) == NUM_NEW


def test_a_row_may_end_at_once() -> None:
    model, texts = dual("llama"), prompts()
    eos = generated(model, texts[2])[0]
    found = write(model, texts, eos=eos)
    assert found[2].ids == []
    assert [w.ids for w in found] == [generated(model, prompt, eos=eos) for prompt in texts]
    assert write(model, [texts[2]], eos=eos)[0].ids == []


@pytest.mark.parametrize("num", [1, 2, 5])
def test_no_row_is_longer_than_asked(num: int) -> None:
    model, texts = dual("llama"), prompts()
    assert [w.ids for w in write(model, texts, num=num)] == [generated(model, prompt)[:num] for prompt in texts]
    assert [len(w.ids) for w in write(model, texts, [[5, 6, 7]] * 5, num=num)] == [num] * 5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_hidden_state_is_that_of_the_prompt_alone(family: str) -> None:
    model: Any = dual(family)
    texts = prompts()
    for with_cache in (False, True):
        start = prefill(model, texts, CPU, with_cache=with_cache)
        assert (start.cache is not None) == with_cache
        assert start.mask_BT.sum(1).tolist() == [len(prompt) for prompt in texts]
        for prompt, hidden in zip(texts, start.hidden_BD, strict=True):
            with torch.no_grad():
                alone = model.causal_lm.model(input_ids=torch.tensor([prompt]), use_cache=False).last_hidden_state
            torch.testing.assert_close(hidden, alone[0, -1], atol=1e-5, rtol=1e-5)


def opened(num_shared: int, lengths: Sequence[int]) -> list[list[int]]:
    opening = np.random.default_rng(7).integers(5, 300, num_shared).tolist()
    return [opening + rest for rest in prompts(lengths)]


def passes(model: DualHead, texts: list[list[int]], *, with_cache: bool) -> tuple[list[tuple[int, ...]], torch.Tensor]:
    """Shapes of what the decoder was given, and the hidden states that came out."""
    seen: list[tuple[int, ...]] = []
    hook = model.causal_lm.get_decoder().register_forward_pre_hook(
        lambda m, a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    hidden_BD = prefill(model, texts, CPU, with_cache=with_cache).hidden_BD
    hook.remove()
    return seen, hidden_BD


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("with_cache", [False, True])
def test_what_all_prompts_open_with_is_run_once(family: str, with_cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = dual(family), opened(9, (3, 12, 1, 5))
    seen, hidden_BD = passes(model, texts, with_cache=with_cache)
    assert seen == [(1, 9), (4, 12)]
    monkeypatch.setattr("clsgen_dist.predict.decoding.MIN_SHARED", 100)
    seen, expected_BD = passes(model, texts, with_cache=with_cache)
    assert seen == [(4, 21)]
    assert hidden_BD.numpy() == pytest.approx(expected_BD.numpy(), abs=2e-5)
    assert expected_BD.std(dim=0).min() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", [WINDOW, 512])
def test_rows_that_share_their_opening_write_as_each_alone(family: str, window: int) -> None:
    """Also where a window is shorter than the rows, which then share nothing."""
    shape = {"tie_word_embeddings": False, "sliding_window": window} if family == "gemma3" else {}
    model, texts = tiny_dual(family, **shape), opened(9, (3, 30, 1, 5))
    is_shared = len(passes(model, texts, with_cache=True)[0]) == 2
    assert is_shared == (family != "gemma3" or window == 512)
    assert [written.ids for written in write(model, texts)] == [generated(model, prompt) for prompt in texts]


def test_a_prompt_that_opens_all_others_keeps_a_token_of_its_own() -> None:
    model, texts = dual("llama"), opened(9, (3, 4))
    texts.append(texts[0][:9])
    assert passes(model, texts, with_cache=True)[0] == [(1, 8), (3, 5)]
    assert [written.ids for written in write(model, texts)] == [generated(model, prompt) for prompt in texts]


def test_no_logits_are_computed_while_all_rows_are_forced_and_nobody_asks() -> None:
    model, texts, forced = tiny_dual(), prompts((4, 6, 5)), [[7, 8], [9, 10, 11], [12, 13]]
    rows_read: list[int] = []
    model.causal_lm.get_output_embeddings().register_forward_pre_hook(lambda m, args: rows_read.append(len(args[0])))
    noted = write(model, texts, forced)
    assert rows_read == [3] * NUM_NEW
    rows_read.clear()
    start = prefill(model, texts, CPU, with_cache=True)
    found = decode_greedily(model, start, forced, eos=NO_END, max_new_tokens=NUM_NEW, note_choices=False)
    assert rows_read == [3] * (NUM_NEW - 2)
    assert [written.ids for written in found] == [written.ids for written in noted]
