"""Layers that are computed a second time in the backward pass, and where their inputs wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from clsgen_dist.errors import ConfigError


def recompute_layers(backbone: Any, policy: str, *, inputs_on_host: bool = False) -> None:
    """Lets layers of a backbone keep nothing but their input in training.

    Whole layers are recomputed, not single operations: choosing operations needs the kind of checkpoint that compares
    the shapes of what it kept, and ZeRO-3 has partitioned the weights again by then.

    Args:
        backbone: a transformers model, plain or wrapped by PEFT.
        policy: none; selective, every second layer, the first one included; or full, all layers.
        inputs_on_host: keep the inputs in CPU memory, which is pinned where there is a GPU, until they are needed.

    Raises:
        ConfigError: the family cannot recompute.
    """
    if policy == "none":
        return
    try:
        # Re-entrant: the kind that compares no shapes.
        backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    except ValueError as error:
        raise ConfigError(
            f"model.gradient_checkpointing: this family of models cannot recompute its layers ({error})"
        ) from None
    # Without it a re-entrant checkpoint over frozen weights sees nothing that needs a gradient.
    backbone.enable_input_require_grads()
    for number, layer in enumerate(recomputable_layers(backbone)):
        layer.gradient_checkpointing = policy == "full" or number % 2 == 0
        if inputs_on_host:
            layer._gradient_checkpointing_func = _with_inputs_on_host(layer._gradient_checkpointing_func)


def recomputable_layers(backbone: nn.Module) -> list[Any]:
    """The layers of a backbone, in the order in which they are computed."""
    return [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]


def _with_inputs_on_host(checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint saves its inputs and nothing else, so nothing else moves: no weight, and nothing of what it runs."""

    def checkpoint_on_host(function: Callable[..., Any], *inputs: Any) -> Any:
        with torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available()):
            return checkpoint(function, *inputs)

    return checkpoint_on_host
