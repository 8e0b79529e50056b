"""Learning rates and what is due, as functions of the step."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clsgen_dist.config.train import Train
from clsgen_dist.train.schedule import is_due, learning_rate_factors, total_steps, validation_interval


def train(**settings: Any) -> Train:
    return Train(**({"warmup_fraction": 0.1, "final_lr_fraction": 0.2} | settings))


def factors(part: str, num_steps: int, **settings: Any) -> list[float]:
    return [learning_rate_factors(train(**settings), step, num_steps)[part] for step in range(num_steps)]


def test_a_run_has_the_steps_of_its_epochs_the_partial_one_included() -> None:
    assert total_steps(train(epochs=3, global_batch=10), 31) == 12
    assert total_steps(train(epochs=3, global_batch=10, max_steps=5), 31) == 5
    assert total_steps(train(epochs=3, global_batch=10, max_steps=50), 31) == 12


def test_rates_rise_linearly_then_fall_along_a_cosine() -> None:
    found = factors("backbone", 100)
    assert found == factors("head", 100)
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert found[10] == pytest.approx(1.0)
    assert found[55] == pytest.approx(0.2 + 0.8 * 0.5, abs=1e-9)
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_no_warm_up_starts_at_the_peak() -> None:
    assert factors("head", 10, warmup_fraction=0.0)[0] == 1.0


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("head_steps", [0, 3, 99])
def test_factors_stay_between_0_and_1_in_the_shortest_run(num_steps: int, warmup: float, head_steps: int) -> None:
    for part in ("head", "backbone"):
        found = factors(part, num_steps, warmup_fraction=warmup, head_warmup_steps=head_steps)
        assert all(0.0 <= factor <= 1.0 for factor in found)
    assert max(factors("head", num_steps, warmup_fraction=warmup, head_warmup_steps=head_steps)) > 0


def test_the_head_is_trained_alone_first() -> None:
    head, backbone = (factors(part, 50, head_warmup_steps=20) for part in ("head", "backbone"))
    assert backbone[:20] == [0.0] * 20
    assert head == factors("head", 50)
    assert backbone[20:] == factors("backbone", 30)


def test_something_is_due_at_its_interval_and_after_the_last_step() -> None:
    assert [step for step in range(1, 11) if is_due(step, 4, 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if is_due(step, None, 10)] == [10]
    assert [step for step in range(1, 9) if is_due(step, 4, 8)] == [4, 8]


def test_validation_is_looked_at_ten_times_unless_it_is_said() -> None:
    assert validation_interval(train(), 100) == 10
    assert validation_interval(train(), 101) == 11
    assert validation_interval(train(), 3) == 1
    assert validation_interval(train(eval_steps=7), 100) == 7
