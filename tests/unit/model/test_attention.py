"""Which attention kernels `auto` takes."""

from __future__ import annotations

import pytest
import torch

from clsgen_dist.model import attention
from clsgen_dist.model.attention import attention_here


@pytest.mark.parametrize(
    ("device", "dtype", "is_installed", "expected"),
    [
        ("cuda", torch.bfloat16, True, "flash_attention_2"),
        ("cuda", torch.bfloat16, False, "sdpa"),
        ("cuda", torch.float32, True, "sdpa"),
        ("cpu", torch.bfloat16, True, "sdpa"),
    ],
)
def test_auto_takes_what_is_there(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype, is_installed: bool, expected: str
) -> None:
    monkeypatch.setattr(attention, "is_flash_attn_2_available", lambda: is_installed)
    assert attention_here("auto", dtype, torch.device(device)) == expected
    for asked in ("sdpa", "eager", "flash_attention_2"):
        assert attention_here(asked, dtype, torch.device(device)) == asked
