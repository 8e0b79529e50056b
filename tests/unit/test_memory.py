"""Estimates beside what autograd really keeps, and the choice that hangs on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PretrainedConfig, Qwen3Config

from clsgen_dist.config.sections import Lora
from clsgen_dist.memory import (
    RECOMPUTED_SHARES,
    MemoryPlan,
    Setup,
    Shape,
    estimate,
    input_bytes,
    layer_bytes,
    least_recomputation,
    num_droppable,
)
from clsgen_dist.model.build import add_new_adapter
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.heads import ClassificationHead
from clsgen_dist.model.recomputation import recompute_layers
from clsgen_dist.train.automatic import shape_of

LLAMA = Shape(
    num_parameters=1_000_000,
    num_trainable=0,
    largest_module=100_000,
    layers=5,
    width=128,
    inner=448,
    query_channels=128,
    key_channels=32,
    normalised=256,
    vocabulary=300,
    dropout=False,
)
SETUP = Setup(
    policy="none",
    inputs_on_host=False,
    bytes_a_number=4,
    stage=2,
    world_size=1,
    parameters_on_host=False,
    optimizer_on_host=False,
)
NUM_TOKENS = 192


SIZES = {"vocab_size": 300, "hidden_size": 128, "intermediate_size": 448, "num_attention_heads": 8}
CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "Llama": partial(LlamaConfig, **SIZES, num_key_value_heads=2),
    "Gemma 3": partial(Gemma3TextConfig, **SIZES, num_key_value_heads=1, head_dim=48),
    "Qwen 3": partial(Qwen3Config, **SIZES, num_key_value_heads=2, head_dim=32),
}


def model_of(name: str, dtype: torch.dtype, lora: Lora | None) -> Any:
    config = CONFIGS[name](num_hidden_layers=LLAMA.layers)
    causal_lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return add_new_adapter(causal_lm, lora, seed=0).train()


def kept_bytes(model: Any, policy: str) -> int:
    """What autograd holds between the passes, without weights; each storage once."""
    recompute_layers(model, policy)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    decoder = model.get_base_model().get_decoder() if hasattr(model, "peft_config") else model.get_decoder()
    ids, places = torch.ones(1, NUM_TOKENS, dtype=torch.long), torch.arange(NUM_TOKENS)[None]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = decoder(input_ids=ids, position_ids=places, use_cache=False)
    assert output.last_hidden_state.requires_grad
    return sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("lora", [None, Lora(rank=4), Lora(rank=4, dropout=0.1)], ids=["full", "lora", "dropout"])
@pytest.mark.parametrize("policy", list(RECOMPUTED_SHARES))
@pytest.mark.parametrize("name", list(CONFIGS))
def test_activations_are_what_autograd_keeps(name: str, policy: str, lora: Lora | None, dtype: torch.dtype) -> None:
    model = model_of(name, dtype, lora)
    shape = shape_of(DualHead(model, ClassificationHead(LLAMA.width, 2, seed=0)), lora)
    size = dtype.itemsize
    recomputed = {"none": 0, "selective": 3, "full": 5}[policy]
    setup = replace(SETUP, policy=policy, bytes_a_number=size)
    expected = (5 - recomputed) * layer_bytes(shape, NUM_TOKENS, size) + input_bytes(shape, NUM_TOKENS, setup)
    if shape.dropout:  # a GPU keeps what was dropped as bytes, a CPU as numbers
        expected += (5 - recomputed) * NUM_TOKENS * (size - 1) * num_droppable(shape)
    # Beside the layers: the embeddings that a norm reads at the end, and the tables of positions.
    around = NUM_TOKENS * 3 * (4 + size) * shape.width
    # Gemma's norms multiply by their weights in fp32, and keep that product where they are trained.
    assert 0.95 * expected <= kept_bytes(model, policy) <= (1.2 if lora is None else 1.05) * expected + around


def test_recomputation_stands_beside_one_layer_of_its_own() -> None:
    layer, token = layer_bytes(LLAMA, NUM_TOKENS, 4), NUM_TOKENS * 4 * 128
    found = {p: estimate(LLAMA, replace(SETUP, policy=p), NUM_TOKENS, 0).activations for p in RECOMPUTED_SHARES}
    assert found == {"none": 5 * layer, "selective": 3 * layer + 3 * token, "full": layer + 5 * token}
    away = replace(SETUP, policy="full", inputs_on_host=True)
    moved = estimate(LLAMA, away, NUM_TOKENS, 0)
    assert (moved.activations, moved.moved_to_host) == (layer, 5 * token)


def of_size(num_bytes: int) -> MemoryPlan:
    parts = dict.fromkeys(("gradients", "optimizer", "gathered", "activations", "logits"), 1)
    return MemoryPlan(parameters=num_bytes - 5, **parts, moved_to_host=2000)


@pytest.mark.parametrize(
    ("device_bytes", "expected"), [(1200, "none"), (1100, "selective"), (700, "selective"), (600, "full"), (5, "full")]
)
def test_the_least_recomputation_that_fits(device_bytes: int, expected: str) -> None:
    """Of a device 85 % are used."""
    found = {"none": of_size(1000), "selective": of_size(590), "full": of_size(300)}
    assert least_recomputation(found, device_bytes) == expected
