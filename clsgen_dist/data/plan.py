"""The batch plan: which rows each rank sees in which micro-batch, as a pure function.

The rows of a step depend on seed, epoch and step alone, never on the number of ranks, so a run that goes on with more
or fewer workers walks the same trajectory, and resuming in the middle of an epoch needs no state but the step. Every
rank computes the whole plan, so it knows both denominators of the loss without asking anyone.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

#: Row length at which attention is taken to cost as much as all else of a layer, tokens. By operations it is 5,400 in
#: Gemma 3 270M and 53,000 in Llama 3.1 8B; with this one, steps of long rows are shorter for the first and no longer for
#: the second. What a CPU's masking kernels make of a line is another matter, see `batch.py`.
ATTENTION_TOKENS = 16_384

#: Rows of a micro-batch; of a step: [rank][micro-batch] -> rows. All ranks have equally many micro-batches.
MicroBatch = list[int]
StepPlan = list[list[MicroBatch]]


def num_steps_an_epoch(num_rows: int, global_batch: int) -> int:
    """Optimizer steps an epoch; the last one may have fewer rows, since none is dropped."""
    return -(-num_rows // global_batch)


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def rows_of_step(seed: int, step: int, num_rows: int, global_batch: int) -> np.ndarray:
    """Rows of an optimizer step.

    Args:
        seed: seed of the run.
        step: optimizer steps done before this one, over all epochs.
        num_rows: rows of the training split.
        global_batch: rows a step.

    Returns:
        Indices of rows, at most `global_batch`, shape (R,).
    """
    epoch, within = divmod(step, num_steps_an_epoch(num_rows, global_batch))
    return _epoch_order(seed, epoch, num_rows)[within * global_batch : (within + 1) * global_batch]


def plan_step(rows: Sequence[int] | np.ndarray, lengths: np.ndarray, *, world_size: int, token_budget: int) -> StepPlan:
    """Deals the rows of a step to ranks and packs them into micro-batches.

    As few micro-batches as the budget allows, their costs as equal as can be (longest row first, into the cheapest
    micro-batch that has room), so that ranks wait little for each other. A row costs its tokens and, for attention,
    their square. A rank that comes out short has empty micro-batches.

    Args:
        rows: indices of the step's rows, R of them.
        lengths: tokens of every row of the split, shape (N,).
        world_size: number of ranks.
        token_budget: tokens a micro-batch, at most.

    Returns:
        Rows by rank and micro-batch; every row once.

    Raises:
        ValueError: a row is longer than the budget.
    """
    order = sorted((int(row) for row in rows), key=lambda row: (-int(lengths[row]), row))
    if order and lengths[order[0]] > token_budget:
        raise ValueError(f"row {order[0]} has {lengths[order[0]]} tokens, the budget is {token_budget}")
    total = sum(int(lengths[row]) for row in order)
    num_micro = max(1, -(-total // (token_budget * world_size)))
    while (bins := _deal(order, lengths, num_micro * world_size, token_budget)) is None:
        num_micro += 1
    # Neighbours in cost run at the same time on different ranks.
    bins.sort(key=lambda members: (-sum(_cost(int(lengths[row])) for row in members), members))
    return [[bins[micro * world_size + rank] for micro in range(num_micro)] for rank in range(world_size)]


def _deal(order: list[int], lengths: np.ndarray, num_bins: int, token_budget: int) -> list[MicroBatch] | None:
    """Longest row first into the cheapest bin that has room; None where none has."""
    heap = [(0, index) for index in range(num_bins)]
    bins: list[MicroBatch] = [[] for _ in range(num_bins)]
    room = [token_budget] * num_bins
    for row in order:
        length = int(lengths[row])
        passed = []
        while heap and room[heap[0][1]] < length:
            passed.append(heapq.heappop(heap))
        if not heap:
            return None
        cost, index = heap[0]
        heapq.heapreplace(heap, (cost + _cost(length), index))
        bins[index].append(row)
        room[index] -= length
        for entry in passed:
            heapq.heappush(heap, entry)
    return bins


def _cost(num_tokens: int) -> int:
    """Of a row, in a unit that keeps it whole."""
    return num_tokens * (ATTENTION_TOKENS + num_tokens)


def plan_all(lengths: np.ndarray, *, world_size: int, token_budget: int) -> StepPlan:
    """Every row once, for evaluation: rows of like length share a micro-batch.

    Returns:
        Rows by rank and micro-batch, as `plan_step`.
    """
    bins: list[MicroBatch] = []
    tokens = token_budget + 1
    for row in np.argsort(-lengths, kind="stable"):
        if tokens + int(lengths[row]) > token_budget:
            bins.append([])
            tokens = 0
        bins[-1].append(int(row))
        tokens += int(lengths[row])
    bins += [[]] * (-len(bins) % world_size)
    return [bins[rank::world_size] for rank in range(world_size)]
