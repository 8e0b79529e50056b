"""Probabilities off the tokens are those of whole forward passes, and add up as probabilities do."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import pytest
import torch

from clsgen_dist.chat.encoding import PromptEncoder
from clsgen_dist.chat.local_model import LocalModel
from clsgen_dist.config.sections import Task
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.verbalize import tokens
from clsgen_dist.verbalize.tokens import TokenReader, token_messages
from tests.support.tiny import FAMILIES, tiny_model, tiny_tokenizer

PREFIXED = ("no", "no finding", "yes")
TEXT = "old mild cough since monday, and a fever"


def loaded(family: str = "llama", *, chat: bool = False, positions: int = 2048) -> LocalModel:
    model = tiny_model(family, max_position_embeddings=positions)
    return LocalModel(model, tiny_tokenizer(chat=chat), "tiny", "cpu")


def task_of(labels: tuple[str, ...]) -> Task:
    return Task(question="Fever?", labels=list(labels))


@functools.lru_cache(maxsize=1000)
def next_tokens(model: LocalModel, ids: tuple[int, ...]) -> torch.Tensor:
    """Probability of each token after some, from one whole pass without a cache."""
    with torch.no_grad():
        logits: torch.Tensor = model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits.double().softmax(-1)


def likelihood(model: LocalModel, prompt: list[int], ids: list[int], others: list[list[int]]) -> float:
    """Probability of a continuation, less that of going on to any of the others; the plain way."""
    product = 1.0
    for end, token in enumerate(ids):
        product *= float(next_tokens(model, (*prompt, *ids[:end]))[token])
    onward = {other[len(ids)] for other in others if len(other) > len(ids) and other[: len(ids)] == ids}
    return product * (1 - sum(float(next_tokens(model, (*prompt, *ids))[token]) for token in onward))


def plain_reading(model: LocalModel, task: Task, text: str) -> tuple[list[float], list[float]]:
    """Label probabilities and mean numbers, neither normalised over labels, without cache, tree or batch."""
    encoder = PromptEncoder(model.tokenizer, "tiny")
    blind, direct = (encoder.encode(messages).ids for messages in token_messages(task, text))
    lead = "" if model.tokenizer.chat_template else " "

    def ids(words: str) -> list[int]:
        return list(model.tokenizer(words, add_special_tokens=False)["input_ids"])

    labels = [ids(lead + label) for label in task.labels]
    means = []
    for label in task.labels:
        numbers = [ids(f"{lead}{{{json.dumps(label)}: {number}") for number in range(101)]
        weights = [likelihood(model, direct, number, numbers) for number in numbers]
        means.append(sum(n * w for n, w in enumerate(weights)) / sum(weights))
    return [likelihood(model, blind, label, labels) for label in labels], means


@pytest.mark.parametrize(
    ("family", "chat", "labels"),
    [("llama", False, PREFIXED), ("gemma3", True, ("no", "yes"))],
)
def test_readings_are_those_of_whole_passes(
    family: str, chat: bool, labels: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only one label's continuations may be remembered at a time."""
    model, task = loaded(family, chat=chat), task_of(labels)
    probabilities, means = plain_reading(model, task, TEXT)
    for remembered in (20_000, 1):
        monkeypatch.setattr(tokens, "_REMEMBERED_TOKENS", remembered)
        reading = TokenReader(model, task).read(TEXT)
        assert reading.label_mass == pytest.approx(sum(probabilities), rel=1e-4)
        assert reading.label_tokens == pytest.approx([p / sum(probabilities) for p in probabilities], abs=1e-5)
        assert reading.digit_expectation == pytest.approx([mean / sum(means) for mean in means], abs=1e-5)


def test_a_model_that_was_taught_verdicts_is_asked_as_it_was_taught() -> None:
    """By the prompt and the verdicts of its training; the numbers, which it was never taught, are read as of others."""
    model = loaded()
    task = Task(question="Fever?", labels=["no", "yes"], verdict_template="It is {label}.")
    taught = RowTokenizer(model.tokenizer, task, max_prompt_tokens=64, max_explanation_tokens=8)
    reading = TokenReader(model, task, taught).read(TEXT)
    (prompt,) = taught.encode_prompts([TEXT])
    expected = [likelihood(model, prompt, list(verdict), []) for verdict in taught.verdicts]
    assert reading.label_mass == pytest.approx(sum(expected), rel=1e-4)
    assert reading.label_tokens == pytest.approx([p / sum(expected) for p in expected], abs=1e-5)
    plain = TokenReader(model, task).read(TEXT)
    assert reading.digit_expectation == plain.digit_expectation
    assert reading.label_tokens != pytest.approx(plain.label_tokens, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_readings_add_up(family: str) -> None:
    reader = TokenReader(loaded(family), task_of(PREFIXED))
    for text in (TEXT, "fine"):
        reading = reader.read(text)
        assert sum(reading.label_tokens) == pytest.approx(1, abs=1e-12)
        assert sum(reading.digit_expectation) == pytest.approx(1, abs=1e-12)
        assert all(0 < p < 1 for p in (*reading.label_tokens, *reading.digit_expectation, reading.label_mass))
        assert reader.read(text) == reading, "a reading leaves nothing behind in the model"


class _Scripted(torch.nn.Module):
    """A model whose next token depends on the last one alone: token -> {next token: probability}."""

    def __init__(self, script: dict[int, dict[int, float]], vocabulary: int) -> None:
        super().__init__()
        self.config = tiny_model().config
        self._logits_VV = torch.full((vocabulary, vocabulary), -80.0)
        for token, following in script.items():
            for after, probability in following.items():
                self._logits_VV[token, after] = math.log(probability)

    def forward(self, input_ids: torch.Tensor, past_key_values: Any, use_cache: bool, logits_to_keep: int) -> Any:
        class Output:
            logits = self._logits_VV[input_ids[:, -logits_to_keep:]]
            past_key_values = _NoCache()

        return Output


class _NoCache:
    def batch_select_indices(self, indices: torch.Tensor) -> None:
        pass


def test_a_label_that_opens_another_gets_what_does_not_go_on_to_it() -> None:
    """Label 1 opens with 0.6 and goes on to label 1 2 with 0.3; label 3 4 has 0.1; the rest goes elsewhere."""
    script = {0: {1: 0.6, 3: 0.1, 9: 0.3}, 1: {2: 0.3, 9: 0.7}, 3: {4: 1.0}}
    model = LocalModel(_Scripted(script, 320), tiny_tokenizer(), "scripted", "cpu")
    reader = TokenReader(model, task_of(PREFIXED))
    start = reader._advance(None, [[0]])
    assert reader._likelihoods(start, [(1,), (1, 2), (3, 4)]) == pytest.approx([0.42, 0.18, 0.1], abs=1e-6)


def test_a_row_that_is_too_long_for_the_model_has_no_reading() -> None:
    reader = TokenReader(loaded(positions=700), task_of(("no", "yes")))
    assert not math.isnan(reader.read("fine").label_mass)
    reading = reader.read("fever " * 700)
    assert reading.num_tokens > 1400
    assert all(map(math.isnan, (*reading.label_tokens, *reading.digit_expectation, reading.label_mass)))
    assert len(reading.label_tokens) == len(reading.digit_expectation) == 2
