"""Bytes that training takes on one GPU, and how little recomputation makes them fit: pure functions of shapes.

ZeRO-3 keeps 1/world of parameters, gradients and optimizer state, and gathers the largest module twice over (in use,
and prefetched); ZeRO-2 keeps parameters whole. AdamW holds a fp32 copy and two moments of what is trained. Activations
are those of a decoder layer with a gated feed-forward part (Llama, Gemma, Qwen, Mistral), without attention scores,
which only the eager kernel keeps.

Source: arXiv 1910.02054 (ZeRO) for states, arXiv 2205.05198 for activations; an estimate, not a promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

#: Policies of `model.gradient_checkpointing` and the share of layers that each computes a second time, least first.
RECOMPUTED_SHARES = {"none": 0.0, "selective": 0.5, "full": 1.0}

_FP32_BYTES = 4

#: Share of a device's memory that a policy may fill; the rest is for what the estimate leaves out: kernels' own
#: memory, pieces between allocations, collectives.
USABLE_SHARE = 0.85


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        num_parameters, num_trainable, largest_module: counts of parameters.
        layers, width, inner: decoder layers, their hidden and feed-forward channels.
        query_channels, key_channels: of all query heads together, of all key heads.
        normalised: channels that the norms of a layer read, one after another: two times `width` in a Llama.
        vocabulary: tokens.
        dropout: an adapter drops parts of its inputs, which then are kept a second time, with a mask.
    """

    num_parameters: int
    num_trainable: int
    largest_module: int
    layers: int
    width: int
    inner: int
    query_channels: int
    key_channels: int
    normalised: int
    vocabulary: int
    dropout: bool


@dataclass(frozen=True)
class Setup:
    """How it is trained.

    Attributes:
        policy: one of RECOMPUTED_SHARES.
        inputs_on_host: what recomputed layers start from waits in CPU memory.
        bytes_a_number: of weights and activations.
        stage, world_size: of ZeRO.
        parameters_on_host, optimizer_on_host: offloaded by ZeRO.
    """

    policy: str
    inputs_on_host: bool
    bytes_a_number: int
    stage: int
    world_size: int
    parameters_on_host: bool
    optimizer_on_host: bool


@dataclass(frozen=True)
class MemoryPlan:
    """Estimated bytes on one GPU; activations and logits of the largest micro-batch.

    Attributes:
        moved_to_host: of activations, what waits in CPU memory instead, for each GPU; no part of `total`.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int
    moved_to_host: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.gathered + self.activations + self.logits


def num_recomputed(layers: int, policy: str) -> int:
    """Layers that are computed a second time; of an odd number, every second one from the first."""
    return math.ceil(layers * RECOMPUTED_SHARES[policy])


def layer_bytes(shape: Shape, num_tokens: int, bytes_a_number: int) -> int:
    """What one layer keeps for its backward pass, its input included."""
    # Inputs of both halves; queries, keys, values and what attention makes of them; four steps of the gated part.
    channels = 2 * shape.width + 2 * (shape.query_channels + shape.key_channels) + 4 * shape.inner
    # Norms work in fp32 whatever the model's format is, and one that is trained keeps what its weight is multiplied by.
    norms = shape.normalised * (_FP32_BYTES + (bytes_a_number if shape.num_trainable == shape.num_parameters else 0))
    bytes_a_token = bytes_a_number * channels + norms
    if shape.dropout:  # each of seven products has an input of its own, and a byte for each number that may be dropped
        bytes_a_token += bytes_a_number * (3 * shape.width + shape.query_channels) + num_droppable(shape)
    return num_tokens * bytes_a_token


def num_droppable(shape: Shape) -> int:
    """Numbers of a token and layer that the adapter's dropout decides on: the inputs of seven products."""
    return 5 * shape.width + shape.query_channels + shape.inner


def input_bytes(shape: Shape, num_tokens: int, setup: Setup) -> int:
    """What recomputed layers start from, all of them together."""
    return num_tokens * setup.bytes_a_number * shape.width * num_recomputed(shape.layers, setup.policy)


def estimate(shape: Shape, setup: Setup, num_tokens: int, num_scored: int) -> MemoryPlan:
    """Bytes on one GPU.

    Args:
        shape: of the model.
        setup: how it is trained.
        num_tokens: of the largest micro-batch.
        num_scored: positions of a micro-batch that carry language-model loss, at most.
    """
    size, sharded = setup.bytes_a_number, setup.stage == 3
    recomputed = num_recomputed(shape.layers, setup.policy)
    # In the backward pass one recomputed layer at a time stands beside those that were kept.
    kept = shape.layers - recomputed + min(recomputed, 1)
    inputs = input_bytes(shape, num_tokens, setup)
    whole = shape.num_parameters * size // (setup.world_size if sharded else 1)
    return MemoryPlan(
        parameters=0 if setup.parameters_on_host else whole,
        gradients=shape.num_trainable * size // setup.world_size,
        optimizer=0 if setup.optimizer_on_host else shape.num_trainable * 12 // setup.world_size,
        gathered=2 * shape.largest_module * size if sharded else 0,
        activations=kept * layer_bytes(shape, num_tokens, size) + (0 if setup.inputs_on_host else inputs),
        # In the model's format, then in fp32 with its gradient, for the cross-entropy.
        logits=num_scored * shape.vocabulary * (size + 2 * _FP32_BYTES),
        moved_to_host=inputs if setup.inputs_on_host else 0,
    )


def least_recomputation(estimates: Mapping[str, MemoryPlan], device_bytes: int) -> str:
    """The policy with the least recomputation that fits into so much memory; the one with the most where none does."""
    fits = (policy for policy in RECOMPUTED_SHARES if estimates[policy].total <= USABLE_SHARE * device_bytes)
    return next(fits, list(RECOMPUTED_SHARES)[-1])
