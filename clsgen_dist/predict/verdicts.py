"""The probability of each label as the model's own words: how likely its verdict is to follow a prompt.

Shape letters: B rows of a batch, T tokens of a verdict, D hidden width, V vocabulary, K labels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.predict.decoding import Prefill


@torch.no_grad()
def score_verdicts(model: DualHead, start: Prefill, verdicts: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Log-likelihood of each label's verdict after each prompt.

    Args:
        model: where the cache comes from.
        start: prompts, with their cache, which stays as it is.
        verdicts: ids of the verdict of each of K labels; none begins with another, see the rules of the configuration.

    Returns:
        Shape (B, K), nats; 0 or less. Their softmax is the probability of each label, given that one of the verdicts
        is said, so they stand where a head's logits would.
    """
    opening_BV = model.lm_logits(start.hidden_BD).float()
    columns = []
    for verdict in verdicts:
        ids_T = torch.tensor(verdict, device=start.mask_BT.device)
        total_B = _log_likelihood(opening_BV, ids_T[:1].expand(len(opening_BV)))
        if len(ids_T) > 1:
            ids_BT = ids_T[:-1].expand(len(opening_BV), -1)
            output = model.decode(
                input_ids=ids_BT,
                attention_mask=torch.cat([start.mask_BT, torch.ones_like(ids_BT)], dim=1),
                position_ids=start.mask_BT.sum(1, keepdim=True) + torch.arange(ids_BT.shape[1], device=ids_T.device),
                past_key_values=copy.deepcopy(start.cache),
                use_cache=True,
            )
            logits_BTV = model.lm_logits(output.last_hidden_state).float()
            total_B = total_B + _log_likelihood(logits_BTV.flatten(0, 1), ids_T[1:].repeat(len(ids_BT))).view(
                ids_BT.shape
            ).sum(1)
        columns.append(total_B.double().cpu().numpy())
    return np.stack(columns, axis=1)


def _log_likelihood(logits_NV: torch.Tensor, ids_N: torch.Tensor) -> torch.Tensor:
    return -functional.cross_entropy(logits_NV, ids_N, reduction="none")
