"""The one predictor: probabilities and explanations of texts, both from one pass over the prompt.

Prompts of like length share a batch, padded on the left. The pass over the prompts gives the head its hidden state and
leaves a KV cache behind; where explanations are asked for, greedy decoding goes on from that cache. The verdict is
forced to the head's decision (`conditioned`); how the model would have opened by itself (`free`) is noted on the way.
Of a bundle whose head learned nothing, the likelihoods of the verdicts stand where the head's logits would.

Shape letters: B rows of a batch, T tokens, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.data.prompts import split_verdict
from clsgen_dist.predict.decoding import Prefill, Written, decode_greedily, prefill
from clsgen_dist.predict.verdicts import score_verdicts
from clsgen_dist.records import Prediction, Row


@dataclass(frozen=True)
class Explained:
    """What was written for a row: the verdict that opens it, or None, the words after it, and whether they were cut."""

    verdict: int | None
    words: str
    is_cut: bool


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
        free: bool = False,
        on_progress: Callable[[int], None] = lambda num_rows: None,
    ) -> list[Prediction]:
        """Predicts rows, in their order.

        Args:
            rows: what to decide on.
            num_explained: how many rows, from the first, get an explanation; None is all.
            free: also give what the model writes when it is left alone.
            on_progress: told how many rows a batch has finished.
        """
        count = len(rows) if num_explained is None else min(num_explained, len(rows))
        prompts = self.bundle.tokenizer.encode_prompts([row.text for row in rows])
        found: dict[int, Prediction] = {}
        for explain, numbers in ((False, range(count, len(rows))), (True, range(count))):
            for batch in self._batches([(n, len(prompts[n])) for n in numbers], self.max_new_tokens * explain):
                answers = self._answer([rows[n] for n in batch], [prompts[n] for n in batch], explain, free)
                found.update(zip(batch, answers, strict=True))
                on_progress(len(batch))
        return [found[n] for n in range(len(rows))]

    def _batches(self, lengths: list[tuple[int, int]], num_new: int) -> Iterator[list[int]]:
        """Row numbers by batch, longest first, so that a batch that does not fit into memory is the first one."""
        batch: list[int] = []
        longest = 0
        for number, length in sorted(lengths, key=lambda pair: (-pair[1], pair[0])):
            longest = max(longest, length + num_new)
            if batch and longest * (len(batch) + 1) > self.token_budget:
                yield batch
                batch, longest = [], length + num_new
            batch.append(number)
        if batch:
            yield batch

    def _answer(self, rows: list[Row], prompts: list[list[int]], explain: bool, free: bool) -> list[Prediction]:
        model, names = self.bundle.model, self.bundle.task.labels
        start = prefill(model, prompts, self.device, with_cache=explain or self.bundle.reads_verdicts)
        if self.bundle.reads_verdicts:
            logits_BK = score_verdicts(model, start, self.bundle.tokenizer.verdicts)
        else:
            with torch.no_grad():
                logits_BK = model.head(start.hidden_BD).double().cpu().numpy()
        probability_BK = self.bundle.calibrator.apply(logits_BK)
        raw_BK = IDENTITY.apply(logits_BK)
        predicted_B = decide(probability_BK, self.bundle.threshold)
        conditioned: list[Explained | None] = [None] * len(rows)
        alone: list[Explained | None] = [None] * len(rows)
        if explain:
            conditioned, alone = self._explain(prompts, start, predicted_B, free)
        return [
            Prediction(
                id=row.id,
                label=None if row.label is None else names[row.label],
                probability=dict(zip(names, probability_BK[b].tolist(), strict=True)),
                raw_probability=dict(zip(names, raw_BK[b].tolist(), strict=True)),
                predicted=names[predicted_B[b]],
                explanation=own.words if own else None,
                free_verdict=None if left is None or left.verdict is None else names[left.verdict],
                free_explanation=left.words if left else None,
                is_cut=own is not None and own.is_cut,
                is_free_cut=left is not None and left.is_cut,
                logits=logits_BK[b].tolist(),
            )
            for b, (row, own, left) in enumerate(zip(rows, conditioned, alone, strict=True))
        ]

    def _explain(
        self, prompts: list[list[int]], start: Prefill, predicted_B: np.ndarray, free: bool
    ) -> tuple[list[Explained | None], list[Explained | None]]:
        """Explanations that follow the decision, and, where asked for, what the model writes by itself."""
        tokenizer = self.bundle.tokenizer
        forced = [tokenizer.verdicts[label] for label in predicted_B]
        written = self._decode(start, forced)
        conditioned: list[Explained | None] = [
            Explained(int(label), tokenizer.decode(w.ids[len(f) :]).strip(), w.is_cut)
            for label, w, f in zip(predicted_B, written, forced, strict=True)
        ]
        if not free:
            return conditioned, [None] * len(prompts)
        # Where each forced token was the model's own first choice, the free text is the conditioned one.
        alone = list(conditioned)
        others = [b for b, w in enumerate(written) if not w.forced_was_first_choice]
        if others:
            again = prefill(self.bundle.model, [prompts[b] for b in others], self.device, with_cache=True)
            for b, w in zip(others, self._decode(again, [[]] * len(others)), strict=True):
                verdict, words = split_verdict(self.bundle.task, tokenizer.decode(w.ids))
                alone[b] = Explained(verdict, words, w.is_cut)
        return conditioned, alone

    def _decode(self, start: Prefill, forced: list[list[int]]) -> list[Written]:
        eos = self.bundle.tokenizer.eos
        return decode_greedily(self.bundle.model, start, forced, eos=eos, max_new_tokens=self.max_new_tokens)


def recalibrated(bundle: Bundle, calibrator: Calibrator, threshold: float | None) -> Bundle:
    """The bundle with another calibrator, its model shared."""
    return replace(bundle, calibrator=calibrator, threshold=threshold)
