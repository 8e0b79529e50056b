"""The loop. It knows neither model nor loss: it asks for a step, and for what is due after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics, Validation


class Events(Protocol):
    """What the loop tells the world; on rank 0 only."""

    def stepped(self, state: TrainState, metrics: StepMetrics) -> None: ...
    def validated(self, state: TrainState, validation: Validation) -> None: ...


def train(
    state: TrainState,
    num_steps: int,
    *,
    run_step: Callable[[int], StepMetrics],
    validate: Callable[[], Validation],
    keep_best: Callable[[TrainState, Validation], None],
    save: Callable[[TrainState], None],
    validation_due: Callable[[int], bool],
    checkpoint_due: Callable[[int], bool],
    stop_wanted: Callable[[], bool],
    events: Events,
) -> TrainState:
    """Trains from `state` to `num_steps` optimizer steps, or to the end of the step in which it is asked to stop.

    Every rank runs the same loop and calls every function equally often, since each holds collectives.

    Returns:
        The state after the last step.
    """
    while state.step < num_steps:
        metrics = run_step(state.step)
        state = state.after_step(metrics.num_tokens, skipped=metrics.skipped is not None)
        events.stepped(state, metrics)
        if validation_due(state.step):
            validation = validate()
            state = state.after_validation(validation.loss)
            events.validated(state, validation)
            if state.best_step == state.step:
                keep_best(state, validation)
        stops = stop_wanted()
        if checkpoint_due(state.step) or stops:
            save(state)
        if stops:
            break
    return state
