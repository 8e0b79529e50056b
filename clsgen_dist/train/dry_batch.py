"""The heaviest micro-batch, forward and backward, before the first step: a run that does not fit into memory ends now.

Without it the longest rows may come after hours. Half the token budget goes first, so that a run that fails can be told
whether half of it fits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from clsgen_dist.data.batch import collate
from clsgen_dist.data.plan import num_steps_an_epoch, plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.errors import ConfigError
from clsgen_dist.objective import Denominators, Weights, joint_loss
from clsgen_dist.train.step import forward_sums

#: Steps among which the heaviest micro-batch is looked for; of a longer epoch every n-th step.
_MOST_STEPS = 500

#: What torch says where the CPU has no memory left; for GPUs it has an error of its own.
_NO_CPU_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def check_fits(
    engine: Engine,
    ranks: Ranks,
    split: TokenizedSplit,
    weights: Weights,
    *,
    seed: int,
    global_batch: int,
    token_budget: int,
    one_line: bool,
) -> None:
    """Runs heavy micro-batches through forward and backward pass; changes no weight. All ranks call it.

    Args:
        engine: the model under ZeRO; the optimizer's moments are made here rather than in the first step.
        ranks: the group.
        split: training rows.
        weights: of the losses.
        seed, global_batch, token_budget: what the batch plan depends on.
        one_line: see `collate`.

    Raises:
        ConfigError: on a rank without enough memory, with settings that may fit. The other ranks are left waiting in a
            collective, and end with it.
    """
    engine.optimizer_steps()
    engine.module.train()
    longest = int(split.lengths.max())
    fitting: int | None = None
    rehearsed: list[int] = []
    for budget in sorted({max(longest, token_budget // 2), token_budget}):
        members = heaviest(split, seed, global_batch, budget, ranks.world_size)
        if members == rehearsed:  # a step's rows are fewer than half the budget: there is nothing heavier to try
            break
        try:
            _rehearse(engine, ranks, split, weights, members, one_line)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(_advice(ranks.rank, token_budget, fitting, longest)) from None
        fitting, rehearsed = budget, members


def heaviest(split: TokenizedSplit, seed: int, global_batch: int, token_budget: int, world_size: int) -> list[int]:
    """Rows of the micro-batch, of the first epoch, that has most tokens and most scored ones, both in shares."""
    found = list(_micro_batches(split, seed, global_batch, token_budget, world_size))
    most_tokens, most_scored = max(n for n, _, _ in found), max(1, max(n for _, n, _ in found))
    return max(found, key=lambda one: one[0] / most_tokens + one[1] / most_scored)[2]


def largest_counts(
    split: TokenizedSplit, seed: int, global_batch: int, token_budget: int, world_size: int
) -> tuple[int, int]:
    """Most tokens of a micro-batch of the first epoch, and most scored ones."""
    found = list(_micro_batches(split, seed, global_batch, token_budget, world_size))
    return max(n for n, _, _ in found), max(n for _, n, _ in found)


def _micro_batches(
    split: TokenizedSplit, seed: int, global_batch: int, token_budget: int, world_size: int
) -> Iterator[tuple[int, int, list[int]]]:
    """Tokens, scored ones and rows of micro-batches of the first epoch, on all ranks."""
    num_steps = num_steps_an_epoch(len(split), global_batch)
    for step in range(0, num_steps, -(-num_steps // _MOST_STEPS)):
        rows = rows_of_step(seed, step, len(split), global_batch)
        for of_rank in plan_step(rows, split.lengths, world_size=world_size, token_budget=token_budget):
            for members in of_rank:
                yield int(split.lengths[members].sum()), int(split.num_scored[members].sum()), members


def _rehearse(
    engine: Engine, ranks: Ranks, split: TokenizedSplit, weights: Weights, members: list[int], one_line: bool
) -> None:
    batch = collate([split[row] for row in members], one_line=one_line).to(ranks.device)
    sums = forward_sums(engine, batch, weights)
    rows = np.asarray(members, dtype=np.int64)
    counts = Denominators.count(split.labels[rows], split.num_scored[rows], weights.class_weights)
    engine.backward(joint_loss(sums, counts, weights), last=True)
    engine.drop_gradient()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or this machine has no memory left."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in _NO_CPU_MEMORY)


def _advice(rank: int, token_budget: int, fitting: int | None, longest: int) -> str:
    others = (
        "model.gradient_checkpointing: full, lower data.max_prompt_tokens and data.max_explanation_tokens, LoRA in "
        "place of all weights, ZeRO-3 with offload (ds_configs/zero3_offload.json), or more workers"
    )
    found = f"rank {rank} has not enough memory for the longest micro-batch"
    if fitting is None:
        return f"train.token_budget: {found}, nor for half of it (the longest row has {longest:,} tokens); {others}"
    return (
        f"train.token_budget is {token_budget:,}: {found}. {fitting:,} fits, which takes more micro-batches a step and "
        f"learns the same; else {others}"
    )
