"""What a base model writes by itself is drawn from its own distribution."""

from __future__ import annotations

import torch

from clsgen_dist.predict.passages import write_passages
from tests.support.tiny import tiny_model

START, END = 1, 2


def write(numbers: list[int], *, num_tokens: int = 12, seed: int = 0) -> list[list[int]]:
    return write_passages(tiny_model(), numbers, start=START, end=END, num_tokens=num_tokens, seed=seed)


def test_a_passage_depends_on_seed_and_number_alone() -> None:
    together = write([0, 1, 2, 3])
    assert write([2]) == together[2:3]
    assert write([3, 1]) == [together[3], together[1]]
    assert len({tuple(ids) for ids in together}) == 4
    assert write([0], seed=1) != together[:1]


def test_tokens_are_drawn_as_often_as_the_model_says() -> None:
    model = tiny_model()
    with torch.no_grad():
        expected_V = model(input_ids=torch.tensor([[START]])).logits[0, -1].softmax(-1)
    passages = write(list(range(4000)), num_tokens=2)
    # A passage that ended at once has no second token.
    second = torch.tensor([ids[1] if len(ids) > 1 else END for ids in passages])
    share_V = torch.bincount(second, minlength=len(expected_V)) / len(passages)
    error_V = (expected_V * (1 - expected_V) / len(passages)).sqrt()
    assert ((share_V - expected_V).abs() <= 5 * error_V + 1e-3).all()
    assert (share_V - expected_V).abs().sum() < 0.25


def test_a_passage_ends_where_the_model_ends_it() -> None:
    passages = write(list(range(600)), num_tokens=40)
    assert all(ids[0] == START and END not in ids for ids in passages)
    assert {len(ids) for ids in passages} >= {40}
    assert min(len(ids) for ids in passages) < 40


def test_a_tokenizer_without_an_opening_token_opens_with_the_end() -> None:
    passages = write_passages(tiny_model(), [0, 1], start=END, end=END, num_tokens=6, seed=0)
    assert all(ids[0] == END and len(ids) > 1 for ids in passages)
