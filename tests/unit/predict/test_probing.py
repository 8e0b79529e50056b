"""Raw numbers of language: which words are scored after which verdict, under which model; shares put together."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.config.sections import Task
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.predict.probing import score_language
from clsgen_dist.records import LanguageScores, Prediction, Row, TextScore
from tests.support.tiny import tiny_dual, tiny_rows, tiny_tokenizer

CPU = torch.device("cpu")
ROWS = [Row(**row) for row in tiny_rows(8)]  # the fourth and the last have no explanation
PASSAGES = [("a", "pain known since monday"), ("b", "the cough is mild and old"), ("c", "nothing new")]


@cache
def bundle(*, lora: bool = True, bos: bool = False, labels: tuple[str, ...] = ("no", "yes")) -> Bundle:
    task = Task(question="Fever?", labels=list(labels), prompt_template="{text}\nUrgent?")
    tokenizer = RowTokenizer(tiny_tokenizer(bos=bos), task, max_prompt_tokens=48, max_explanation_tokens=32)
    return Bundle(Path(), {}, task, tiny_dual(lora=lora, num_labels=len(labels)), tokenizer, IDENTITY, 0.5)


def prediction(
    row: Row,
    *,
    predicted: str = "yes",
    words: str | None = "A fever.",
    free_verdict: str | None = "no",
    free_words: str | None = "All is fine.",
) -> Prediction:
    return Prediction(
        id=row.id,
        label=None,
        probability={"no": 0.4, "yes": 0.6},
        raw_probability={"no": 0.4, "yes": 0.6},
        predicted=predicted,
        explanation=words,
        free_verdict=free_verdict,
        free_explanation=free_words,
        is_cut=False,
        is_free_cut=False,
        logits=[0.0, 0.0],
    )


PREDICTIONS = [prediction(row, predicted=("no", "yes")[n % 2], words=f"Since {n}.") for n, row in enumerate(ROWS)]


def scores(
    made: Bundle, rows: list[Row] = ROWS, found: list[Prediction] = PREDICTIONS, **options: Any
) -> LanguageScores:
    options = {"token_budget": 2048, "device": CPU} | options
    return score_language(made, rows, found, options.pop("passages", PASSAGES), **options)


def log_likelihood(made: Bundle, before: list[int], words: list[int], *, base: bool = False) -> float:
    """Of words after other ids, one token at a time from transformers' own logits."""
    model = made.model
    ids = torch.tensor([[*before, *words]])
    with torch.no_grad():
        if base:
            with model.adapter_off():
                logits = model.causal_lm(input_ids=ids, use_cache=False).logits[0]
        else:
            logits = model.causal_lm(input_ids=ids, use_cache=False).logits[0]
    log_p = torch.log_softmax(logits.double(), dim=-1)
    return float(sum(log_p[len(before) + t - 1, token] for t, token in enumerate(words)))


def plain(made: Bundle, words: str) -> list[int]:
    ids: list[int] = made.tokenizer.tokenizer(words, add_special_tokens=False)["input_ids"]
    return ids


def test_words_are_scored_after_their_own_verdict_and_after_every_other() -> None:
    made = bundle(labels=("no", "yes", "maybe"))
    found = scores(made)
    assert [swap.id for swap in found.swaps] == [row.id for row in ROWS]
    assert [swap.own for swap in found.swaps] == [0, 1] * 4
    for n, (row, swap) in enumerate(zip(ROWS, found.swaps, strict=True)):
        prompt, words = made.tokenizer.encode_prompts([row.text])[0], plain(made, f" Since {n}.")
        assert swap.num_tokens == len(words)
        expected = [log_likelihood(made, prompt + verdict, words) for verdict in made.tokenizer.verdicts]
        assert swap.log_likelihoods == pytest.approx(expected, rel=1e-4)
        assert len(set(swap.log_likelihoods)) == 3


def test_references_follow_the_verdict_of_the_label_under_both_models() -> None:
    made = bundle()
    found = scores(made)
    known = [row for row in ROWS if row.explanation]
    assert [score.id for score in found.references] == [row.id for row in known]
    assert len(known) == 6
    for row, score in zip(known, found.references, strict=True):
        before = made.tokenizer.encode_prompts([row.text])[0] + made.tokenizer.verdicts[row.label or 0]
        words = plain(made, f" {row.explanation}")
        assert score.num_tokens == len(words), "EOS is not scored"
        assert score.tuned == pytest.approx(-log_likelihood(made, before, words), rel=1e-4)
        assert score.base == pytest.approx(-log_likelihood(made, before, words, base=True), rel=1e-4)
        assert score.kl is None


def test_other_rows_can_bring_the_references() -> None:
    others = [Row(id="other", text="calm", label=1, explanation="Calm."), replace(ROWS[0], label=None)]
    assert [score.id for score in scores(bundle(), references=others).references] == ["other"]
    assert scores(bundle(), references=[]).references == []


def test_free_words_follow_the_verdict_that_they_opened_with_under_the_base() -> None:
    made = bundle()
    given = [
        prediction(ROWS[0], free_verdict="yes", free_words="It is so."),
        prediction(ROWS[1], free_verdict=None, free_words="Well."),
        prediction(ROWS[2], free_verdict="no", free_words=""),
        prediction(ROWS[3], free_verdict=None, free_words=None),
    ]
    found = scores(made, ROWS[:4], given)
    assert [score.id for score in found.free] == [ROWS[0].id, ROWS[1].id]
    prompts = made.tokenizer.encode_prompts([row.text for row in ROWS[:2]])
    expected = [
        log_likelihood(made, prompts[0] + made.tokenizer.verdicts[1], plain(made, " It is so."), base=True),
        log_likelihood(made, prompts[1], plain(made, " Well."), base=True),
    ]
    assert [score.base for score in found.free] == pytest.approx([-value for value in expected], rel=1e-4)
    assert {score.tuned for score in found.free} == {None}


@pytest.mark.parametrize("bos", [False, True])
def test_general_text_stands_alone(bos: bool) -> None:
    made = bundle(bos=bos)
    found = scores(made).general
    assert [score.id for score in found] == ["a", "b", "c"]
    for (_, words), score in zip(PASSAGES, found, strict=True):
        ids = [1] * bos + plain(made, words)
        assert score.num_tokens == len(ids) - 1, "without BOS nothing predicts the first token"
        assert score.tuned == pytest.approx(-log_likelihood(made, ids[:1], ids[1:]), rel=1e-4)
        assert score.base == pytest.approx(-log_likelihood(made, ids[:1], ids[1:], base=True), rel=1e-4)
        assert score.kl is not None
        assert score.kl > 0


def test_a_fully_tuned_model_is_scored_alone_and_says_why() -> None:
    found = scores(bundle(lora=False))
    assert "all weights were fine-tuned" in (found.no_base or "")
    assert len(found.swaps) == 8
    assert found.free == []
    assert {(s.base, s.kl) for s in [*found.references, *found.general]} == {(None, None)}
    assert all(s.tuned for s in [*found.references, *found.general])
    assert scores(bundle()).no_base is None


def test_missing_and_empty_explanations_are_left_out() -> None:
    given = [prediction(ROWS[0], words=None), prediction(ROWS[1], words=""), prediction(ROWS[2])]
    assert [swap.id for swap in scores(bundle(), ROWS[:3], given).swaps] == [ROWS[2].id]


def test_words_over_the_limit_are_cut_as_in_training() -> None:
    made = bundle()
    long = [prediction(ROWS[0], words="fever and cough and " * 30)]
    swap = scores(made, ROWS[:1], long).swaps[0]
    assert swap.num_tokens == 32 - len(made.tokenizer.verdicts[0])


def test_shares_of_ranks_make_the_whole() -> None:
    made, whole = bundle(), scores(bundle())
    shares = [
        scores(made, ROWS[rank::3], PREDICTIONS[rank::3], passages=PASSAGES[rank::3], token_budget=200)
        for rank in range(3)
    ]
    merged = LanguageScores.merge(shares)

    def numbers(texts: list[TextScore]) -> dict[str, list[float]]:
        return {s.id: [v for v in (s.num_tokens, s.tuned, s.base, s.kl) if v is not None] for s in texts}

    for name in ("references", "free", "general"):
        one, other = numbers(getattr(whole, name)), numbers(getattr(merged, name))
        assert one.keys() == other.keys()
        assert [one[id] for id in one] == [pytest.approx(other[id], rel=1e-5) for id in one], name
    assert {s.id: pytest.approx(s.log_likelihoods, rel=1e-5) for s in merged.swaps} == {
        s.id: s.log_likelihoods for s in whole.swaps
    }
    assert {s.id: s.own for s in merged.swaps} == {s.id: s.own for s in whole.swaps}


def test_a_rank_without_a_share() -> None:
    found = scores(bundle(), [], [], passages=[])
    assert found == LanguageScores(swaps=[], references=[], free=[], general=[], no_base=None)
    assert LanguageScores.merge([found, scores(bundle())]) == scores(bundle())


@pytest.mark.parametrize("lora", [False, True])
def test_progress_ends_where_it_said(lora: bool) -> None:
    heard: list[tuple[int, int]] = []
    scores(bundle(lora=lora), token_budget=300, on_progress=lambda done, total: heard.append((done, total)))
    assert heard[-1][0] == heard[-1][1] == 2 * 8 + 6 + 3 + lora * (6 + 8)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len(heard) > 4
