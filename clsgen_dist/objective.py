"""Sums and counts in, loss out. Knows no collectives.

    L = w_cls * sum_i w(y_i) CE(head(h_i), y_i) / W  +  w_gen * sum_t CE(lm(h_t), x_{t+1}) / N
        + kl_weight * sum_t KL(base_t || tuned_t) / N  +  general_weight * sum_g KL(base_g || tuned_g) / G

W (summed class weights of the labelled rows), N (scored tokens) and G (tokens of general text) count the whole step,
all micro-batches and all ranks, so that its gradient is the same however its rows are dealt.

Shape letters: E rows, K labels, N scored positions, V vocabulary. Source: CLSGen, arXiv 2604.11801, for the sum of
the first two losses; the denominators and the rest are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from clsgen_dist.records import UNLABELLED


@dataclass(frozen=True)
class Denominators:
    """What the sums of one optimizer step are divided by; at least a tiny number, so an absent loss is 0, not NaN."""

    cls_weight: float
    lm_tokens: float

    @classmethod
    def count(cls, labels: np.ndarray, num_scored: np.ndarray, class_weights: Sequence[float]) -> Denominators:
        """Counts the rows of a step: labels (R,) and scored tokens of each row (R,)."""
        weights = np.asarray(class_weights)[labels[labels != UNLABELLED]].sum()
        return cls(max(float(weights), 1e-12), max(float(num_scored.sum()), 1.0))


@dataclass(frozen=True)
class Weights:
    """Settings of the objective. `class_weights` has K entries."""

    w_cls: float
    w_gen: float
    kl_weight: float
    label_smoothing: float
    class_weights: tuple[float, ...]


@dataclass(frozen=True)
class LossSums:
    """Sums of a micro-batch, with gradient; fp32 scalars.

    Attributes:
        cls, lm, kl: the three sums.
        cls_by_row_E, lm_by_token_N: their terms, without gradient, to find the row of a number that is none.
        lm_rows_N: row that each token belongs to.
    """

    cls: torch.Tensor
    lm: torch.Tensor
    kl: torch.Tensor
    cls_by_row_E: torch.Tensor
    lm_by_token_N: torch.Tensor
    lm_rows_N: torch.Tensor


def loss_sums(
    cls_logits_EK: torch.Tensor,
    labels_E: torch.Tensor,
    lm_logits_NV: torch.Tensor,
    lm_targets_N: torch.Tensor,
    lm_rows_N: torch.Tensor,
    base_lm_logits_NV: torch.Tensor | None,
    weights: Weights,
) -> LossSums:
    """Loss terms of a micro-batch, summed. Either part may be empty: its sum is then 0 with a gradient of 0."""
    class_weights = torch.tensor(weights.class_weights, device=cls_logits_EK.device)
    cls_E = functional.cross_entropy(
        cls_logits_EK.float(),
        labels_E,
        weight=class_weights,
        ignore_index=UNLABELLED,
        label_smoothing=weights.label_smoothing,
        reduction="none",
    )
    lm_N = token_losses(lm_logits_NV, lm_targets_N)
    kl = lm_N.new_zeros(())
    if base_lm_logits_NV is not None:
        kl = kl_to_base(lm_logits_NV, base_lm_logits_NV)
    return LossSums(cls_E.sum(), lm_N.sum(), kl, cls_E.detach(), lm_N.detach(), lm_rows_N)


#: Logits that are worked on at once in fp32, by kind of device: what fits a processor's cache, or fills a GPU.
_CHUNK_LOGITS = {"cpu": 2**21, "cuda": 2**27}


def token_losses(lm_logits_NV: torch.Tensor, lm_targets_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each of N positions, fp32, nats.

    As `cross_entropy(logits.float(), targets, reduction="none")`, gradient included, but fp32 copies exist of a few
    positions at a time, and the gradient is made on the way, while they are at hand: per logit, memory holds the logit
    and its gradient in their own format and no more. A gradient in bf16 is rounded before and after it is scaled.
    """
    losses_N: torch.Tensor = _TokenLosses.apply(lm_logits_NV, lm_targets_N)  # type: ignore[no-untyped-call]
    return losses_N


class _TokenLosses(torch.autograd.Function):
    """Shape letters: C positions of a chunk."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        losses_N = logits_NV.new_empty(len(targets_N), dtype=torch.float32)
        gradient_NV = torch.empty_like(logits_NV) if ctx.needs_input_grad[0] else None
        for part, chunk_CV in _chunks(logits_NV):
            targets_C1 = targets_N[part, None]
            # Both in fp32, so that a target's loss is exact to fp32 whatever the format of the logits.
            chunk_CV.sub_(chunk_CV.amax(dim=1, keepdim=True))
            targeted_C = chunk_CV.gather(1, targets_C1)[:, 0]
            sums_C1 = chunk_CV.exp_().sum(dim=1, keepdim=True)
            losses_N[part] = sums_C1[:, 0].log() - targeted_C
            if gradient_NV is not None:
                chunk_CV.div_(sums_C1)
                chunk_CV.scatter_add_(1, targets_C1, chunk_CV.new_full((len(chunk_CV), 1), -1.0))
                gradient_NV[part] = chunk_CV
        ctx.save_for_backward(gradient_NV)
        return losses_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_N: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient_NV,) = ctx.saved_tensors
        # In place: a second copy would be as large as the logits. A second backward pass is refused by autograd.
        for part, chunk_CV in _chunks(gradient_NV):
            gradient_NV[part] = chunk_CV.mul_(gradient_N[part, None])
        return gradient_NV, None


def _chunks(logits_NV: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Positions and their logits in fp32, all in one buffer that the caller may overwrite."""
    num_positions, vocabulary = logits_NV.shape
    size = max(1, _CHUNK_LOGITS.get(logits_NV.device.type, 2**27) // vocabulary)
    buffer_CV = logits_NV.new_empty(min(size, num_positions), vocabulary, dtype=torch.float32)
    for start in range(0, num_positions, size):
        part = slice(start, min(start + size, num_positions))
        yield part, buffer_CV[: part.stop - start].copy_(logits_NV[part])


def kl_to_base(lm_logits_NV: torch.Tensor, base_lm_logits_NV: torch.Tensor) -> torch.Tensor:
    """KL(base || tuned) of the next token, summed over N positions; fp32 scalar, nats."""
    tuned_NV = functional.log_softmax(lm_logits_NV.float(), dim=-1)
    base_NV = functional.log_softmax(base_lm_logits_NV.float(), dim=-1)
    return functional.kl_div(tuned_NV, base_NV, reduction="sum", log_target=True)


def joint_loss(sums: LossSums, denominators: Denominators, weights: Weights) -> torch.Tensor:
    """This micro-batch's share of the step's loss: shares of all micro-batches and ranks add up to it."""
    return (
        weights.w_cls * sums.cls / denominators.cls_weight
        + weights.w_gen * sums.lm / denominators.lm_tokens
        + weights.kl_weight * sums.kl / denominators.lm_tokens
    )


def class_weights(setting: str | Sequence[float] | None, label_counts: Sequence[int]) -> tuple[float, ...]:
    """Weight of each label. `balanced`: rows / (labels * rows of the label), so that every label weighs the same."""
    if setting is None:
        return (1.0,) * len(label_counts)
    if setting == "balanced":
        total = sum(label_counts)
        return tuple(total / (len(label_counts) * count) for count in label_counts)
    return tuple(float(weight) for weight in setting)
