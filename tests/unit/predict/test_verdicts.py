"""Probabilities from words: the likelihood of a verdict, however it is batched, in the place of a head's logits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.config.sections import Task
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.predict.decoding import prefill
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.predict.verdicts import score_verdicts
from clsgen_dist.records import Row
from clsgen_dist.sealed import PROBABILITY, VERDICT
from tests.support.tiny import FAMILIES, tiny_dual, tiny_rows, tiny_tokenizer

CPU = torch.device("cpu")
ROWS = [Row(id=r["id"], text=r["text"], label=r["label"]) for r in tiny_rows(9)]


@cache
def bundle(family: str = "llama") -> Bundle:
    # Of one, two and more tokens.
    task = Task(question="Fever?", labels=["no", "yes", "nobody knows"], prompt_template="{text}\nUrgent?")
    tokenizer = RowTokenizer(tiny_tokenizer(), task, max_prompt_tokens=48, max_explanation_tokens=32)
    manifest = {PROBABILITY: VERDICT}
    return Bundle(Path(), manifest, task, tiny_dual(family, num_labels=3), tokenizer, IDENTITY, None)


def by_hand(made: Bundle, prompt: list[int], verdict: list[int]) -> float:
    """One plain pass of transformers over prompt and verdict."""
    with torch.no_grad():
        logits_TV = made.model.causal_lm(input_ids=torch.tensor([prompt + verdict])).logits[0].double()
    scores = logits_TV.log_softmax(-1)
    return sum(float(scores[len(prompt) - 1 + n, token]) for n, token in enumerate(verdict))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_the_log_likelihood_of_the_verdict_after_the_prompt(family: str) -> None:
    made = bundle(family)
    prompts = made.tokenizer.encode_prompts([row.text for row in ROWS])
    assert len({len(prompt) for prompt in prompts}) > 3, "padding is at work"
    found = score_verdicts(made.model, prefill(made.model, prompts, CPU, with_cache=True), made.tokenizer.verdicts)
    expected = [[by_hand(made, prompt, verdict) for verdict in made.tokenizer.verdicts] for prompt in prompts]
    assert found == pytest.approx(np.array(expected), abs=1e-4)
    assert found.std() > 0.5


def test_predictions_of_such_a_bundle_are_those_of_the_verdicts() -> None:
    made = bundle()
    predictor = Predictor(made, token_budget=300, max_new_tokens=6, device=CPU)
    silent, spoken = predictor.predict(ROWS, num_explained=0), predictor.predict(ROWS, free=True)
    for row, alone, beside in zip(ROWS, silent, spoken, strict=True):
        (prompt,) = made.tokenizer.encode_prompts([row.text])
        scores = np.array([by_hand(made, prompt, verdict) for verdict in made.tokenizer.verdicts])
        assert alone.logits == pytest.approx(scores, abs=1e-4)
        assert beside.logits == pytest.approx(alone.logits, abs=1e-4)
        expected = np.exp(scores) / np.exp(scores).sum()
        assert list(alone.raw_probability.values()) == pytest.approx(expected, abs=1e-4)
        assert alone.predicted == made.task.labels[int(scores.argmax())]
        assert beside.explanation is not None


def test_the_words_do_not_depend_on_scores_taken_before() -> None:
    """Scoring leaves the cache as it is: what is decoded after it is what would have been decoded without it."""
    scored = bundle()
    by_head = replace(scored, manifest={})
    one, other = (
        Predictor(made, token_budget=300, max_new_tokens=8, device=CPU).predict(ROWS, free=True)
        for made in (scored, by_head)
    )
    assert [(p.free_verdict, p.free_explanation) for p in one] == [(p.free_verdict, p.free_explanation) for p in other]
