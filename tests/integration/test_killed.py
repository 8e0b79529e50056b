"""A run that is killed at a random moment and started again ends with the weights of the run that never stopped."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.deepspeed import start_distributed
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics
from clsgen_dist.worker import train_bundle
from tests.support.ranks import RankPool, RanksFailed
from tests.support.runs import (
    TIMEOUT_SECONDS,
    Recorder,
    assert_same_weights,
    bundle_weights,
    compared_config,
    long_rows,
    prepared,
    train_on_rank,
)

NUM_STEPS = 6


@pytest.fixture
def ranks() -> Iterator[RankPool]:
    """Ranks of this file's own: they are killed."""
    pool = RankPool(2)
    yield pool
    pool.close()


def test_killed_run_ends_with_the_same_weights(ranks: RankPool, tmp_path: Path) -> None:
    """A rank gets SIGKILL within a random step: in its computation, in a checkpoint's writing or in a look at rows."""
    victim = 0  # it makes checkpoints whole and keeps the best step
    step, delay = random.randrange(1, NUM_STEPS), random.uniform(0.0, 0.3)
    lora = {"rank": 4, "alpha": 8.0, "dropout": 0.2}
    settings = {"model.lora": lora, "train.epochs": 2, "train.checkpoint_steps": 2, "train.eval_steps": 1}
    whole = compared_config(tmp_path, "whole", long_rows(22), **settings)
    ranks.run(train_on_rank, whole)
    killed = compared_config(tmp_path, "killed", long_rows(22), **settings)

    with pytest.raises(RanksFailed, match=f"rank {victim} ended without a word"):
        ranks.run(train_until_killed, killed, victim, step, delay)
    assert not RunFolder(killed.folder).bundle.exists(), "it was killed too late to tell anything"
    resumed = ranks.run(train_on_rank, killed)[0]

    told = f"killed {delay:.3f} s after step {step}"
    # A checkpoint is written while the next steps are taken; the one before it is whole by then.
    assert min(resumed.steps) > step - 4 or step < 5, f"{told}: no more than the steps since a checkpoint are repeated"
    assert max(resumed.steps) == NUM_STEPS, told
    one, other = bundle_weights(whole), bundle_weights(killed)
    assert one, told
    assert_same_weights(one, other, atol=0)


def train_until_killed(config: RunConfig, victim: int, step: int, delay: float) -> None:
    """Trains; so many seconds after the step the victim is killed, if it is still at work then, or at its next step."""
    ranks = start_distributed(TIMEOUT_SECONDS)
    place = prepared(config, ranks)
    recorder = Recorder()
    if ranks.rank == victim:
        stepped = recorder.stepped

        def hear(state: TrainState, metrics: StepMetrics) -> None:
            stepped(state, metrics)
            if state.step == step:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            if state.step == NUM_STEPS:
                os.kill(os.getpid(), signal.SIGKILL)

        recorder.stepped = hear  # type: ignore[method-assign]
    train_bundle(config, RunFolder(config.folder), place, ranks, recorder, recorder.warn)
