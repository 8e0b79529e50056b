"""The batch plan as a pure function: properties that hold for any rows, ranks and budgets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.data.plan import ATTENTION_TOKENS, StepPlan, num_steps_an_epoch, plan_all, plan_step, rows_of_step

LONGEST = 50
row_lengths = st.lists(st.integers(1, LONGEST), min_size=1, max_size=80).map(np.array)
world_sizes = st.integers(1, 9)
budgets = st.integers(LONGEST, 200)


def flat(plan: StepPlan) -> list[int]:
    return sorted(row for rank in plan for members in rank for row in members)


def tokens(plan: StepPlan, lengths: np.ndarray) -> np.ndarray:
    """Tokens by rank and micro-batch."""
    return np.array([[int(lengths[members].sum()) if members else 0 for members in rank] for rank in plan])


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 3))
@settings(max_examples=60)
def test_an_epoch_holds_every_row_once_and_keeps_its_partial_last_step(num_rows: int, batch: int, epoch: int) -> None:
    steps = num_steps_an_epoch(num_rows, batch)
    dealt = [rows_of_step(7, epoch * steps + step, num_rows, batch) for step in range(steps)]
    assert sorted(np.concatenate(dealt).tolist()) == list(range(num_rows))
    assert [len(rows) for rows in dealt[:-1]] == [batch] * (steps - 1)
    assert len(dealt[-1]) == num_rows - batch * (steps - 1)


def test_rows_of_a_step_depend_on_seed_epoch_and_step_alone() -> None:
    orders = {
        (seed, epoch): tuple(int(row) for step in range(4) for row in rows_of_step(seed, 4 * epoch + step, 13, 4))
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[1, 0] == tuple(int(row) for step in range(4) for row in rows_of_step(1, step, 13, 4))


@given(row_lengths, world_sizes, budgets)
@settings(max_examples=150)
def test_a_step_is_dealt_whole_within_the_budget_and_in_balance(lengths: np.ndarray, world: int, budget: int) -> None:
    plan = plan_step(range(len(lengths)), lengths, world_size=world, token_budget=budget)
    assert len(plan) == world
    assert len({len(rank) for rank in plan}) == 1, "ranks would wait for each other for ever"
    assert flat(plan) == list(range(len(lengths)))
    assert tokens(plan, lengths).max() <= budget
    costs = lengths.astype(np.int64) * (ATTENTION_TOKENS + lengths)
    load = tokens(plan, costs)
    assert load.max() - load.min() <= costs.max()
    assert load.max() <= load.mean() + costs.max()
    # Micro-batches that run at the same time are neighbours in cost.
    assert (load.min(axis=0)[:-1] >= load.max(axis=0)[1:]).all()


def test_a_long_row_stands_for_more_than_its_tokens() -> None:
    """Beside 8,192 tokens in one row there are 8,192 in two, and all short rows."""
    lengths = np.array([8192, 4096, 4096, *[256] * 8])
    plan = plan_step(range(11), lengths, world_size=2, token_budget=16_384)
    assert sorted(sorted(members) for (members,) in plan) == [[0], list(range(1, 11))]


def test_where_the_cheapest_has_no_room_the_next_one_is_taken() -> None:
    """Rows of 5,000 and 4,800 cost less than one of 9,000, and leave no room for the last one."""
    plan = plan_step(range(4), np.array([9000, 5000, 4800, 900]), world_size=2, token_budget=10_000)
    assert sorted(sorted(members) for (members,) in plan) == [[0, 3], [1, 2]]


@given(row_lengths, budgets, st.integers(0, 3))
@settings(max_examples=60)
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_ranks(lengths: np.ndarray, budget: int, step: int) -> None:
    rows = rows_of_step(3, step % num_steps_an_epoch(len(lengths), 16), len(lengths), 16)
    plans = [plan_step(rows, lengths, world_size=world, token_budget=budget) for world in (1, 2, 3, 8)]
    assert {tuple(flat(plan)) for plan in plans} == {tuple(sorted(rows.tolist()))}


@given(row_lengths, world_sizes, budgets)
@settings(max_examples=60)
def test_there_are_no_more_micro_batches_than_needed(lengths: np.ndarray, world: int, budget: int) -> None:
    plan = plan_step(range(len(lengths)), lengths, world_size=world, token_budget=budget)
    least = -(-int(lengths.sum()) // (budget * world))
    # Emptiest-first fills every bin past the budget less the longest row before another is asked for.
    enough = -(-int(lengths.sum()) // (max(1, budget - int(lengths.max()) + 1) * world))
    assert least <= len(plan[0]) <= max(1, enough)


def test_the_order_of_rows_and_the_other_rows_of_the_split_change_nothing() -> None:
    lengths = np.array([5, 9, 1, 7, 7, 3])
    plan = plan_step([1, 3, 4, 5], lengths, world_size=2, token_budget=10)
    assert plan_step(np.array([5, 4, 3, 1]), lengths, world_size=2, token_budget=10) == plan
    assert flat(plan) == [1, 3, 4, 5]


def test_a_rank_that_comes_out_short_has_empty_micro_batches() -> None:
    plan = plan_step([0], np.array([5]), world_size=4, token_budget=10)
    assert [rank for rank in plan if rank == [[0]]] == [[[0]]]
    assert [rank for rank in plan if rank == [[]]] == [[[]]] * 3


def test_a_row_over_the_budget_is_named() -> None:
    with pytest.raises(ValueError, match="row 1 has 11 tokens, the budget is 10"):
        plan_step([0, 1], np.array([5, 11]), world_size=1, token_budget=10)


@given(row_lengths, world_sizes, budgets)
@settings(max_examples=60)
def test_an_evaluation_holds_every_row_once(lengths: np.ndarray, world: int, budget: int) -> None:
    plan = plan_all(lengths, world_size=world, token_budget=budget)
    assert len(plan) == world
    assert len({len(rank) for rank in plan}) == 1
    assert flat(plan) == list(range(len(lengths)))
    assert tokens(plan, lengths).max() <= budget


def test_an_evaluation_puts_rows_of_like_length_together() -> None:
    plan = plan_all(np.array([1, 9, 2, 8]), world_size=1, token_budget=17)
    assert plan == [[[1, 3], [2, 0]]]
