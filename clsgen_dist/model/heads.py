"""The classification head: K logits from one hidden state. Shape letters: E rows, D hidden width, K labels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ClassificationHead(nn.Module):
    """A linear map that always answers in fp32, so that a bf16 model does not round its probabilities."""

    def __init__(self, hidden_size: int, num_labels: int, *, seed: int) -> None:
        """Draws small weights, the same on every rank: the first probabilities are near 1/K.

        Built outside of any zero.Init context, where an initialisation would silently touch empty tensors.
        """
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight_KD = torch.randn(num_labels, hidden_size, generator=generator) * 0.1 / hidden_size**0.5
        self.weight = nn.Parameter(weight_KD)
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def forward(self, hidden_ED: torch.Tensor) -> torch.Tensor:
        """(E, D) of any float type -> (E, K) fp32."""
        return functional.linear(hidden_ED.float(), self.weight.float(), self.bias.float())
