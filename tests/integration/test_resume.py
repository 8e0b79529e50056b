"""A run that was stopped and started again is the run that never stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.checkpoint import complete_checkpoints
from tests.support.ranks import RankPool
from tests.support.runs import (
    assert_same_weights,
    compared_config,
    kept_weights,
    long_rows,
    partitioning_zero,
    refusal_on_rank,
    train_on_rank,
)
from tests.support.tiny import tiny_backbone

#: Rows of three steps an epoch, the third a short one; two epochs.
NUM_ROWS, STEPS_AN_EPOCH, NUM_STEPS = 22, 3, 6

DROPOUT = {"model.lora": {"rank": 4, "alpha": 8.0, "dropout": 0.2}}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {**DROPOUT, "train.weight_decay": 0.1, "train.warmup_fraction": 0.5, "train.final_lr_fraction": 0.1},
    "full_bf16": {"model.lora": None, "train.precision": "bf16"},
    "full_zero2": {"model.lora": None},
}


def resumable(folder: Path, name: str, **settings: Any) -> RunConfig:
    """Two epochs with a checkpoint and a look at validation after every step."""
    every = {"train.epochs": 2, "train.checkpoint_steps": 1, "train.eval_steps": 1}
    return compared_config(folder, name, long_rows(NUM_ROWS), **{**every, **settings})


@pytest.fixture(scope="module", params=list(KINDS))
def uninterrupted(request: pytest.FixtureRequest, two_ranks: RankPool, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that never stopped: its name, folder, configuration and record."""
    kind, folder = str(request.param), tmp_path_factory.mktemp("resume")
    settings = dict(KINDS[kind])
    if kind == "full_zero2":
        settings["train.deepspeed"] = partitioning_zero(folder, 2)
    config = resumable(folder, "whole", **settings)
    return folder, settings, config, two_ranks.run(train_on_rank, config)[0]


@pytest.mark.parametrize("done", [2, STEPS_AN_EPOCH], ids=["within_an_epoch", "at_an_epoch_edge"])
def test_resumed_run_is_the_uninterrupted_one(two_ranks: RankPool, uninterrupted: Any, done: int) -> None:
    """The run dies in the step after checkpoint `done`: that step is lost, and taken again with the same numbers."""
    folder, settings, whole, expected = uninterrupted
    config = resumable(folder, f"stopped{done}", **settings)

    before = two_ranks.run(train_on_rank, config, done + 1)[0]
    after = two_ranks.run(train_on_rank, config)[0]

    assert sorted(before.steps) == list(range(1, done + 2))
    assert sorted(after.steps) == list(range(done + 1, NUM_STEPS + 1))
    for step, numbers in {**before.steps, **after.steps}.items():
        for name in ("loss", "loss_cls", "loss_gen", "grad_norm", "num_tokens"):
            assert numbers[name] == expected.steps[step][name], f"{name} of step {step}"
    assert {**before.validations, **after.validations} == expected.validations
    assert_same_weights(kept_weights(config), kept_weights(whole), atol=0)


def test_best_step_before_the_stop_is_kept(two_ranks: RankPool, tmp_path: Path) -> None:
    """The head's rate is so high that validation only gets worse; after a resume the first step is still the best."""
    config = resumable(tmp_path, "worse", **{**DROPOUT, "train.head_learning_rate": 30.0, "objective.w_gen": 0.0})
    two_ranks.run(train_on_rank, config, 4)
    best = RunFolder(config.folder).best
    state, weights = json.loads((best / "state.json").read_text()), kept_weights(config)
    assert state["best_step"] < 3

    after = two_ranks.run(train_on_rank, config)[0]

    assert max(after.validations) == NUM_STEPS
    assert {v["best_step"] for v in after.validations.values()} == {state["best_step"]}
    assert json.loads((best / "state.json").read_text()) == state
    assert_same_weights(kept_weights(config), weights, atol=0)


def test_another_number_of_workers_is_refused(one_rank: RankPool, two_ranks: RankPool, tmp_path: Path) -> None:
    config = resumable(tmp_path, "fewer", **DROPOUT)
    two_ranks.run(train_on_rank, config, 2)

    told = one_rank.run(refusal_on_rank, config)[0]

    assert told is not None
    assert told.startswith("CheckpointError: ")
    for words in ("step_00000001", "written by 2 workers, this run has 1", "start it with 2 workers", "run.name"):
        assert words in told


def test_damaged_checkpoint_is_passed_over(two_ranks: RankPool, tmp_path: Path) -> None:
    config = resumable(tmp_path, "damaged", **DROPOUT)
    folder = RunFolder(config.folder).checkpoints
    before = two_ranks.run(train_on_rank, config, 5)[0]
    spare = tmp_path / "spare"
    shutil.copytree(folder, spare)
    assert [path.name for path in complete_checkpoints(folder)] == ["step_00000003", "step_00000004"]

    (folder / "step_00000004" / "manifest.json").unlink()
    resumed = two_ranks.run(train_on_rank, config, 4)[0]
    assert resumed.steps.keys() == {4}, "without a manifest"
    assert resumed.steps[4]["loss"] == before.steps[4]["loss"]

    shutil.rmtree(folder)
    shutil.copytree(spare, folder)
    shard = max((folder / "step_00000004").glob("*optim_states.pt"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:-100])
    assert two_ranks.run(train_on_rank, config, 4)[0].steps.keys() == {4}, "with a shard cut short"

    for path in folder.glob("step_*/manifest.json"):
        path.unlink()
    anew = two_ranks.run(train_on_rank, config, 1)[0]
    assert anew.steps[1]["loss"] == before.steps[1]["loss"]


def test_checkpoint_leaves_out_frozen_weights(two_ranks: RankPool, tmp_path: Path) -> None:
    base = tiny_backbone(tmp_path / "wide", hidden_size=256, intermediate_size=512)
    lora = {"rank": 1, "alpha": 1.0, "target_modules": ["q_proj"]}
    config = resumable(tmp_path, "wide", **{"model.name_or_path": base, "model.lora": lora})
    two_ranks.run(train_on_rank, config, 2)

    (checkpoint,) = complete_checkpoints(RunFolder(config.folder).checkpoints)

    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert size < (Path(base) / "model.safetensors").stat().st_size / 10
    for path in checkpoint.glob("*model_states.pt"):
        saved = torch.load(path, map_location="cpu", weights_only=False)["module"]
        assert saved
        assert all(".lora_" in name or name.startswith("head.") for name in saved), list(saved)
