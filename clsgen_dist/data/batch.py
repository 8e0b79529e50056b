"""Tokenised rows -> one micro-batch: a grid of lines, each with several rows end to end.

One long line would make every token attend, masked, to all others: cost that grows with the square of the budget.
Lines about as long as a few rows keep that cost down and waste few places.

Shape letters: B lines, T places of a line, E rows (examples), N positions that carry language-model loss.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from clsgen_dist.data.tokens import TokenizedRow

#: Line length at which attention costs about as much as all else, tokens; weighs padding against long lines.
_ATTENTION_TOKENS = 1024

#: A line is about this many times as long as the longest row, at most.
_MOST_ROWS_A_LINE = 8

#: About how many layouts of a micro-batch are compared.
_MOST_LAYOUTS = 64


@dataclass(frozen=True)
class Batch:
    """Rows in lines; `position_ids` restart at 0 with each row, which keeps rows apart, and with each padded place.

    Indices count places line by line: place t of line b is b * T + t.

    Attributes:
        input_ids: (B, T) int64.
        position_ids: (B, T) int64.
        cls_index: (E,) int64, place of each row's last prompt token.
        labels: (E,) int64, UNLABELLED where unknown.
        lm_index: (N,) int64, places whose next token is scored.
        lm_targets: (N,) int64, those next tokens.
        lm_rows: (N,) int64, row of the micro-batch that each scored place belongs to.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    cls_index: torch.Tensor
    labels: torch.Tensor
    lm_index: torch.Tensor
    lm_targets: torch.Tensor
    lm_rows: torch.Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device; from pinned memory without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same in memory that a GPU reads by itself."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return replace(self, **{f.name: change(getattr(self, f.name)) for f in fields(self)})


def collate(rows: Sequence[TokenizedRow], *, one_line: bool = False) -> Batch:
    """Lays rows out.

    Args:
        rows: none give one unread place: a forward pass with nothing in it, which keeps ranks aligned.
        one_line: all rows in one line without padding, for kernels that take packed rows in that form only.
    """
    sizes = [len(row.prompt) + max(len(row.completion) - 1, 0) for row in rows]
    lines = [list(range(len(rows)))] if one_line or not rows else _lines(sizes)
    width = max([sum(sizes[n] for n in line) for line in lines] + [1])
    input_ids = np.zeros((len(lines), width), dtype=np.int64)
    position_ids = np.zeros((len(lines), width), dtype=np.int64)
    cls_index = np.zeros(len(rows), dtype=np.int64)
    scored_places: list[np.ndarray] = [np.zeros(0, np.int64)] * len(rows)
    for b, line in enumerate(lines):
        start = 0
        for n in line:
            row, place = rows[n], slice(start, start + sizes[n])
            input_ids[b, place] = np.concatenate([row.prompt, row.completion[:-1]])
            position_ids[b, place] = np.arange(sizes[n])
            cls_index[n] = b * width + start + len(row.prompt) - 1
            # The place before a token predicts it; the last prompt token predicts the first of the completion.
            scored_places[n] = cls_index[n] + np.arange(row.num_unscored, len(row.completion))
            start += sizes[n]
    targets = [row.completion[row.num_unscored :] for row in rows]
    owners = [np.full(len(places), n) for n, places in enumerate(scored_places)]
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(position_ids),
        cls_index=torch.from_numpy(cls_index),
        labels=torch.tensor([row.label for row in rows], dtype=torch.long),
        lm_index=_tensor(scored_places),
        lm_targets=_tensor(targets),
        lm_rows=_tensor(owners),
    )


def _lines(sizes: Sequence[int]) -> list[list[int]]:
    """Rows by line: of several numbers of lines, the one that costs least."""
    fewest = -(-sum(sizes) // (_MOST_ROWS_A_LINE * max(sizes)))
    counts = range(fewest, len(sizes) + 1, max(1, len(sizes) // _MOST_LAYOUTS))

    def cost(lines: list[list[int]]) -> float:
        width = max(sum(sizes[n] for n in line) for line in lines)
        return len(lines) * width * (1 + width / _ATTENTION_TOKENS)

    return min((_balanced(sizes, count) for count in counts), key=cost)


def _balanced(sizes: Sequence[int], num_lines: int) -> list[list[int]]:
    """Lines of about equal length: the longest row that is left goes to the shortest line."""
    lines: list[list[int]] = [[] for _ in range(num_lines)]
    filled = [(0, b) for b in range(num_lines)]
    for n in sorted(range(len(sizes)), key=lambda n: (-sizes[n], n)):
        width, b = filled[0]
        lines[b].append(n)
        heapq.heapreplace(filled, (width + sizes[n], b))
    return lines


def _tensor(parts: Sequence[np.ndarray]) -> torch.Tensor:
    whole = np.concatenate(parts) if parts else np.zeros(0)
    return torch.from_numpy(whole.astype(np.int64))
