"""What ZeRO moves, and what that leaves of a GPU's time: a model on paper, of pure functions.

Compute is what the multiplications of a micro-batch need at a given rate; communication is what ZeRO moves for it at
the slowest link on the way. The truth lies between communication wholly hidden behind compute and not hidden at all, so
an efficiency is a pair. Latency, stragglers and reading of rows are left out.

Source: arXiv 1910.02054 (ZeRO), section 7, for the bytes; arXiv 2001.08361, section 2.1, for the operations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interconnect:
    """Links of a cluster.

    Attributes:
        name: for the reader.
        gpus_a_node: GPUs of a node.
        gpu_bytes_per_second: into one GPU from others of its node.
        node_bytes_per_second: into one node from others, all its GPUs together.
    """

    name: str
    gpus_a_node: int
    gpu_bytes_per_second: float
    node_bytes_per_second: float


#: By their data sheets, one direction; none of them was measured here.
INTERCONNECTS = (
    Interconnect("NVLink 4, 400 Gb/s a GPU", 8, 450e9, 8 * 50e9),
    Interconnect("NVLink 4, 100 Gb/s a node", 8, 450e9, 12.5e9),
    Interconnect("PCIe 5, 100 Gb/s a node", 8, 50e9, 12.5e9),
)


@dataclass(frozen=True)
class Load:
    """What a GPU does with one micro-batch, which is also one optimizer step: the worst case for communication.

    Attributes:
        num_parameters: of the backbone.
        num_trainable: of them and of the adapter, those that are trained.
        num_tokens: tokens of the micro-batch.
        bytes_a_number: of weights and gradients.
        recomputed_share: of the layers, those that are computed a second time in the backward pass.
    """

    num_parameters: int
    num_trainable: int
    num_tokens: int
    bytes_a_number: int
    recomputed_share: float


#: What a plan assumes of a GPU: 45 % of the 989e12 bf16 operations a second of an H100's data sheet. Not measured here.
ASSUMED_OPERATIONS_PER_SECOND = 0.45 * 989e12

#: Sizes of clusters that a plan speaks of, GPUs.
SIZES = (8, 64, 512)


def operations(load: Load) -> float:
    """Floating-point operations of a micro-batch; attention scores are left out.

    A pass forward takes two a parameter and token, one backward two for the activations, and two more for the
    gradients of those weights that are trained.
    """
    passes = 4 + 2 * load.recomputed_share
    return load.num_tokens * (passes * load.num_parameters + 2.0 * load.num_trainable)


def gathered_and_reduced_bytes(load: Load, stage: int) -> float:
    """Bytes that one GPU of very many takes in: weights that are gathered, gradients that are reduced.

    Stage 3 gathers all weights, frozen ones too, once forward, once backward, and once more for layers that are
    computed again; stage 2 gathers what the optimizer has changed. Both reduce the gradients of what is trained.
    """
    gathered = (2 + load.recomputed_share) * load.num_parameters if stage == 3 else load.num_trainable
    return float(load.bytes_a_number * (gathered + load.num_trainable))


def communication_seconds(load: Load, stage: int, num_gpus: int, links: Interconnect) -> float:
    """Seconds that the slowest link needs for a micro-batch.

    A whole copy enters each GPU, but for its own share; and it enters each node only once, for all its GPUs.
    """
    moved = gathered_and_reduced_bytes(load, stage)
    num_nodes = -(-num_gpus // links.gpus_a_node)
    inside = moved * (num_gpus - 1) / num_gpus / links.gpu_bytes_per_second
    between = moved * (num_nodes - 1) / num_nodes / links.node_bytes_per_second
    return max(inside, between)


def efficiency(
    load: Load, stage: int, num_gpus: int, links: Interconnect, operations_per_second: float
) -> tuple[float, float]:
    """Tokens a second and GPU, as a share of those of one GPU alone: nothing overlaps, all overlaps."""
    compute = operations(load) / operations_per_second
    communication = communication_seconds(load, stage, num_gpus, links)
    return compute / (compute + communication), compute / max(compute, communication)


def tokens_to_hide(load: Load, num_gpus: int, links: Interconnect, operations_per_second: float) -> float:
    """Tokens of a micro-batch from which on compute takes as long as what ZeRO-3 moves."""
    seconds_a_token = operations(load) / load.num_tokens / operations_per_second
    return communication_seconds(load, 3, num_gpus, links) / seconds_a_token


def render_scaling(load: Load, stage: int) -> list[str]:
    """Lines of a plan: efficiency by interconnect and size, lowest and highest."""
    lines = [
        f"expected efficiency under ZeRO-{stage}, {load.num_tokens:,} tokens a step and GPU; a model, not measured",
        f"  {'GPUs':<26}" + "".join(f"{size:>14}" for size in SIZES),
    ]
    for links in INTERCONNECTS:
        found = [efficiency(load, stage, size, links, ASSUMED_OPERATIONS_PER_SECOND) for size in SIZES]
        shares = (f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in found)
        lines.append(f"  {links.name:<26}" + "".join(f"{share:>14}" for share in shares))
    return lines
