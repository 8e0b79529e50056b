"""The loop and its state: what is asked for, in which order, from which step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clsgen_dist.train.loop import train
from clsgen_dist.train.schedule import is_due
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics, Validation


class Recorder:
    """Answers what the loop asks for and notes that it did."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.calls: list[str] = []
        self.losses = list(losses)
        self.saved: list[TrainState] = []

    def run_step(self, step: int) -> StepMetrics:
        self.calls.append(f"step {step}")
        return StepMetrics(1.0, 0.5, 0.5, 0.0, None, 1.0, 10 + step, 100.0)

    def validate(self) -> Validation:
        self.calls.append("validate")
        return Validation(self.losses.pop(0), 0.0, 0.0, np.zeros((1, 2)))

    def keep_best(self, state: TrainState, validation: Validation) -> None:
        self.calls.append(f"keep {state.step}")
        assert validation.loss == state.best_loss

    def save(self, state: TrainState) -> None:
        self.calls.append(f"save {state.step}")
        self.saved.append(state)

    def stepped(self, state: TrainState, metrics: StepMetrics) -> None:
        self.calls.append(f"stepped {state.step}")

    def validated(self, state: TrainState, validation: Validation) -> None:
        self.calls.append(f"validated {state.step}")


def run(recorder: Recorder, state: TrainState, num_steps: int, stop_after: str = "") -> TrainState:
    return train(
        state,
        num_steps,
        run_step=recorder.run_step,
        validate=recorder.validate,
        keep_best=recorder.keep_best,
        save=recorder.save,
        validation_due=lambda step: is_due(step, 2, num_steps),
        checkpoint_due=lambda step: is_due(step, 3, num_steps),
        stop_wanted=lambda: recorder.calls[-1] == stop_after,
        events=recorder,
    )


def test_the_order_of_things() -> None:
    recorder = Recorder([2.0, 3.0, 1.0])
    state = run(recorder, TrainState(), 5)
    assert recorder.calls == [
        *("step 0", "stepped 1"),
        *("step 1", "stepped 2", "validate", "validated 2", "keep 2"),
        *("step 2", "stepped 3", "save 3"),
        *("step 3", "stepped 4", "validate", "validated 4"),
        *("step 4", "stepped 5", "validate", "validated 5", "keep 5", "save 5"),
    ]
    assert state == TrainState(step=5, tokens_seen=10 + 11 + 12 + 13 + 14, best_step=5, best_loss=1.0)


def test_going_on_from_a_checkpoint_is_never_having_stopped() -> None:
    whole = Recorder([2.0, 3.0, 1.0])
    end = run(whole, TrainState(), 5)
    half = Recorder([3.0, 1.0])
    assert run(half, TrainState(**whole.saved[0].to_dict()), 5) == end
    assert half.calls == whole.calls[whole.calls.index("save 3") + 1 :]


def test_a_run_that_has_ended_does_nothing_more() -> None:
    recorder = Recorder([])
    assert run(recorder, TrainState(step=5), 5) == TrainState(step=5)
    assert recorder.calls == []


def test_the_earlier_of_two_equal_steps_stays_best() -> None:
    state = TrainState(step=4).after_validation(1.0)
    assert (state.best_step, state.best_loss) == (4, 1.0)
    later = state.after_step(7).after_validation(1.0)
    assert (later.step, later.tokens_seen, later.best_step) == (5, 7, 4)
    assert later.after_step(1).after_validation(0.5).best_step == 6


def test_a_loss_that_is_no_number_is_never_best() -> None:
    assert TrainState(step=4).after_validation(float("nan")).best_step == -1


def test_skipped_steps_are_counted_and_the_count_goes_into_checkpoints() -> None:
    class Skipping(Recorder):
        def run_step(self, step: int) -> StepMetrics:
            return replace(super().run_step(step), skipped="why" if step in (1, 3) else None)

    recorder = Skipping([2.0, 3.0, 1.0])
    assert run(recorder, TrainState(), 5).num_skipped == 2
    assert recorder.saved[0].to_dict()["num_skipped"] == 1


def test_a_run_that_is_asked_to_stop_saves_at_the_end_of_its_step() -> None:
    whole, stopped = Recorder([2.0, 3.0, 1.0]), Recorder([2.0])
    end = run(whole, TrainState(), 5)
    assert run(stopped, TrainState(), 5, "keep 2").step == 2
    assert stopped.calls[-2:] == ["keep 2", "save 2"]
    rest = Recorder([3.0, 1.0])
    assert run(rest, TrainState(**stopped.saved[0].to_dict()), 5) == end
