"""When Liger's kernels are asked for: what is handed to them, and what is said where there are none.

The kernels need a GPU: tests/gpu trains with them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig
from transformers.integrations import liger

from clsgen_dist.config.sections import Model
from clsgen_dist.errors import ConfigError
from clsgen_dist.model.build import build_model
from clsgen_dist.model.liger import use_liger_kernels
from tests.support.tiny import shared_backbone

SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


def model(config: type) -> Any:
    return AutoModelForCausalLM.from_config(config(**SIZES, num_attention_heads=2, num_key_value_heads=1, head_dim=8))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, bool]]]:
    """A package that has kernels for Llamas and notes what it is asked for."""
    calls: list[tuple[Any, dict[str, bool]]] = []
    names = ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch")
    root, inner, patch = map(ModuleType, names)
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}  # type: ignore[attr-defined]
    inner._apply_liger_kernel_to_instance = lambda model, **settings: calls.append((model, settings))  # type: ignore[attr-defined]
    for module in (root, inner, patch):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(liger, "is_liger_kernel_available", lambda: True)
    return calls


def test_all_kernels_but_those_of_losses(asked: list[tuple[Any, dict[str, bool]]]) -> None:
    llama = model(LlamaConfig)
    use_liger_kernels(llama)
    assert asked == [(llama, {"cross_entropy": False, "fused_linear_cross_entropy": False})]


def test_a_family_without_kernels_is_refused(asked: list[tuple[Any, dict[str, bool]]]) -> None:
    with pytest.raises(ConfigError, match="no kernels for gemma3_text models, only for llama; set it to false"):
        use_liger_kernels(model(Gemma3TextConfig))
    assert asked == []


def test_without_the_package_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    base = shared_backbone()
    settings = Model(name_or_path=base, liger_kernels=True)
    with pytest.raises(ConfigError, match=r"model.liger_kernels: .*pip install 'clsgen_dist\[liger\]'"):
        build_model(settings, base, 2, dtype=torch.float32, seed=0)
