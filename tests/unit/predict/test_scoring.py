"""Log-likelihoods of given words: those of transformers, whatever the batches and the shared prompts are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from clsgen_dist.errors import BundleError, NumericsError
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.predict import scoring
from clsgen_dist.predict.scoring import Comparison, Continuation, Score, Scorer, batches
from tests.support.tiny import FAMILIES, WINDOW, tiny_dual

CPU = torch.device("cpu")

#: Tokens of prompt and continuation, and how many of these are given; several reach past Gemma's window.
SHAPES = [(5, 4, 0), (20, 9, 2), (1, 12, 0), (3, 1, 0), (14, 6, 5), (2 * WINDOW, 3, 1), (9, 30, 3), (1, 25, 0)]


@cache
def dual(family: str = "llama", *, lora: bool = True) -> DualHead:
    model = tiny_dual(family, lora=lora)
    assert isinstance(model, DualHead)
    return model


def scorer(model: DualHead, budget: int = 10_000) -> Scorer:
    return Scorer(model, budget, CPU)


@cache
def asked() -> list[Continuation]:
    """Of the shapes above, two continuations of each prompt: one as long as the shape says, one half as long."""
    draw = np.random.default_rng(1)
    found = []
    for num_prompt, num_ids, num_given in SHAPES:
        prompt = draw.integers(5, 320, num_prompt).tolist()
        for length in (num_ids, num_given + (num_ids - num_given + 1) // 2):
            found.append(Continuation(prompt, draw.integers(5, 320, length).tolist(), num_given))
    return found


def by_transformers(model: DualHead, c: Continuation, *, base: bool = False) -> Score:
    """transformers' own loss of one sequence, times the tokens that it is the mean of."""
    ids = torch.tensor([[*c.prompt, *c.ids]])
    labels = ids.clone()
    labels[:, : len(c.prompt) + c.num_given] = -100
    num_tokens = len(c.ids) - c.num_given
    with torch.no_grad():
        if base:
            with model.adapter_off():
                loss = model.causal_lm(input_ids=ids, labels=labels, use_cache=False).loss
        else:
            loss = model.causal_lm(input_ids=ids, labels=labels, use_cache=False).loss
    return Score(-float(loss) * num_tokens, num_tokens)


def values(scores: Sequence[Score]) -> np.ndarray:
    return np.array([score.log_likelihood for score in scores])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("base", [False, True], ids=["tuned", "base"])
def test_scores_are_transformers_own_loss(family: str, base: bool) -> None:
    found = scorer(dual(family)).score(asked(), base=base)
    expected = [by_transformers(dual(family), c, base=base) for c in asked()]
    assert values(found) == pytest.approx(values(expected), rel=1e-5)
    assert [score.num_tokens for score in found] == [score.num_tokens for score in expected]
    assert values(found).std() > 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [60, 250])
def test_batches_and_order_change_nothing(family: str, budget: int) -> None:
    alone = [scorer(dual(family)).score([c])[0] for c in asked()]
    together = scorer(dual(family), budget).score(asked())
    backwards = scorer(dual(family), budget).score(asked()[::-1])[::-1]
    assert values(together) == pytest.approx(values(alone), rel=1e-5)
    assert values(backwards) == pytest.approx(values(alone), rel=1e-5)


def test_chunks_of_positions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, both = scorer(dual()).score(asked()), scorer(dual()).compare(asked())
    sizes, lm_logits = [], DualHead.lm_logits
    monkeypatch.setattr(scoring, "CHUNK_LOGITS", 320 * 7)

    def seen(self: DualHead, hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return lm_logits(self, hidden)

    monkeypatch.setattr(DualHead, "lm_logits", seen)
    assert values(scorer(dual()).score(asked())) == pytest.approx(values(whole), rel=1e-6)
    assert np.array(scorer(dual()).compare(asked())) == pytest.approx(np.array(both), rel=1e-5)
    assert max(sizes) == 7
    assert sum(sizes) == 3 * sum(len(c.ids) - c.num_given for c in asked())


def test_a_prompt_is_read_once_for_all_that_follows_it() -> None:
    model, seen = tiny_dual(), []
    model.causal_lm.get_decoder().register_forward_pre_hook(
        lambda m, a, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompt = list(range(10, 30))
    scorer(model).score([Continuation(prompt, [5, 6, 7]), Continuation(prompt, [8, 9]), Continuation([40], [41])])
    assert seen == [(2, 20), (3, 2)]
    seen.clear()
    scorer(model).score([Continuation(prompt, [5]), Continuation(prompt, [6])])
    assert seen == [(1, 20)], "one token each: all of it is in the prompt's last state"


def test_no_batch_is_over_the_budget_and_none_is_left_out() -> None:
    for budget in (1, 60, 100, 250):
        found = list(batches(asked(), budget))
        assert sorted(n for batch in found for n in batch) == list(range(len(asked())))
        for batch in found:
            some = [asked()[n] for n in batch]
            places = (max(len(c.prompt) for c in some) + max(len(c.ids) for c in some)) * len(some)
            assert places <= budget or len(batch) == 1
    assert len(list(batches(asked(), 250))) < len(list(batches(asked(), 60)))


def test_nothing_to_score_is_nought() -> None:
    given = Continuation([5, 6], [7, 8], num_given=2)
    found = scorer(dual()).score([given, asked()[0], Continuation([5], [])])
    assert found[0] == found[2] == Score(0.0, 0)
    assert found[1] == by_transformers(dual(), asked()[0])._replace(
        log_likelihood=pytest.approx(by_transformers(dual(), asked()[0]).log_likelihood, rel=1e-5)
    )
    assert scorer(dual()).score([]) == scorer(dual()).compare([]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_comparing_scores_under_both_models_and_takes_their_kl(family: str) -> None:
    model = dual(family)
    found = scorer(model, 100).compare(asked())
    assert [c.tuned for c in found] == pytest.approx(values(scorer(model).score(asked())), rel=1e-5)
    assert [c.base for c in found] == pytest.approx(values(scorer(model).score(asked(), base=True)), rel=1e-5)
    for c, comparison in zip(asked(), found, strict=True):
        ids = torch.tensor([[*c.prompt, *c.ids]])
        with torch.no_grad():
            tuned = model.causal_lm(input_ids=ids, use_cache=False).logits
            with model.adapter_off():
                base = model.causal_lm(input_ids=ids, use_cache=False).logits
        p, q = (functional.log_softmax(x[0, len(c.prompt) + c.num_given - 1 : -1].double(), -1) for x in (base, tuned))
        assert comparison.kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)
        assert comparison.kl > 0
        assert comparison.num_tokens == len(c.ids) - c.num_given


def test_an_adapter_that_changes_nothing_has_no_kl_at_all() -> None:
    model = tiny_dual(lora=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert [(c.kl, c.tuned - c.base) for c in scorer(model).compare(asked())] == [(0.0, 0.0)] * len(asked())


def test_the_adapter_is_on_again_after_the_base_was_asked() -> None:
    before = scorer(dual()).score(asked())
    scorer(dual()).score(asked(), base=True)
    scorer(dual()).compare(asked())
    assert scorer(dual()).score(asked()) == before


def test_a_model_without_adapter_has_no_base() -> None:
    full = scorer(dual(lora=False))
    assert "all weights were fine-tuned" in (full.no_base or "")
    assert scorer(dual()).no_base is None
    with pytest.raises(BundleError, match="no base model"):
        full.score(asked(), base=True)
    with pytest.raises(BundleError, match="no base model"):
        full.compare(asked())


def test_in_bf16_scores_are_those_of_fp32_within_rounding() -> None:
    model, exact = tiny_dual(lora=True), scorer(dual()).score(asked())
    rough = scorer(model.to(torch.bfloat16), 250).score(asked())
    num_tokens = np.array([score.num_tokens for score in exact])
    assert (values(rough) - values(exact)) / num_tokens == pytest.approx(0, abs=0.1)
    alone = [scorer(model).score([c])[0] for c in asked()]
    assert (values(rough) - values(alone)) / num_tokens == pytest.approx(0, abs=0.1)
    assert not np.array_equal(values(rough), values(exact))


def test_a_broken_model_is_refused() -> None:
    model = tiny_dual()
    with torch.no_grad():
        model.causal_lm.get_output_embeddings().weight[3] = float("nan")
    with pytest.raises(NumericsError, match="log-likelihood"):
        scorer(model).score(asked())


def test_progress_counts_every_continuation() -> None:
    heard: list[int] = []
    scorer(dual(), 100).score(asked(), on_progress=heard.append)
    assert sum(heard) == len(asked())
    assert len(heard) > 2


def test_comparison_is_plain_numbers() -> None:
    """Ranks send them to each other, and they go into JSON."""
    found: Any = [*scorer(dual()).compare(asked()[:1]), *scorer(dual()).score(asked()[:1])]
    assert isinstance(found[0], Comparison)
    assert {type(value) for value in found[0]} == {type(value) for value in found[1]} == {float, int}
