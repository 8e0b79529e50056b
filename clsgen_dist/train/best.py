"""The weights of the best step, kept aside while training goes on to later ones.

A run may die after a new best step and before the checkpoint that knows of it. So each best step that a checkpoint
knows of stays, as best_STEP/ beside best/, as long as the run may go back to that checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.engine.manifest import complete_checkpoints, read_facts
from clsgen_dist.engine.places import Place
from clsgen_dist.errors import CheckpointError
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import Validation

#: Validation rows whose probabilities the reloaded bundle must reproduce.
NUM_COMPARED = 64


def keep_best(
    engine: Engine, ranks: Ranks, place: Path, checkpoints: Place, state: TrainState, validation: Validation
) -> None:
    """Writes the trainable weights of this step, whole, and what they say of validation rows. All ranks call it."""
    weights = engine.trainable_state()
    if ranks.leads:
        staging = place.with_name("best.partial")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        save_file(weights, staging / "trainable.safetensors")
        np.save(staging / "logits.npy", validation.logits_NK[:NUM_COMPARED], allow_pickle=False)
        facts = {
            **state.to_dict(),
            "validation_loss_cls": validation.loss_cls,
            "validation_loss_gen": validation.loss_gen,
        }
        (staging / "state.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        _set_aside(place)
        os.replace(staging, place)
        checkpoints.keep_best(place, state.step)
    ranks.barrier()


def _set_aside(place: Path) -> None:
    """Keeps the best step so far, which a checkpoint may know that is being written, and those that whole ones know."""
    moved = _step_of(place)
    if moved is not None:
        aside = _aside(place, moved)
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(place, aside)
    known = {read_facts(path)["state"].get("best_step") for path in complete_checkpoints(place.parent)}
    for folder in place.parent.glob("best_*"):
        if folder.name not in {_aside(place, step).name for step in {*known, moved} if step is not None}:
            shutil.rmtree(folder)


def find_best(
    ranks: Ranks, place: Path, checkpoints: Place, state: TrainState, warn: Callable[[str], None]
) -> TrainState:
    """Makes `place` the best step that a resumed state knows of. All ranks call it.

    Returns:
        The state; without a best step where its weights are gone, so that the next look at validation finds a new one.

    Raises:
        CheckpointError: on all ranks: the place of checkpoints cannot be read.
    """
    failure: CheckpointError | None = None
    if ranks.leads:
        try:
            if state.best_step >= 0:
                checkpoints.find_best(place, state.best_step)
            state = _find(place, state, warn)
        except OSError as error:
            reason = error.strerror or str(error)
            failure = CheckpointError(f"{checkpoints.name}: the best step so far cannot be read ({reason})")
    told: tuple[TrainState, CheckpointError | None] = ranks.from_leader((state, failure))
    if told[1] is not None:
        raise told[1]
    return told[0]


def _find(place: Path, state: TrainState, warn: Callable[[str], None]) -> TrainState:
    wanted = state.best_step
    if wanted < 0 or _step_of(place) == wanted:
        return state
    aside = _aside(place, wanted)
    if _step_of(aside) == wanted:
        shutil.rmtree(place, ignore_errors=True)
        os.replace(aside, place)
        return state
    warn(f"the weights of the best step so far, {wanted}, are gone; the best of the steps to come is kept")
    return replace(state, best_step=-1, best_loss=float("inf"))


def _aside(place: Path, step: int) -> Path:
    return place.with_name(f"best_{step:08d}")


def _step_of(place: Path) -> int | None:
    try:
        known: Any = json.loads((place / "state.json").read_text(encoding="utf-8"))["best_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return int(known)
