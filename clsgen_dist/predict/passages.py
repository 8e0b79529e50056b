"""General text that a base model writes by itself: what it would say is what its language is.

Shape letters: B passages of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

#: Passages that are written at one time.
_BATCH = 64


@torch.no_grad()
def write_passages(
    causal_lm: Any, numbers: list[int], *, start: int, end: int, num_tokens: int, seed: int
) -> list[list[int]]:
    """Samples passages from a causal language model, from nothing, at temperature 1.

    Args:
        causal_lm: the base model, in evaluation mode.
        numbers: numbers of the passages to write; what a passage says depends on seed and number, not on its
            neighbours (but for rounding).
        start: id that opens a text.
        end: id that ends one.
        num_tokens: ids of a passage, at most, `start` included.
        seed: of the samples.

    Returns:
        Ids of each passage, `start` first, without `end`.
    """
    device = next(causal_lm.parameters()).device
    written = []
    for first in range(0, len(numbers), _BATCH):
        some = numbers[first : first + _BATCH]
        draws_BT = torch.stack([_draws(seed, number, num_tokens) for number in some]).to(device)
        ids_BT = torch.full((len(some), 1), start, device=device)
        cache = DynamicCache(config=causal_lm.config)
        for t in range(num_tokens - 1):
            output = causal_lm(input_ids=ids_BT[:, -1:], past_key_values=cache, use_cache=True)
            cumulated_BV = output.logits[:, -1].float().softmax(-1).cumsum(-1)
            # Rounding leaves the sum a little off 1.
            threshold_B1 = draws_BT[:, t : t + 1] * cumulated_BV[:, -1:]
            token_B1 = (cumulated_BV <= threshold_B1).sum(-1, keepdim=True).clamp(max=cumulated_BV.shape[1] - 1)
            ids_BT = torch.cat([ids_BT, token_B1], dim=1)
        written += [_until(ids, end) for ids in ids_BT.tolist()]
    return written


def _draws(seed: int, number: int, num_tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    return torch.rand(num_tokens, generator=generator)


def _until(ids: list[int], end: int) -> list[int]:
    """Ids up to the first end behind the opening id, which may be the same one."""
    return ids[: ids.index(end, 1)] if end in ids[1:] else ids
