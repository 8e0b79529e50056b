"""Probabilities that stand in the tokens of a model with open weights, beside those that it says.

Two readings: of the label itself as the next words, and of the number that would follow a label's name in the
constrained form, meaned over all numbers from 0 to 100. Both look at several short continuations of one prompt, which
is run once. Continuations form a tree of tokens; where one is the beginning of another ("no", "no finding"; "7",
"70"), it is given the probability of all that does not go on to the other.

Shape letters: K labels, B continuations, T tokens, V vocabulary.

Source: the expected value of said numbers is the "verbalization logprobs" of ACL Findings 2026.1671, of which only
notes are known; the tree is ours.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from clsgen_dist.chat.encoding import PromptEncoder
from clsgen_dist.chat.interface import Message
from clsgen_dist.chat.local_model import LocalModel
from clsgen_dist.config.sections import Task
from clsgen_dist.explain.prompts import blind_messages
from clsgen_dist.verbalize.prompts import distribution_messages

#: The numbers that a model may say of a label.
_NUMBERS = tuple(range(101))


class TokenReading(NamedTuple):
    """What the tokens of one row give.

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


class TokenReader:
    """Reads rows with one model."""

    def __init__(self, loaded: LocalModel, task: Task) -> None:
        """Takes a loaded model, and the question with its labels."""
        self._loaded = loaded
        self._task = task
        self._encoder = PromptEncoder(loaded.tokenizer, loaded.name)

    def read(self, text: str) -> TokenReading:
        """Reads one row.

        Raises:
            TeacherError: the chat template takes no conversation of a user alone.
        """
        labels = self._task.labels
        blind = self._encoder.encode(blind_messages(self._task, text)).ids
        # After a chat template the answer begins at once; after "Answer:" a space comes first.
        lead = "" if self._loaded.tokenizer.chat_template else " "
        likelihoods = self._likelihoods(blind, [self._ids(f"{lead}{label}") for label in labels])
        mass = sum(likelihoods)
        means, num_tokens = self._mean_numbers(distribution_messages(self._task, text, style="direct", paraphrase=0))
        return TokenReading(_shares(likelihoods), _shares(means), mass, len(blind) + num_tokens)

    def _mean_numbers(self, messages: tuple[Message, ...]) -> tuple[list[float], int]:
        """The mean number that would be said of each label, and the tokens of the prompt."""
        prompt = self._encoder.encode(messages).ids
        openings = [self._ids("{" + json.dumps(label, ensure_ascii=False) + ":") for label in self._task.labels]
        numbers = [self._ids(f" {number}") for number in _NUMBERS]
        likelihoods = self._likelihoods(
            prompt, [opening + number for opening in openings for number in numbers], openings
        )
        means = []
        for k in range(len(openings)):
            weights = likelihoods[k * len(_NUMBERS) : (k + 1) * len(_NUMBERS)]
            total = sum(weights)
            means.append(sum(n * w for n, w in zip(_NUMBERS, weights, strict=True)) / total if total > 0 else 50.0)
        return means, len(prompt)

    def _likelihoods(
        self,
        prompt: list[int],
        sequences: list[list[int]],
        given: Sequence[list[int]] = ((),),  # type: ignore[assignment]
    ) -> list[float]:
        """Probability of each continuation, less that of those which it opens.

        Args:
            prompt: ids that stand before all of them.
            sequences: ids of the continuations; none is empty.
            given: beginnings that are taken as said: what comes after one of them is conditional on it.
        """
        roots = {tuple(root) for root in given}
        nodes = {tuple(ids[:end]) for ids in sequences for end in range(len(ids))}
        nodes = {node for node in nodes if any(node[: len(root)] == root for root in roots)}
        children: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for ids in map(tuple, sequences):
            for end in range(len(ids)):
                children[ids[:end]].add(ids[end])
        following = self._next_tokens(prompt, sorted(nodes), children)
        likelihoods = []
        for ids in map(tuple, sequences):
            start = max(len(root) for root in roots if ids[: len(root)] == root)
            likelihood = 1.0
            for end in range(start, len(ids)):
                likelihood *= following[ids[:end]][ids[end]]
            if ids in following:  # another continuation goes on from here
                likelihood *= max(0.0, 1.0 - sum(following[ids].values()))
            likelihoods.append(likelihood)
        return likelihoods

    def _next_tokens(
        self, prompt: list[int], nodes: list[tuple[int, ...]], children: dict[tuple[int, ...], set[int]]
    ) -> dict[tuple[int, ...], dict[int, float]]:
        """Probability of each child of each node, from one pass over the prompt and one over nodes of each length."""
        import torch
        from transformers import DynamicCache

        model, device = self._loaded.model, self._loaded.device
        found: dict[tuple[int, ...], dict[int, float]] = {}
        with torch.inference_mode():
            start = model(
                input_ids=torch.tensor([prompt], device=device),
                past_key_values=DynamicCache(),
                use_cache=True,
                logits_to_keep=1,
            )
            by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
            for node in nodes:
                by_length[len(node)].append(node)
            for length, some in by_length.items():
                if length == 0:
                    logits_BV = start.logits[:, -1]
                else:
                    logits_BV = model(
                        input_ids=torch.tensor(some, device=device),
                        past_key_values=_copies(start.past_key_values, len(some)),
                        use_cache=True,
                        logits_to_keep=1,
                    ).logits[:, -1]
                probabilities_BV = logits_BV.float().softmax(-1)
                for b, node in enumerate(some):
                    found[node] = {token: float(probabilities_BV[b, token]) for token in children[node]}
        return found

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._loaded.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


def _copies(cache: Any, count: int) -> Any:
    """The keys and values of one prompt, seen by several continuations; the cache itself stays as it is."""
    from transformers import DynamicCache

    copies = DynamicCache()
    for number, layer in enumerate(cache.layers):
        copies.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), number)
    return copies


def _shares(values: Sequence[float]) -> tuple[float, ...]:
    """Values divided by their sum; equal shares where all are 0."""
    total = sum(values)
    return tuple(value / total for value in values) if total > 0 else (1 / len(values),) * len(values)
