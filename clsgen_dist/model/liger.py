"""Liger's kernels in the place of a model's own norms, rotary positions and gated feed-forward parts, on GPUs.

Its losses are left out: they work on all positions, or on weights that ZeRO-3 has partitioned.
"""

from __future__ import annotations

import importlib
from typing import Any

from clsgen_dist.errors import ConfigError


def use_liger_kernels(causal_lm: Any) -> None:
    """Changes a transformers causal language model in place, and the classes of its family in this process.

    Args:
        causal_lm: without an adapter's wrapper; its weights may be partitioned.

    Raises:
        ConfigError: the package is not installed, or knows no kernels for this family.

    Source: Liger Kernel, arXiv 2410.10989.
    """
    try:
        families = importlib.import_module("liger_kernel.transformers.monkey_patch").MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError as error:
        raise ConfigError(
            "model.liger_kernels: the package liger-kernel cannot be used here "
            f"({error}); pip install 'clsgen_dist[liger]' on every node, or set it to false"
        ) from None
    family = causal_lm.config.model_type
    if family not in families:
        raise ConfigError(
            f"model.liger_kernels: Liger has no kernels for {family} models, only for {', '.join(sorted(families))}; "
            "set it to false"
        )
    # Only here: what it imports would make every other start slower.
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(causal_lm, {"cross_entropy": False, "fused_linear_cross_entropy": False})
