"""Which attention kernels a model is loaded with: those that were asked for, or the fastest that are here."""

from __future__ import annotations

import torch
from transformers.utils.import_utils import is_flash_attn_2_available

#: Skips what stands between packed rows, where the others mask it; GPUs only, from a package of its own, not in fp32.
FLASH = "flash_attention_2"


def attention_here(asked: str, dtype: torch.dtype, device: torch.device) -> str:
    """`model.attention` without `auto`: FlashAttention where it is installed and can be used, else torch's own."""
    if asked != "auto":
        return asked
    usable = device.type == "cuda" and dtype != torch.float32 and is_flash_attn_2_available()
    return FLASH if usable else "sdpa"


def attention_again(trained_with: str, dtype: torch.dtype, device: torch.device) -> str:
    """What a trained model is loaded with: FlashAttention is no condition for using it."""
    return attention_here("auto" if trained_with == FLASH else trained_with, dtype, device)
