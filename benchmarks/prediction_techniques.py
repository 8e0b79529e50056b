"""What each technique of the prediction engine brings: the same work with that one switched off, in turns with ours."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from clsgen_dist.predict import decoding, predictor
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.records import Row

InTurns = Callable[[dict[str, Callable[[], object]], int, int], dict[str, list[float]]]


@contextmanager
def without_shared_opening() -> Iterator[None]:
    """Every row runs the question itself."""
    with patch.object(decoding, "MIN_SHARED", 10**9):
        yield


@contextmanager
def without_sorting() -> Iterator[None]:
    """Batches under the same budget, of rows as they come."""

    def batches(self: Predictor, lengths: list[tuple[int, int]], num_new: int, _: int = 0) -> Iterator[list[int]]:
        batch: list[int] = []
        longest = 0
        for number, length in lengths:
            longest = max(longest, length + num_new)
            if batch and longest * (len(batch) + 1) > self.token_budget:
                yield batch
                batch, longest = [], length + num_new
            batch.append(number)
        if batch:
            yield batch

    with patch.object(Predictor, "_batches", batches):
        yield


@contextmanager
def with_all_logits() -> Iterator[None]:
    """Logits of the whole vocabulary at every place of the prompt, as a causal language model gives by default."""
    plain = predictor.prefill

    def prefill(model: Any, prompts: list[list[int]], device: torch.device, **options: Any) -> Any:
        decoder = model.causal_lm.get_decoder()

        def also_logits(module: Any, args: Any, output: Any) -> None:
            model.lm_logits(output.last_hidden_state)

        hook = decoder.register_forward_hook(also_logits)
        try:
            return plain(model, prompts, device, **options)
        finally:
            hook.remove()

    with patch.object(predictor, "prefill", prefill):
        yield


@contextmanager
def without_release() -> Iterator[None]:
    """All rows of a batch are written on to the limit of tokens, and cut at their end afterwards."""
    plain = decoding.decode_greedily

    def decode(model: Any, start: Any, forced: Any, *, eos: int, max_new_tokens: int, note_choices: bool) -> Any:
        written = plain(model, start, forced, eos=-1, max_new_tokens=max_new_tokens, note_choices=note_choices)
        for row, opening in zip(written, forced, strict=True):
            if eos in row.ids[len(opening) :]:
                row.ids = row.ids[: row.ids.index(eos, len(opening))]
        return written

    with patch.object(predictor, "decode_greedily", decode):
        yield


@contextmanager
def with_logits_of_forced_words() -> Iterator[None]:
    """Logits also where the verdict is forced."""
    plain = decoding.decode_greedily

    def decode(model: Any, start: Any, forced: Any, *, eos: int, max_new_tokens: int, note_choices: bool) -> Any:
        return plain(model, start, forced, eos=eos, max_new_tokens=max_new_tokens, note_choices=True)

    with patch.object(predictor, "decode_greedily", decode):
        yield


def techniques(ours: Predictor, mixed: list[Row], short: list[Row], rounds: int, in_turns: InTurns) -> dict[str, Any]:
    """Time without each technique, times ours."""
    few = short[: max(4, len(short) // 3)]

    def probabilities(rows: list[Row]) -> Callable[[], object]:
        return lambda: ours.predict(rows, num_explained=0)

    def explanations(rows: list[Row]) -> Callable[[], object]:
        return lambda: ours.predict(rows)

    def two_passes() -> object:  # what a model that only generates, beside one that only classifies, cannot avoid
        ours.predict(few, num_explained=0)
        return ours.predict(few)

    cases: dict[str, tuple[list[Row], Callable[[], object], Any]] = {
        "shared opening, probabilities, short rows": (short, probabilities(short), without_shared_opening),
        "shared opening, probabilities, mixed rows": (mixed, probabilities(mixed), without_shared_opening),
        "sorting by length, probabilities, mixed rows": (mixed, probabilities(mixed), without_sorting),
        "no logits of the prompt, probabilities, short rows": (few, probabilities(few), with_all_logits),
        "shared opening, explanations, short rows": (few, explanations(few), without_shared_opening),
        "stop at the end and release of ended rows, explanations, short rows": (
            few,
            explanations(few),
            without_release,
        ),
        "no logits of forced words, explanations, short rows": (few, explanations(few), with_logits_of_forced_words),
    }
    found = {}
    rounds = min(rounds, 2)
    for name, (rows, run, off) in cases.items():

        def switched_off(run: Callable[[], object] = run, off: Any = off) -> None:
            with off():
                run()

        found[name] = _summary(in_turns({"ours": run, "off": switched_off}, len(rows), rounds))
        print(name, found[name], flush=True)
    rates = in_turns({"ours": explanations(few), "off": two_passes}, len(few), rounds)
    found["one pass over the prompt for both, short rows"] = _summary(rates)
    return found


def _summary(rates: dict[str, list[float]]) -> dict[str, float]:
    ratios = [ours / off for ours, off in zip(rates["ours"], rates["off"], strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
