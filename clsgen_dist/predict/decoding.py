"""Prefill and greedy decoding on one KV cache, with forced openings and early release of finished rows.

Shape letters: B rows, T tokens so far, D hidden width, V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from clsgen_dist.model.dual_head import DualHead

#: Tokens that are worth a pass of their own.
MIN_SHARED = 8
#: Places that are kept free under a sliding window for what is written or read after the prompts.
ROOM = 256


@dataclass
class Prefill:
    """A pass over prompts.

    Attributes:
        hidden_BD: final hidden state of each prompt's last token.
        mask_BT: 1 where there is a token, 0 where there is padding, on the left.
        cache: keys and values of the prompts, or None; decoding uses it up.
    """

    hidden_BD: torch.Tensor
    mask_BT: torch.Tensor
    cache: Any


@dataclass
class Written:
    """What was decoded for a row.

    Attributes:
        ids: without EOS.
        forced_was_first_choice: whether the model would have opened as it was forced to; False where that was not
            noted.
        is_cut: whether the limit of tokens ended the row, not the model.
    """

    ids: list[int] = field(default_factory=list)
    forced_was_first_choice: bool = True
    is_cut: bool = True


@dataclass
class Opening:
    """What many prompts open with; run when it is first wanted.

    Attributes:
        ids: of the tokens, fewer than any of the prompts has.
    """

    ids: list[int]
    _cache: Any = None

    def keys_and_values(self, model: DualHead, device: torch.device) -> Any:
        """A cache of one row, the caller's own."""
        if self._cache is None:
            self._cache = DynamicCache(config=model.causal_lm.config)
            ids_1T = torch.tensor([self.ids], device=device)
            model.decode(input_ids=ids_1T, past_key_values=self._cache, use_cache=True)
        return copy.deepcopy(self._cache)


@torch.no_grad()
def prefill(
    model: DualHead,
    prompts: list[list[int]],
    device: torch.device,
    *,
    with_cache: bool,
    opening: Opening | None = None,
) -> Prefill:
    """Runs the prompts, padded on the left so that each ends in the last column.

    Tokens that all prompts open with, such as the question before the text, are run once and shared. Padding then
    stands between them and the rest, so the shared tokens are left in their rows where a sliding window, which counts
    places and not positions, would end within the batch.

    Args:
        model: what runs them; always with the same adapter for one `opening`.
        prompts: at least one, each at least one token long.
        device: where the model is.
        with_cache: whether keys and values are wanted.
        opening: what the prompts of several calls open with, run once for all of them.
    """
    num_opening = num_common(prompts) * (len(prompts) > 1) if opening is None else len(opening.ids)
    num_shared = num_opening if _may_share(model, prompts, num_opening, ROOM if with_cache else 0) else 0
    cache = DynamicCache(config=model.causal_lm.config) if with_cache else None
    if num_shared:
        shared = Opening(prompts[0][:num_shared]) if opening is None else opening
        cache = shared.keys_and_values(model, device)
        cache.batch_repeat_interleave(len(prompts))
    width = max(map(len, prompts)) - num_shared
    ids_BT = torch.zeros(len(prompts), width, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for b, prompt in enumerate(prompts):
        rest = prompt[num_shared:]
        ids_BT[b, width - len(rest) :] = torch.tensor(rest)
        mask_BT[b, width - len(rest) :] = 1
    mask_BT = torch.cat([mask_BT.new_ones(len(prompts), num_shared), mask_BT], dim=1).to(device)
    output = model.decode(
        input_ids=ids_BT.to(device),
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0)[:, num_shared:],
        past_key_values=cache,
        use_cache=cache is not None,
    )
    return Prefill(output.last_hidden_state[:, -1], mask_BT, output.past_key_values if with_cache else None)


def num_common(prompts: list[list[int]]) -> int:
    """How many tokens all prompts open with, one less than the shortest has at most; 0 of no prompts."""
    if not prompts:
        return 0
    first, last = min(prompts), max(prompts)
    most = min(map(len, prompts)) - 1  # a row needs a token of its own to be read at
    return next((n for n in range(most) if first[n] != last[n]), most)


def _may_share(model: DualHead, prompts: list[list[int]], num_shared: int, room: int) -> bool:
    window = getattr(model.causal_lm.config.get_text_config(), "sliding_window", None)
    return num_shared >= MIN_SHARED and not (window and max(map(len, prompts)) + room > window)


@torch.no_grad()
def decode_greedily(
    model: DualHead,
    start: Prefill,
    forced: list[list[int]],
    *,
    eos: int,
    max_new_tokens: int,
    note_choices: bool = True,
) -> list[Written]:
    """Writes on from a prefill, the likeliest token at a time.

    Args:
        model: where the cache comes from.
        start: its cache is used up.
        forced: ids with which each row opens; may be empty, and of different lengths.
        eos: id that ends a row.
        max_new_tokens: ids a row, at most.
        note_choices: note what the model would have written in place of forced ids; where nobody asks, logits are not
            computed as long as all rows are forced.
    """
    written = [Written() for _ in forced]
    active = list(range(len(forced)))
    mask_BT, cache = start.mask_BT, start.cache
    hidden_BD = start.hidden_BD
    for position in range(max_new_tokens):
        is_read = note_choices or any(position >= len(forced[row]) for row in active)
        choices = model.lm_logits(hidden_BD).argmax(dim=-1).tolist() if is_read else [eos] * len(active)
        kept: list[int] = []
        for b, row in enumerate(active):
            if position < len(forced[row]):
                written[row].forced_was_first_choice &= is_read and choices[b] == forced[row][position]
                choices[b] = forced[row][position]
            if choices[b] != eos or position < len(forced[row]):
                written[row].ids.append(choices[b])
                kept.append(b)
            else:
                written[row].is_cut = False
        if not kept or position == max_new_tokens - 1:
            break
        if len(kept) < len(active):  # rows that have ended cost nothing from here on
            index = torch.tensor(kept, device=mask_BT.device)
            cache.batch_select_indices(index)
            mask_BT = mask_BT[index]
            active, choices = [active[b] for b in kept], [choices[b] for b in kept]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(active), 1)], dim=1)
        output = model.decode(
            input_ids=torch.tensor(choices, device=mask_BT.device)[:, None],
            attention_mask=mask_BT,
            position_ids=mask_BT.sum(1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        )
        hidden_BD = output.last_hidden_state[:, -1]
    return written
