"""When things are due and how fast the weights move, as functions of the step alone."""

from __future__ import annotations

import math

from clsgen_dist.config.train import Train
from clsgen_dist.data.plan import num_steps_an_epoch


def total_steps(train: Train, num_rows: int) -> int:
    """Optimizer steps of a run over `num_rows` training rows."""
    steps = train.epochs * num_steps_an_epoch(num_rows, train.global_batch)
    return min(steps, train.max_steps) if train.max_steps else steps


def validation_interval(train: Train, num_steps: int) -> int:
    """Optimizer steps between two looks at validation."""
    return train.eval_steps or max(1, math.ceil(num_steps / 10))


def is_due(step: int, interval: int | None, num_steps: int) -> bool:
    """Whether something that happens every `interval` steps, and after the last, happens after `step` steps."""
    return step == num_steps or (interval is not None and step % interval == 0)


def learning_rate_factors(train: Train, step: int, num_steps: int) -> dict[str, float]:
    """Share of the peak learning rate that each parameter group uses in a step.

    Linear warm-up, then a cosine down to `final_lr_fraction`. During `head_warmup_steps` the head alone is trained;
    the backbone's own warm-up starts after them.

    Args:
        train: settings.
        step: optimizer steps done before this one.
        num_steps: optimizer steps of the run.

    Returns:
        Factors from 0 to 1 for the groups `head` and `backbone`.
    """
    head = _warmup_cosine(step, num_steps, train)
    joint = step - train.head_warmup_steps
    backbone = 0.0 if joint < 0 else _warmup_cosine(joint, num_steps - train.head_warmup_steps, train)
    return {"head": head, "backbone": backbone}


def _warmup_cosine(step: int, num_steps: int, train: Train) -> float:
    num_warmup = math.ceil(train.warmup_fraction * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    low = train.final_lr_fraction
    return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
