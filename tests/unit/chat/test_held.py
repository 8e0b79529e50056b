"""Answers held to a schema: whatever a model would like to write, what comes out keeps to it, and to its sum."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsgen_dist.chat.held import HeldAnswer, SchemaHolder
from clsgen_dist.chat.interface import SUM, Completion, Request
from clsgen_dist.chat.local import LocalChat
from clsgen_dist.config.explain import Explain
from clsgen_dist.errors import TeacherError
from clsgen_dist.verbalize.parsing import distribution_schema, parse_distribution
from tests.support.tiny import CHAT_TEMPLATE, FAMILIES, shared_backbone, tiny_backbone, tiny_tokenizer

NUM_TOKENS = 320
#: Names that JSON has to escape, that look like a part of an object, and that are one the beginning of the other.
LABELS = ["no", "no finding", 'say "hi"', ', "no": 7,', "back\\slash", "\u00c4rger \U0001f642"]
PERCENTS = distribution_schema(LABELS, in_whole_percents=True)


def holder() -> SchemaHolder:
    return SchemaHolder(tiny_tokenizer(), "tiny")


def written(answer: HeldAnswer, keeper: SchemaHolder, seed: int) -> str:
    """What comes out when each token is drawn from those that are allowed, all as likely as each other."""
    draw, ids = random.Random(seed), []
    while not answer.ended:
        ids.append(draw.choice(np.flatnonzero(answer.allowed_V(NUM_TOKENS)).tolist()))
        answer.take(ids[-1])
    assert answer.num_tokens == len(ids)
    return keeper.words(ids)


def test_whatever_is_drawn_is_whole_percents_that_sum_to_100_in_the_order_of_the_labels() -> None:
    keeper = holder()
    said = {written(keeper.begin(PERCENTS), keeper, seed) for seed in range(40)}
    assert len(said) > 35
    for words in said:
        pairs = json.loads(words, object_pairs_hook=list)
        assert [name for name, _ in pairs] == LABELS
        assert all(type(number) is int and 0 <= number <= 100 for _, number in pairs)
        assert sum(number for _, number in pairs) == 100
        assert parse_distribution(words, LABELS, sum_tolerance=0.0).fault is None


def test_every_distribution_can_be_said() -> None:
    keeper = holder()
    schema = distribution_schema(["a", "b", "c"], in_whole_percents=True) | {SUM: 3}
    said = {tuple(json.loads(written(keeper.begin(schema), keeper, seed)).values()) for seed in range(400)}
    assert said == {(a, b, 3 - a - b) for a in range(4) for b in range(4 - a)}


def test_without_a_sum_the_schema_alone_decides() -> None:
    keeper = holder()
    schema = distribution_schema(["no", "yes"], in_whole_percents=True)
    del schema[SUM]
    said = [json.loads(written(keeper.begin(schema), keeper, seed)) for seed in range(40)]
    assert all(list(numbers) == ["no", "yes"] and max(numbers.values()) <= 100 for numbers in said)
    assert len({sum(numbers.values()) for numbers in said}) > 20


def test_a_model_may_have_more_logits_than_its_tokenizer_has_tokens() -> None:
    answer = holder().begin(PERCENTS)
    allowed = answer.allowed_V(NUM_TOKENS + 64)
    assert allowed.shape == (NUM_TOKENS + 64,)
    assert not allowed[NUM_TOKENS:].any()
    assert (allowed[:NUM_TOKENS] == answer.allowed_V(NUM_TOKENS)).all()


def test_a_schema_that_cannot_be_held_to_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"tiny: cannot be held to the schema .*nonsense"):
        holder().begin({"type": "nonsense"})


def test_a_tokenizer_that_is_not_fast_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"tiny: its tokenizer cannot be held to a form .*tokenizer\.json"):
        SchemaHolder(object(), "tiny")


def ask(text: str, *, labels: list[str] | None, max_tokens: int = 200, **options: Any) -> Request:
    schema = None if labels is None else distribution_schema(labels, in_whole_percents=True)
    options = {"temperature": 0.0, "seed": 0, "schema": schema, "max_tokens": max_tokens} | options
    return Request(messages=({"role": "user", "content": text},), **options)


def answers(model: str, requests: list[Request], **settings: Any) -> list[Completion]:
    """What a chat answers to requests that all wait at the same time."""

    async def run() -> list[Completion]:
        chat = LocalChat(Explain(teacher="local", model=model, **settings))
        try:
            return list(await asyncio.gather(*map(chat.complete, requests)))
        finally:
            await chat.close()

    return asyncio.run(run())


def mixed_requests() -> list[Request]:
    """Two schemas, none at all, and a limit that comes in the middle of the form, at places of their own."""
    labels: list[list[str] | None] = [["no", "yes"], None, ["a", "b", "c"], ["yes", "no"]]
    return [
        ask(
            "pain in the back " * (1 + 5 * n % 7),
            labels=labels[n % 4],
            max_tokens=(120, 9, 40)[n % 3],
            temperature=(0.0, 1.0)[n % 2],
            seed=n,
        )
        for n in range(12)
    ]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_an_answer_is_the_same_alone_and_among_others_that_are_held_or_not(family: str) -> None:
    model, requests = shared_backbone(family, max_position_embeddings=512), mixed_requests()
    alone = answers(model, requests, batch_size=1)
    assert answers(model, requests, batch_size=5) == alone
    assert answers(model, requests[::-1], batch_size=16)[::-1] == alone
    whole = 0
    for request, answer in zip(requests, alone, strict=True):
        if request.schema is None or answer.completion_tokens == request.max_tokens:
            continue
        numbers = json.loads(answer.text)
        assert list(numbers) == request.schema["required"]
        assert sum(numbers.values()) == 100
        whole += 1
    assert whole >= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_held_to_the_form(family: str) -> None:
    model = shared_backbone(family, max_position_embeddings=512)
    requests = [ask(f"pain {n}", labels=["no", "yes"], temperature=1.0, seed=n) for n in range(12)]
    said = [parse_distribution(answer.text, ["no", "yes"], sum_tolerance=0.0) for answer in answers(model, requests)]
    assert {one.fault for one in said} == {None}
    assert len({one.probabilities for one in said}) > 3


def test_an_answer_that_is_cut_off_leaves_the_others_whole() -> None:
    model = shared_backbone(max_position_embeddings=512)
    cut, whole = answers(model, [ask("pain", labels=["no", "yes"], max_tokens=n) for n in (5, 200)], batch_size=2)
    assert cut.completion_tokens == 5
    assert whole.text.startswith(cut.text)
    assert sum(json.loads(whole.text).values()) == 100
    assert whole.completion_tokens < 200, "it ends where it is whole"


def test_a_template_that_opens_thinking_hides_no_answer_in_form(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE + "<think>"
    (answer,) = answers(tiny_backbone(tmp_path, tokenizer=tokenizer), [ask("fever", labels=["no", "yes"])])
    assert answer.fault is None
    assert sum(json.loads(answer.text).values()) == 100


def test_a_schema_that_cannot_be_held_to_is_raised_where_it_was_asked() -> None:
    with pytest.raises(TeacherError, match="cannot be held to the schema"):
        answers(shared_backbone(), [ask("fever", labels=None, schema={"type": "nonsense"})])
