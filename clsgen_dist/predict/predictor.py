"""The one predictor: probabilities and explanations of texts, both from one pass over the prompt.

Prompts of like length share a batch, padded on the left. The pass over the prompts gives the head its hidden state and
leaves a KV cache behind; where explanations are asked for, greedy decoding goes on from that cache. The verdict is
forced to the head's decision (`conditioned`); how the model would have opened by itself (`free`) is noted on the way.
Of a bundle whose head learned nothing, the likelihoods of the verdicts stand where the head's logits would.

Shape letters: B rows of a batch, T tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.calibrate.thresholds import decide, near_threshold
from clsgen_dist.data.prompts import split_verdict
from clsgen_dist.predict.decoding import Opening, Prefill, Written, decode_greedily, num_common, prefill
from clsgen_dist.predict.verdicts import score_verdicts
from clsgen_dist.records import Prediction, Row

#: Length of the shortest row of a batch over that of the longest one, at least, without and with what is written after
#: it: a longer batch costs little where it is read and much where it is written. A batch under 1 / WORTH of the budget
#: takes shorter rows, too, since a batch has a cost of its own.
SPREAD, SPREAD_WRITTEN, WORTH = 0.8, 0.5, 16


@dataclass(frozen=True)
class Explained:
    """What was written for a row: the verdict that opens it, or None, the words after it, and whether they were cut."""

    verdict: int | None
    words: str
    is_cut: bool


@dataclass(frozen=True)
class Answered:
    """What a batch brought.

    Attributes:
        found: predictions by the number of the row.
        waiting: rows among them whose explanation is still to come, with the prediction once more.
    """

    found: dict[int, Prediction]
    waiting: frozenset[int]


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle that answers.

    Attributes:
        bundle: model, task, tokenizer, calibrator.
        token_budget: tokens of a batch, padding and what is written counted.
        max_new_tokens: tokens of verdict and explanation.
        device: where the model is.
    """

    bundle: Bundle
    token_budget: int
    max_new_tokens: int
    device: torch.device

    def predict(
        self,
        rows: Sequence[Row],
        *,
        num_explained: int | None = None,
        margin: float | None = None,
        free: bool = False,
        on_progress: Callable[[int], None] = lambda num_rows: None,
    ) -> list[Prediction]:
        """Predicts rows, in their order.

        Args:
            rows: what to decide on.
            num_explained: how many rows, from the first, get an explanation; None is all.
            margin: of these only the ones so near the operating threshold, see `near_threshold`; None is all.
            free: also give what the model writes when it is left alone.
            on_progress: told how many rows a batch has finished.
        """
        found: dict[int, Prediction] = {}
        for answered in self.stream(rows, num_explained=num_explained, margin=margin, free=free):
            found.update(answered.found)
            on_progress(len(answered.found) - len(answered.waiting))
        return [found[n] for n in range(len(rows))]

    def stream(
        self,
        rows: Sequence[Row],
        *,
        num_explained: int | None = None,
        margin: float | None = None,
        free: bool = False,
        known: Mapping[int, Prediction] = MappingProxyType({}),
    ) -> Iterator[Answered]:
        """Predicts rows batch by batch; probabilities of all rows come before explanations of uncertain ones.

        Args:
            rows, num_explained, margin, free: as `predict` takes them.
            known: what this gave for some rows before it was stopped, by the number of the row. Batches that are known
                whole are not run again; the others are run whole, so that what comes out is the same to the bit.
        """
        count = len(rows) if num_explained is None else min(num_explained, len(rows))
        prompts = self.bundle.tokenizer.encode_prompts([row.text for row in rows])
        # A pure function of the rows: what a batch gives must not depend on which batches were run before it.
        opening = Opening(prompts[0][: num_common(prompts)] if prompts else [])
        found = dict(known)
        plain = range(count if margin is None else 0, len(rows))
        for batch in self._batches([(n, len(prompts[n])) for n in plain], 0, len(opening.ids)):
            if not found.keys() >= set(batch):
                answers = self._answer(
                    [rows[n] for n in batch], [prompts[n] for n in batch], explain=False, free=False, opening=opening
                )
                some = dict(zip(batch, answers, strict=True))
                found |= some
                yield Answered(some, self._uncertain(some, count, margin))
        asked = range(count) if margin is None else sorted(self._uncertain(found, count, margin))
        for batch in self._batches([(n, len(prompts[n])) for n in asked], self.max_new_tokens):
            if any(n not in found or found[n].explanation is None for n in batch):
                texts, first = [prompts[n] for n in batch], [found.get(n) for n in batch]
                answers = self._answer(
                    [rows[n] for n in batch], texts, explain=True, free=free, opening=opening, decided=first
                )
                yield Answered(dict(zip(batch, answers, strict=True)), frozenset())

    def _uncertain(self, found: Mapping[int, Prediction], count: int, margin: float | None) -> frozenset[int]:
        """Of the first `count` rows those whose explanation is to come."""
        numbers = [n for n in found if n < count]
        if margin is None or not numbers:
            return frozenset()
        probabilities = [list(found[n].probability.values()) for n in numbers]
        is_near = near_threshold(probabilities, self.bundle.threshold, margin)
        return frozenset(n for n, near in zip(numbers, is_near, strict=True) if near)

    def _batches(self, lengths: list[tuple[int, int]], num_new: int, num_shared: int = 0) -> Iterator[list[int]]:
        """Row numbers by batch, longest first, so that a batch that does not fit into memory is the first one.

        Args:
            lengths: number of a row and tokens of its prompt.
            num_new: tokens that may be written after each.
            num_shared: tokens that all prompts open with; they are run once and never padded.
        """
        batch: list[int] = []
        longest = 0
        spread = SPREAD_WRITTEN if num_new else SPREAD
        for number, length in sorted(lengths, key=lambda pair: (-pair[1], pair[0])):
            is_full = max(longest, length + num_new) * (len(batch) + 1) > self.token_budget
            is_short = length + num_new - num_shared < spread * (longest - num_shared)
            if batch and (is_full or (is_short and longest * len(batch) * WORTH >= self.token_budget)):
                yield batch
                batch = []
            longest = length + num_new if not batch else longest
            batch.append(number)
        if batch:
            yield batch

    def _answer(
        self,
        rows: list[Row],
        prompts: list[list[int]],
        *,
        explain: bool,
        free: bool,
        opening: Opening,
        decided: Sequence[Prediction | None] = (),
    ) -> list[Prediction]:
        """Predictions of a batch; where the rows are decided already, those with explanations."""
        with_cache = explain or self.bundle.reads_verdicts
        start = prefill(self.bundle.model, prompts, self.device, with_cache=with_cache, opening=opening)
        plain = [p for p in decided if p is not None]
        predictions = plain if len(plain) == len(rows) else self._decide(rows, start)
        if not explain:
            return predictions
        names = self.bundle.task.labels
        verdicts = [names.index(p.predicted) for p in predictions]
        conditioned, alone = self._explain(prompts, start, verdicts, free, opening)
        return [
            replace(
                prediction,
                explanation=own.words,
                free_verdict=None if left is None or left.verdict is None else names[left.verdict],
                free_explanation=left.words if left else None,
                is_cut=own.is_cut,
                is_free_cut=left is not None and left.is_cut,
            )
            for prediction, own, left in zip(predictions, conditioned, alone, strict=True)
        ]

    def _decide(self, rows: list[Row], start: Prefill) -> list[Prediction]:
        """Probabilities and decisions, without words."""
        model, names = self.bundle.model, self.bundle.task.labels
        if self.bundle.reads_verdicts:
            logits_BK = score_verdicts(model, start, self.bundle.tokenizer.verdicts)
        else:
            with torch.no_grad():
                logits_BK = model.head(start.hidden_BD).double().cpu().numpy()
        probability_BK = self.bundle.calibrator.apply(logits_BK)
        raw_BK = IDENTITY.apply(logits_BK)
        predicted_B = decide(probability_BK, self.bundle.threshold)
        return [
            Prediction(
                id=row.id,
                label=None if row.label is None else names[row.label],
                probability=dict(zip(names, probability_BK[b].tolist(), strict=True)),
                raw_probability=dict(zip(names, raw_BK[b].tolist(), strict=True)),
                predicted=names[predicted_B[b]],
                explanation=None,
                free_verdict=None,
                free_explanation=None,
                is_cut=False,
                is_free_cut=False,
                logits=logits_BK[b].tolist(),
            )
            for b, row in enumerate(rows)
        ]

    def _explain(
        self, prompts: list[list[int]], start: Prefill, verdicts: list[int], free: bool, opening: Opening
    ) -> tuple[list[Explained], Sequence[Explained | None]]:
        """Explanations that follow the decision, and, where asked for, what the model writes by itself."""
        tokenizer = self.bundle.tokenizer
        forced = [tokenizer.verdicts[label] for label in verdicts]
        written = self._decode(start, forced, note_choices=free)
        conditioned = [
            Explained(label, tokenizer.decode(w.ids[len(f) :]).strip(), w.is_cut)
            for label, w, f in zip(verdicts, written, forced, strict=True)
        ]
        if not free:
            return conditioned, [None] * len(prompts)
        # Where each forced token was the model's own first choice, the free text is the conditioned one.
        alone = list(conditioned)
        others = [b for b, w in enumerate(written) if not w.forced_was_first_choice]
        if others:
            some = [prompts[b] for b in others]
            again = prefill(self.bundle.model, some, self.device, with_cache=True, opening=opening)
            for b, w in zip(others, self._decode(again, [[]] * len(others), note_choices=False), strict=True):
                verdict, words = split_verdict(self.bundle.task, tokenizer.decode(w.ids))
                alone[b] = Explained(verdict, words, w.is_cut)
        return conditioned, alone

    def _decode(self, start: Prefill, forced: list[list[int]], *, note_choices: bool) -> list[Written]:
        return decode_greedily(
            self.bundle.model,
            start,
            forced,
            eos=self.bundle.tokenizer.eos,
            max_new_tokens=self.max_new_tokens,
            note_choices=note_choices,
        )


def recalibrated(bundle: Bundle, calibrator: Calibrator, threshold: float | None) -> Bundle:
    """The bundle with another calibrator, its model shared."""
    return replace(bundle, calibrator=calibrator, threshold=threshold)
