"""Pace, the door and the budget of an endpoint, on a clock that a test winds itself."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.chat.limits import Limits, Usage, check_spent, estimate_tokens, seconds_to_wait
from clsgen_dist.config.explain import Explain
from clsgen_dist.errors import TeacherError


class WoundLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting; each of its turns takes a microsecond."""

    def __init__(self) -> None:
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> list[Any]:
                assert timeout is not None, "everybody waits for somebody else"
                loop.now += timeout + 1e-6
                return super().select(0)

        self.now = 0.0
        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def run_wound(work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=WoundLoop) as runner:
        return runner.run(work)


async def starts_of(limits: Limits, amounts: list[int]) -> list[tuple[float, int]]:
    """When each request starts, all of them waiting from the beginning."""
    starts: list[tuple[float, int]] = []

    async def ask(amount: int) -> None:
        await limits.admit(amount)
        starts.append((asyncio.get_running_loop().time(), amount))

    await asyncio.gather(*map(ask, amounts))
    return starts


def most_in_a_minute(starts: list[tuple[float, int]]) -> int:
    return max(sum(amount for at, amount in starts if begin <= at < begin + 59.999) for begin, _ in starts)


@pytest.mark.parametrize("per_minute", [1, 2, 59, 60, 1201])
def test_no_minute_sees_more_requests_than_the_limit(per_minute: int) -> None:
    starts = run_wound(starts_of(Limits(Explain(requests_per_minute=per_minute)), [1000] * (3 * per_minute)))
    requests = [(at, 1) for at, _ in starts]
    assert len(starts) == 3 * per_minute
    assert most_in_a_minute(requests) <= per_minute
    # Nor is the limit left unused.
    assert starts[-1][0] == pytest.approx(180, rel=0.05, abs=60 / per_minute)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 2000), min_size=1, max_size=60), st.sampled_from([1, 50, 600, 5000]))
def test_no_minute_sees_more_tokens_than_the_limit(amounts: list[int], per_minute: int) -> None:
    starts = run_wound(starts_of(Limits(Explain(tokens_per_minute=per_minute)), amounts))
    assert [amount for _, amount in starts] == amounts  # first come, first served, large ones too
    # The first one of a minute may have been paid for in the minute before.
    largest = min(max(amounts), per_minute)
    assert most_in_a_minute([(at, min(amount, per_minute)) for at, amount in starts]) <= per_minute + largest
    total = sum(min(amount, per_minute) for amount in amounts)
    assert starts[-1][0] <= 60 * total / per_minute * 1.05 + 1e-6


def test_both_limits_hold_together() -> None:
    limits = Limits(Explain(requests_per_minute=60, tokens_per_minute=600))
    starts = run_wound(starts_of(limits, [1] * 120 + [20] * 60))
    assert most_in_a_minute([(at, 1) for at, _ in starts]) <= 60
    assert most_in_a_minute(starts) <= 600 + 20


def test_without_limits_nobody_waits() -> None:
    assert run_wound(starts_of(Limits(Explain()), [10**9] * 100))[-1][0] < 0.001


def test_a_closed_door_holds_everybody_back_and_lets_no_crowd_through() -> None:
    async def work() -> list[tuple[float, int]]:
        limits = Limits(Explain(requests_per_minute=60))
        limits.close(100)
        limits.close(5)  # another answer asks for less; the longer one counts
        return await starts_of(limits, [1] * 180)

    starts = run_wound(work())
    assert starts[0][0] == pytest.approx(100)
    assert most_in_a_minute(starts) <= 61  # one had paid and stood at the door


def test_who_gives_up_waiting_blocks_nobody() -> None:
    async def work() -> float:
        limits = Limits(Explain(tokens_per_minute=60))
        waiting = [asyncio.ensure_future(limits.admit(60)) for _ in range(3)]
        await asyncio.sleep(1)
        for task in waiting[:2]:
            task.cancel()
        await waiting[2]
        return asyncio.get_running_loop().time()

    assert run_wound(work()) <= 62


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Fri, 02 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 02 Jan 2026 00:00:30 -0000"}, 30.0),
        ({"retry-after": "Fri, 02 Jan 2026 02:00:30 +0200"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:00 GMT"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers, datetime(2026, 1, 2, tzinfo=UTC)) == seconds


def test_usage_adds_up_and_has_a_price() -> None:
    usage = Usage(prompt_tokens=1_000_000, completion_tokens=500_000) + Usage(completion_tokens=500_000)
    assert usage.tokens == 2_000_000
    assert usage.cost(Explain(input_price=0.5, output_price=2.0)) == pytest.approx(2.5)
    assert estimate_tokens(0) == 0
    assert estimate_tokens(4) == 2


def test_a_spent_budget_ends_it_and_names_the_setting() -> None:
    usage = Usage(prompt_tokens=900, completion_tokens=100)
    check_spent(usage, Explain())
    check_spent(usage, Explain(budget_tokens=1001, budget_cost=1e-3, output_price=1.0))
    with pytest.raises(TeacherError, match=r"explain\.budget_tokens = 1,000.*same command"):
        check_spent(usage, Explain(budget_tokens=1000))
    with pytest.raises(TeacherError, match=r"explain\.budget_cost = 0\.0010"):
        check_spent(usage, Explain(budget_cost=1e-3, output_price=10.0))
