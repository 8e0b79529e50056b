"""Probabilities that stand in the tokens of a model with open weights, beside those that it says.

Two readings: of the label itself as the next words, and of the number that would follow a label's name in the
constrained form, meaned over all whole numbers from 0 to 100. A model that was trained to open with a verdict is asked
for the label as it was trained, by its own prompt and verdicts. Both readings look at several short continuations of
one prompt, which is run once. Continuations form a tree of tokens, which is run a level at a time; where one is the
beginning of another ("no", "no finding"; "7", "70"), it is given the probability of all that does not go on to the
other.

Shape letters: K labels, B places in the tree, T tokens, V vocabulary.

Source: the expected value of said numbers is the "verbalization logprobs" of ACL Findings 2026.1671, of which only
notes are known; the tree is ours.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from clsgen_dist.chat.encoding import PromptEncoder
from clsgen_dist.chat.interface import Message
from clsgen_dist.chat.local_model import LocalModel
from clsgen_dist.config.sections import Task
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.explain.prompts import blind_messages
from clsgen_dist.verbalize.prompts import distribution_messages

#: The numbers that a model may say of a label.
_NUMBERS = tuple(range(101))

#: Tokens that are remembered at one time, a prompt once for each place of a tree. A model of 8e9 weights with grouped
#: heads takes 128 KiB for each.
_REMEMBERED_TOKENS = 20_000

#: Tokens of one continuation of a prompt.
_Ids = tuple[int, ...]


class TokenReading(NamedTuple):
    """What the tokens of one row give; NaN where the row is too long for the model.

    Attributes:
        label_tokens: probability of each label as the answer; sums to 1.
        digit_expectation: mean of the number that is said of each label, divided by the sum over labels.
        label_mass: probability that the answer opens with any of the labels; where it is small, the model was about to
            say something else, and `label_tokens` rests on little.
        num_tokens: tokens of both prompts.
    """

    label_tokens: tuple[float, ...]
    digit_expectation: tuple[float, ...]
    label_mass: float
    num_tokens: int


class _Place(NamedTuple):
    """How far the model has read: what it remembers of B continuations, and its logits for what comes next."""

    cache: Any
    logits_BV: Any


class TokenReader:
    """Reads rows with one model."""

    def __init__(self, loaded: LocalModel, task: Task, taught: RowTokenizer | None = None) -> None:
        """Takes a loaded model, and the question with its labels.

        Args:
            loaded: the model.
            task: what is asked.
            taught: prompt and verdicts that the model was trained on, for a bundle; None for another model, which is
                asked for the label in words.
        """
        self._loaded = loaded
        self._task = task
        self._taught = taught
        self._encoder = PromptEncoder(loaded.tokenizer, loaded.name)
        self._context_tokens = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", math.inf)
        # After a chat template the answer begins at once; after "Answer:" a space comes first.
        lead = "" if loaded.tokenizer.chat_template else " "
        self._labels = [self._ids(f"{lead}{label}") for label in task.labels]
        if taught is not None:
            self._labels = [tuple(verdict) for verdict in taught.verdicts]
        openings = [lead + "{" + json.dumps(label, ensure_ascii=False) + ": " for label in task.labels]
        # With the opening, as a space before a number may be a token of either.
        self._numbers = [[self._ids(f"{opening}{number}") for number in _NUMBERS] for opening in openings]

    def read(self, text: str) -> TokenReading:
        """Reads one row.

        Raises:
            TeacherError: the chat template takes no conversation of a user alone.
        """
        import torch

        blind, direct = (self._encoder.encode(messages).ids for messages in token_messages(self._task, text))
        if self._taught is not None:
            (blind,) = self._taught.encode_prompts([text])
        num_tokens = len(blind) + len(direct)
        longest = max(
            len(blind) + max(map(len, self._labels)),
            len(direct) + max(len(ids) for numbers in self._numbers for ids in numbers),
        )
        if longest > self._context_tokens:
            nothing = (math.nan,) * len(self._labels)
            return TokenReading(nothing, nothing, math.nan, num_tokens)
        with torch.inference_mode():
            likelihoods = self._likelihoods(self._advance(None, [blind]), self._labels)
            means = self._mean_numbers(self._advance(None, [direct]), len(direct))
        return TokenReading(_shares(likelihoods), _shares(means), math.fsum(likelihoods), num_tokens)

    def _mean_numbers(self, prompt: _Place, num_tokens: int) -> list[float]:
        """The mean number that would be said of each label, if its name and the space after it were said."""
        # Numbers have about ten beginnings, so a label takes about as many copies of what is remembered.
        num_at_once = max(1, _REMEMBERED_TOKENS // (10 * num_tokens))
        means = []
        for start in range(0, len(self._numbers), num_at_once):
            some = self._numbers[start : start + num_at_once]
            place = prompt._replace(cache=copy.deepcopy(prompt.cache))
            likelihoods = iter(self._likelihoods(place, [ids for numbers in some for ids in numbers]))
            for _ in some:
                weights = list(itertools.islice(likelihoods, len(_NUMBERS)))
                # Of the opening, the same part is in all of them.
                total = math.fsum(weights)
                mean = math.fsum(n * weight for n, weight in zip(_NUMBERS, weights, strict=True))
                means.append(mean / total if total > 0 else 50.0)
        return means

    def _likelihoods(self, place: _Place, sequences: Sequence[_Ids]) -> list[float]:
        """Probability of each continuation, less that of those which it opens.

        Args:
            place: where they begin, B = 1; used up.
            sequences: ids of the continuations.
        """
        import torch

        children: dict[_Ids, set[int]] = defaultdict(set)
        for ids in sequences:
            for end, token in enumerate(ids):
                children[ids[:end]].add(token)
        level: list[_Ids] = [()]
        reached: dict[_Ids, float] = {(): 1.0}  # probability of every beginning
        while True:
            edges = [(b, node, token) for b, node in enumerate(level) for token in sorted(children[node])]
            probability_BV = place.logits_BV.double().softmax(-1)
            following = probability_BV[[b for b, *_ in edges], [token for *_, token in edges]].tolist()
            for (_, node, token), probability in zip(edges, following, strict=True):
                reached[(*node, token)] = reached[node] * probability
            deeper = [edge for edge in edges if (*edge[1], edge[2]) in children]
            if not deeper:
                break
            place.cache.batch_select_indices(torch.tensor([b for b, *_ in deeper], device=self._loaded.device))
            place = self._advance(place, [[token] for *_, token in deeper])
            level = [(*node, token) for _, node, token in deeper]
        return [
            max(0.0, reached[ids] - math.fsum(reached[(*ids, token)] for token in children.get(ids, ())))
            for ids in sequences
        ]

    def _advance(self, place: _Place | None, tokens_BT: Sequence[Sequence[int]]) -> _Place:
        """Reads on from a place, which is used up; from the beginning where there is none."""
        import torch

        output = self._loaded.model(
            input_ids=torch.tensor(tokens_BT, device=self._loaded.device),
            past_key_values=None if place is None else place.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return _Place(output.past_key_values, output.logits[:, -1])

    def _ids(self, text: str) -> _Ids:
        return tuple(self._loaded.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def token_messages(task: Task, text: str) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The two conversations whose next tokens are read: for the label, and for the distribution."""
    return blind_messages(task, text), distribution_messages(task, text, style="direct", paraphrase=0)


def _shares(values: Sequence[float]) -> tuple[float, ...]:
    """Values divided by their sum; equal shares where all are 0."""
    total = math.fsum(values)
    return tuple(value / total for value in values) if total > 0 else (1 / len(values),) * len(values)
