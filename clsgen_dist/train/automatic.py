"""What is left to `auto` in the configuration, decided: what a model takes against what the devices have, or can."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import torch

from clsgen_dist.accelerator import free_bytes
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Lora
from clsgen_dist.config.zero import offloads, zero_stage
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import ConfigError
from clsgen_dist.memory import RECOMPUTED_SHARES, MemoryPlan, Setup, Shape, estimate, least_recomputation
from clsgen_dist.model.attention import attention_here
from clsgen_dist.model.build import DTYPES, build_skeleton
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.train.dry_batch import largest_counts

#: Up to this share of the free memory an estimate is far enough from all of it: on a CPU, long rows take 1.5 times
#: their estimate, since the C library keeps pieces of what was freed.
_SURE_SHARE = 1 / 3


def decided(config: RunConfig, base: str, split: TokenizedSplit, ranks: Ranks, zero: dict[str, Any]) -> RunConfig:
    """The configuration without `auto`: attention, recomputation, and whether the longest micro-batch is tried first.

    The same on all ranks; all of them call it, before the model is loaded. The rank with the least memory decides.
    `zero` are the settings of ZeRO, as they stand in the run folder: a worker of a cluster has no other file of them.

    Raises:
        ConfigError: activations are to wait in CPU memory, where they are already; or kernels of GPUs on CPUs.
    """
    if config.model.activation_offload and ranks.device.type == "cpu":
        raise ConfigError(
            "model.activation_offload: true, and this training runs on CPUs, whose memory holds all activations as it "
            "is; set it to false"
        )
    if config.model.liger_kernels and ranks.device.type == "cpu":
        raise ConfigError(
            "model.liger_kernels: true, and this training runs on CPUs; kernels written in Triton need a GPU; set it "
            "to false"
        )
    if config.model.attention == "auto":
        here = ranks.gather(attention_here("auto", DTYPES[config.train.precision], ranks.device))
        config = _with_model(config, attention=here[0] if len(set(here)) == 1 else "sdpa")
    policy: str = config.model.gradient_checkpointing
    dry_batch = config.train.dry_batch
    if "auto" not in (policy, dry_batch):
        return config
    model = build_skeleton(config.model, base, config.num_labels)
    plans = estimates(config, model, split, ranks.world_size, zero, on_cpu=ranks.device.type == "cpu")
    room = _smallest_room(ranks)
    if policy == "auto":
        policy = least_recomputation(plans, room)
    if dry_batch == "auto":
        # The eager kernel keeps attention scores, which the estimate leaves out.
        dry_batch = config.model.attention == "eager" or plans[policy].total > _SURE_SHARE * room
    config = _with_model(config, gradient_checkpointing=policy)
    return config.model_copy(update={"train": config.train.model_copy(update={"dry_batch": dry_batch})})


def _with_model(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def _smallest_room(ranks: Ranks) -> int:
    """Bytes that a rank may take, of the rank with the fewest; ranks of one node share its memory."""
    found = ranks.gather((socket.gethostname(), free_bytes(ranks.device)))
    nodes = Counter(node for node, _ in found)
    shares = (free if ranks.device.type == "cuda" else free // nodes[node] for node, free in found)
    return int(min(shares))


def estimates(
    config: RunConfig,
    model: DualHead,
    split: TokenizedSplit,
    world_size: int,
    zero: dict[str, Any],
    *,
    on_cpu: bool = False,
) -> dict[str, MemoryPlan]:
    """Bytes a device, by policy of recomputation.

    Args:
        config: the run.
        model: its model, which may be without memory.
        split: training rows.
        world_size: ranks.
        zero: settings of ZeRO.
        on_cpu: the devices are CPUs, whose memory also holds what is offloaded.
    """
    train = config.train
    counts = largest_counts(split, config.run.seed, train.global_batch, train.token_budget, world_size)
    shape = shape_of(model, config.model.lora)
    setups = [_setup(config, policy, world_size, zero, on_cpu) for policy in RECOMPUTED_SHARES]
    return {setup.policy: estimate(shape, setup, *counts) for setup in setups}


def _setup(config: RunConfig, policy: str, world_size: int, zero: dict[str, Any], on_cpu: bool) -> Setup:
    return Setup(
        policy=policy,
        inputs_on_host=config.model.activation_offload,
        bytes_a_number=DTYPES[config.train.precision].itemsize,
        stage=zero_stage(zero),
        world_size=world_size,
        parameters_on_host=not on_cpu and offloads(zero, "param"),
        optimizer_on_host=not on_cpu and offloads(zero, "optimizer"),
    )


def shape_of(model: DualHead, lora: Lora | None) -> Shape:
    """Sizes of a model with such an adapter; it may be without memory."""
    shape = model.causal_lm.config.get_text_config()
    num_keys = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    head_width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    modules = [*model.causal_lm.get_decoder().layers, model.causal_lm.get_input_embeddings()]
    return Shape(
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        largest_module=max(sum(p.numel() for p in module.parameters()) for module in modules),
        layers=shape.num_hidden_layers,
        width=shape.hidden_size,
        inner=shape.intermediate_size,
        query_channels=shape.num_attention_heads * head_width,
        key_channels=num_keys * head_width,
        normalised=_normalised(modules[0], shape.num_attention_heads * head_width, num_keys * head_width, head_width),
        vocabulary=shape.vocab_size,
        dropout=lora is not None and lora.dropout > 0,
    )


def _normalised(layer: torch.nn.Module, query_channels: int, key_channels: int, head_width: int) -> int:
    """Channels that the norms of a layer read; a norm of heads has the weights of one head for all of them."""
    of_heads = {"q_norm": query_channels, "k_norm": key_channels}
    num_channels = 0
    for path, module in layer.named_modules():
        if "Norm" in type(module).__name__:
            width = sum(weight.numel() for weight in module.parameters() if weight.ndim == 1)
            num_channels += of_heads.get(path.rpartition(".")[2], width) if width == head_width else width
    return num_channels
