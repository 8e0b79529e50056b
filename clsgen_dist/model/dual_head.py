"""One backbone, two heads. Knows no ranks and no loss.

Shape letters: B sequences, T tokens, P = B * T places, D hidden width, E rows, K labels, N scored positions,
V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from clsgen_dist.model.heads import ClassificationHead


class DualHeadOutput(NamedTuple):
    """What one pass gives.

    Attributes:
        cls_logits_EK: fp32, one row for each entry of `cls_index`.
        lm_logits_NV: in the backbone's number format, one row for each entry of `lm_index`.
        base_lm_logits_NV: the same from the base model, where it was asked for; carries no gradient.
    """

    cls_logits_EK: torch.Tensor
    lm_logits_NV: torch.Tensor
    base_lm_logits_NV: torch.Tensor | None


class DualHead(nn.Module):
    """A causal language model with a classification head beside its own.

    The classification head reads the final hidden state at positions that the caller names; nothing is inferred from
    padding. Language-model logits exist at named positions only, since a vocabulary of 262,144 at every position
    would cost more than the rest of the model.
    """

    def __init__(self, backbone: nn.Module, head: ClassificationHead) -> None:
        """Joins a transformers causal LM, plain or wrapped by PEFT, with a head."""
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def causal_lm(self) -> Any:
        """The causal language model itself, without the PEFT wrapper."""
        backbone: Any = self.backbone
        return backbone.get_base_model() if self.has_adapter else backbone

    @property
    def has_adapter(self) -> bool:
        return hasattr(self.backbone, "peft_config")

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cls_index: torch.Tensor,
        lm_index: torch.Tensor,
        *,
        with_base: bool = False,
    ) -> DualHeadOutput:
        """One pass over a packed micro-batch.

        Args:
            input_ids: (B, T) int64.
            position_ids: (B, T) int64, restarting at 0 with each packed row.
            cls_index: (E,) int64, places counted line by line: t of line b is b * T + t.
            lm_index: (N,) int64, likewise.
            with_base: also give the base model's logits, from the same weights with the adapter switched off.
        """
        base_NV = None
        if with_base:
            with torch.no_grad(), self.adapter_off():
                base_NV = self.lm_logits(self._hidden(input_ids, position_ids)[lm_index])
        hidden_PD = self._hidden(input_ids, position_ids)
        return DualHeadOutput(self.head(hidden_PD[cls_index]), self.lm_logits(hidden_PD[lm_index]), base_NV)

    def _hidden(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        # No attention mask and no cache: only then does transformers see the packed rows in position_ids and keep
        # them apart; with either, rows would silently read each other.
        output = self.decode(input_ids=input_ids, position_ids=position_ids, attention_mask=None, use_cache=False)
        return torch.as_tensor(output.last_hidden_state).flatten(0, 1)

    def decode(self, **inputs: Any) -> Any:
        """The decoder alone: final hidden states, and a cache where `use_cache` asks for one."""
        return self.causal_lm.get_decoder()(**inputs)

    def lm_logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) final hidden states -> (N, V) next-token logits, soft-capped as Gemma 2 wants it."""
        logits_NV = self.causal_lm.get_output_embeddings()(hidden_ND)
        cap = getattr(self.causal_lm.config.get_text_config(), "final_logit_softcapping", None)
        return torch.as_tensor(logits_NV if cap is None else torch.tanh(logits_NV / cap) * cap)

    @contextlib.contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The base model for a while."""
        with self.backbone.disable_adapter():  # type: ignore[operator]
            yield
