"""Tokenised rows -> one padding-free micro-batch.

Shape letters: T tokens of the micro-batch, E rows (examples), N positions that carry language-model loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from clsgen_dist.data.tokens import TokenizedRow


@dataclass(frozen=True)
class Batch:
    """Rows laid end to end in one sequence; `position_ids` restart at 0 with each row, which keeps them apart.

    Attributes:
        input_ids: (1, T) int64.
        position_ids: (1, T) int64.
        cls_index: (E,) int64, position of each row's last prompt token.
        labels: (E,) int64, UNLABELLED where unknown.
        lm_index: (N,) int64, positions whose next token is scored.
        lm_targets: (N,) int64, those next tokens.
        lm_rows: (N,) int64, row of the micro-batch that each scored position belongs to.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    cls_index: torch.Tensor
    labels: torch.Tensor
    lm_index: torch.Tensor
    lm_targets: torch.Tensor
    lm_rows: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


def collate(rows: Sequence[TokenizedRow]) -> Batch:
    """Packs rows. No rows give one unread token: a forward pass with nothing in it, which keeps ranks aligned."""
    inputs: list[np.ndarray] = [] if rows else [np.zeros(1, np.int64)]
    positions: list[np.ndarray] = [] if rows else [np.zeros(1, np.int64)]
    cls_index, lm_index, targets, owners = [], [], [], []
    start = 0
    for number, row in enumerate(rows):
        ids = np.concatenate([row.prompt, row.completion[:-1]])
        inputs.append(ids)
        positions.append(np.arange(len(ids)))
        last_prompt = start + len(row.prompt) - 1
        cls_index.append(last_prompt)
        scored = np.arange(row.num_unscored, len(row.completion))
        lm_index.append(last_prompt + scored)
        targets.append(row.completion[row.num_unscored :])
        owners.append(np.full(len(scored), number))
        start += len(ids)
    return Batch(
        input_ids=_tensor(inputs)[None],
        position_ids=_tensor(positions)[None],
        cls_index=torch.tensor(cls_index, dtype=torch.long),
        labels=torch.tensor([row.label for row in rows], dtype=torch.long),
        lm_index=_tensor(lm_index),
        lm_targets=_tensor(targets),
        lm_rows=_tensor(owners),
    )


def _tensor(parts: Sequence[np.ndarray]) -> torch.Tensor:
    whole = np.concatenate(parts) if parts else np.zeros(0)
    return torch.from_numpy(whole.astype(np.int64))
