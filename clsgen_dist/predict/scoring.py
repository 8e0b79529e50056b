"""Log-likelihood of given words after given prompts, under the tuned model and under its base.

Nothing is generated: each token is read off where the model stands after the true ones before it. A prompt that
several continuations share is run once, and each of them goes on from a copy of its keys and values. Logits exist at
scored positions only and in chunks, since a vocabulary of 262,144 at every position would cost more than the model.

Shape letters: B prompts, C continuations, T tokens, D hidden width, N scored positions, K labels, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clsgen_dist.errors import BundleError, NumericsError
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.predict.decoding import prefill

#: Logits of one chunk: 64 MiB in fp32, 64 positions of a vocabulary of 262,144.
CHUNK_LOGITS = 2**24

#: Why a bundle has no base model to compare with.
NO_BASE = "all weights were fine-tuned, so the base model is not part of the bundle; model.lora keeps one at hand"


class Continuation(NamedTuple):
    """Words to score.

    Attributes:
        prompt: ids that stand before, at least one.
        ids: ids of the continuation.
        num_given: how many of `ids`, from the first, are read but not scored.
    """

    prompt: Sequence[int]
    ids: Sequence[int]
    num_given: int = 0


class Score(NamedTuple):
    """Log-likelihood of a continuation, summed over its scored tokens, in nats; and how many these are."""

    log_likelihood: float
    num_tokens: int


class Comparison(NamedTuple):
    """A continuation under both models.

    Attributes:
        tuned, base: log-likelihood under each, summed over the scored tokens, in nats.
        kl: KL(base || tuned) of the next token, summed over the scored positions, in nats.
        num_tokens: scored tokens.
    """

    tuned: float
    base: float
    kl: float
    num_tokens: int


@dataclass(frozen=True)
class Scorer:
    """A loaded model that says how likely given words are.

    Attributes:
        model: of a bundle, in evaluation mode.
        token_budget: tokens of a batch: of prompt and continuation, padding counted, for each continuation.
        device: where the model is.
    """

    model: DualHead
    token_budget: int
    device: torch.device

    @property
    def no_base(self) -> str | None:
        """Why there is no base model to score with, or None where there is one."""
        return None if self.model.has_adapter else NO_BASE

    def score(
        self,
        continuations: Sequence[Continuation],
        *,
        base: bool = False,
        on_progress: Callable[[int], None] = lambda num_continuations: None,
    ) -> list[Score]:
        """Scores continuations, in their order; one without scored tokens scores 0.

        Args:
            continuations: what to score.
            base: under the base model, the adapter switched off.
            on_progress: told how many continuations a batch has finished.

        Raises:
            BundleError: the base model is asked for and there is none.
            NumericsError: a log-likelihood is not a finite number.
        """
        sums_C = np.zeros(len(continuations))
        for batch in batches(continuations, self.token_budget):
            some = [continuations[number] for number in batch]
            hidden_ND = self._hidden(some, base=base)
            values_N = [
                -functional.cross_entropy(self._logits(hidden), target, reduction="none")
                for hidden, target in self._chunks(hidden_ND, _targets(some, self.device))
            ]
            sums_C[batch] = _sums(torch.cat(values_N), some)
            on_progress(len(batch))
        return [Score(float(value), _num_scored(c)) for value, c in zip(sums_C, continuations, strict=True)]

    def compare(
        self,
        continuations: Sequence[Continuation],
        *,
        on_progress: Callable[[int], None] = lambda num_continuations: None,
    ) -> list[Comparison]:
        """Scores continuations under both models, from one pass of each.

        Raises:
            BundleError: there is no base model.
            NumericsError: a sum is not a finite number.
        """
        sums_C3 = np.zeros((len(continuations), 3))
        for batch in batches(continuations, self.token_budget):
            some = [continuations[number] for number in batch]
            both_N2D = torch.stack([self._hidden(some, base=base) for base in (False, True)], dim=1)
            values_N3 = [
                _compared(self._logits(hidden_N2D[:, 0]), self._logits(hidden_N2D[:, 1]), target)
                for hidden_N2D, target in self._chunks(both_N2D, _targets(some, self.device))
            ]
            sums_C3[batch] = _sums(torch.cat(values_N3), some)
            on_progress(len(batch))
        return [
            Comparison(float(tuned), float(base), float(kl), _num_scored(c))
            for (tuned, base, kl), c in zip(sums_C3, continuations, strict=True)
        ]

    @torch.no_grad()
    def _hidden(self, some: list[Continuation], *, base: bool) -> torch.Tensor:
        """(N, D) final hidden states that the scored tokens are read off, continuation by continuation."""
        if base and self.no_base is not None:
            raise BundleError(f"no base model to score with: {self.no_base}")
        prompts = list(dict.fromkeys(tuple(c.prompt) for c in some))
        owners = [prompts.index(tuple(c.prompt)) for c in some]
        width = max(len(c.ids) for c in some)
        # The last token is predicted, never read; what stands after a shorter continuation is masked.
        ids_CT = torch.zeros(len(some), width - 1, dtype=torch.long)
        scored_CT = torch.zeros(len(some), width, dtype=torch.bool)
        for row, c in enumerate(some):
            ids_CT[row, : len(c.ids) - 1] = torch.tensor(c.ids[:-1])
            scored_CT[row, c.num_given : len(c.ids)] = True
        lengths_C = torch.tensor([len(c.ids) - 1 for c in some], device=self.device)
        place_T = torch.arange(width - 1, device=self.device)
        with self.model.adapter_off() if base else contextlib.nullcontext():
            start = prefill(self.model, [list(p) for p in prompts], self.device, with_cache=width > 1)
            owner_C = torch.tensor(owners, device=self.device)
            hidden_CTD = start.hidden_BD[owner_C][:, None]
            if width > 1:
                start.cache.batch_select_indices(owner_C)
                before_CT = start.mask_BT[owner_C]
                output = self.model.decode(
                    input_ids=ids_CT.to(self.device),
                    attention_mask=torch.cat([before_CT, (place_T < lengths_C[:, None]).to(before_CT)], dim=1),
                    position_ids=before_CT.sum(dim=1, keepdim=True) + place_T,
                    past_key_values=start.cache,
                    use_cache=True,
                )
                hidden_CTD = torch.cat([hidden_CTD, output.last_hidden_state], dim=1)
        return torch.as_tensor(hidden_CTD[scored_CT.to(self.device)])

    @torch.no_grad()
    def _logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        return self.model.lm_logits(hidden_ND).float()

    def _chunks(self, hidden_N: torch.Tensor, targets_N: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        size = max(1, CHUNK_LOGITS // int(self.model.causal_lm.config.get_text_config().vocab_size))
        return zip(torch.split(hidden_N, size), torch.split(targets_N, size), strict=True)


def batches(continuations: Sequence[Continuation], token_budget: int) -> Iterator[list[int]]:
    """Numbers of the continuations with scored tokens by batch, longest prompt first, those of one prompt together.

    A batch takes at most `token_budget` places, or is a single continuation.
    """
    by_prompt: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, c in enumerate(continuations):
        if _num_scored(c):
            by_prompt[tuple(c.prompt)].append(number)
    batch: list[int] = []
    prompt_width = width = 0
    for prompt, numbers in sorted(by_prompt.items(), key=lambda item: (-len(item[0]), item[1][0])):
        for number in sorted(numbers, key=lambda n: (-len(continuations[n].ids), n)):
            longest_prompt = max(prompt_width, len(prompt))
            longest = max(width, len(continuations[number].ids))
            if batch and (longest_prompt + longest) * (len(batch) + 1) > token_budget:
                yield batch
                batch, longest_prompt, longest = [], len(prompt), len(continuations[number].ids)
            batch.append(number)
            prompt_width, width = longest_prompt, longest
    if batch:
        yield batch


def _compared(tuned_NV: torch.Tensor, base_NV: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """(N, 3), from logits: log-probability of each target under both models, and KL(base || tuned)."""
    tuned_NV, base_NV = (functional.log_softmax(logits_NV, dim=-1) for logits_NV in (tuned_NV, base_NV))
    kl_N = functional.kl_div(tuned_NV, base_NV, reduction="none", log_target=True).sum(dim=-1)
    chosen = [log_NV.gather(1, target_N[:, None]).squeeze(1) for log_NV in (tuned_NV, base_NV)]
    return torch.stack([*chosen, kl_N], dim=1)


def _targets(some: Sequence[Continuation], device: torch.device) -> torch.Tensor:
    return torch.tensor([token for c in some for token in c.ids[c.num_given :]], device=device)


def _sums(values_N: torch.Tensor, some: Sequence[Continuation]) -> npt.NDArray[np.float64]:
    """Values of scored positions, summed in fp64 over those of each continuation."""
    values = values_N.double().cpu().numpy()
    counts = [_num_scored(c) for c in some]
    sums = np.add.reduceat(values, np.cumsum([0, *counts[:-1]]))
    if not np.isfinite(sums).all():
        raise NumericsError(
            "a log-likelihood under the model is not a finite number; its weights, or its number format, are broken"
        )
    return np.asarray(sums, dtype=np.float64)


def _num_scored(continuation: Continuation) -> int:
    return max(0, len(continuation.ids) - continuation.num_given)
