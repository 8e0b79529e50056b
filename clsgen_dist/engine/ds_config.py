"""ZeRO settings of a file + numbers of the run configuration -> the configuration that DeepSpeed gets."""

from __future__ import annotations

from typing import Any


def full_ds_config(zero: dict[str, Any], *, precision: str, max_grad_norm: float, world_size: int) -> dict[str, Any]:
    """Joins the two, each number from its one owner.

    DeepSpeed is told of one row a micro-batch and no accumulation: micro-batches vary in rows, so the step decides
    where a gradient ends (`Engine.backward`), and the loss is already divided by the counts of the whole step.

    Args:
        zero: settings as `read_zero` gives them.
        precision: bf16 or fp32.
        max_grad_norm: global gradient norm to clip at.
        world_size: number of ranks.
    """
    return {
        **zero,
        "train_batch_size": world_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": max_grad_norm,
        # Without it stage 2 would apply a gradient that is not finite; stage 3 always looks.
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
