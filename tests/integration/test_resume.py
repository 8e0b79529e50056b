"""A run that was stopped and started again is the run that never stopped."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.deepspeed import start_distributed
from clsgen_dist.engine.manifest import complete_checkpoints
from clsgen_dist.engine.places import SharedFolder
from clsgen_dist.errors import ClsGenError
from clsgen_dist.train.best import find_best
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics
from clsgen_dist.worker import train_bundle
from tests.support.ranks import RankPool
from tests.support.runs import (
    TIMEOUT_SECONDS,
    Recorder,
    assert_same_weights,
    compared_config,
    kept_weights,
    long_rows,
    partitioning_zero,
    prepared,
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
    """Two epochs with a checkpoint and a look at validation after every step.

    A checkpoint is whole before the next step: which one a run that dies has left is then no matter of speed.
    """
    every = {"train.epochs": 2, "train.checkpoint_steps": 1, "train.eval_steps": 1, "checkpoint.background": False}
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


@pytest.mark.parametrize(("before", "after", "kind"), [(2, 1, "lora"), (1, 2, "full_zero2"), (2, 3, "lora")])
def test_another_number_of_workers_goes_on(before: int, after: int, kind: str, pools: Pools, tmp_path: Path) -> None:
    """Weights and moments are cut anew; the steps are those of a run that always had so many workers."""
    settings = dict(KINDS[kind])
    if kind == "lora":  # what dropout draws depends on the rank
        settings["model.lora"] = {"rank": 4, "alpha": 8.0}
    else:
        settings["train.deepspeed"] = partitioning_zero(tmp_path, 2)
    whole = resumable(tmp_path, "whole", **settings)
    expected = pools(before).run(train_on_rank, whole)[0]
    config = resumable(tmp_path, "elastic", **settings)
    pools(before).run(train_on_rank, config, 4)

    resumed = pools(after).run(train_on_rank, config)[0]

    assert sorted(resumed.steps) == [4, 5, 6], "from the checkpoint of step 3"
    for step, numbers in resumed.steps.items():
        assert numbers["num_tokens"] == expected.steps[step]["num_tokens"], "the global batch is the same"
        for name in ("loss", "loss_cls", "loss_gen", "grad_norm"):
            assert numbers[name] == pytest.approx(expected.steps[step][name], abs=1e-5, rel=1e-5), f"{name} of {step}"
    assert_same_weights(kept_weights(config), kept_weights(whole), atol=1e-5)


Pools = Callable[[int], RankPool]


@pytest.fixture
def pools(one_rank: RankPool, two_ranks: RankPool) -> Iterator[Pools]:
    three = RankPool(3)
    yield lambda size: {1: one_rank, 2: two_ranks, 3: three}[size]
    three.close()


def test_damaged_checkpoint_is_named_and_passed_over(two_ranks: RankPool, tmp_path: Path) -> None:
    config = resumable(tmp_path, "damaged", **DROPOUT)
    folder = RunFolder(config.folder).checkpoints
    before = two_ranks.run(train_on_rank, config, 5)[0]
    spare = tmp_path / "spare"
    shutil.copytree(folder, spare)
    assert [path.name for path in complete_checkpoints(folder)] == ["step_00000003", "step_00000004"]
    newest = folder / "step_00000004"

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-100])

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)

    def mix(path: Path) -> None:
        shutil.copy(folder / "step_00000003" / path.name, path)

    shard = newest / "rank_00001.safetensors"
    damages: list[tuple[Callable[[Path], None], Path, str]] = [
        (Path.unlink, newest / "manifest.json", "manifest.json cannot be read (No such file or directory)"),
        (cut, shard, "rank_00001.safetensors has "),
        (flip, shard, "rank_00001.safetensors was altered, its sha256 is not that of the manifest"),
        (Path.unlink, shard, "rank_00001.safetensors is missing"),
        (mix, shard, "rank_00001.safetensors was altered"),
        (cut, newest / "manifest.json", "manifest.json cannot be read"),
    ]
    for damage, path, words in damages:
        damage(path)
        resumed = two_ranks.run(train_on_rank, config, 4)[0]
        assert resumed.steps.keys() == {4}, words
        assert resumed.steps[4]["loss"] == before.steps[4]["loss"]
        assert [told for told in resumed.warnings if words in told and "step_00000004" in told], resumed.warnings
        shutil.rmtree(folder)
        shutil.copytree(spare, folder)

    for manifest in folder.glob("step_*/manifest.json"):
        manifest.unlink()
    told = two_ranks.run(refusal_on_rank, config)[0]
    assert told is not None
    assert told.startswith("CheckpointError: ")
    for words in ("no checkpoint is whole", "step_00000003", "step_00000004", "Restore one from a copy"):
        assert words in told


@pytest.mark.parametrize("background", [False, True])
def test_no_room_for_a_checkpoint(background: bool, two_ranks: RankPool, tmp_path: Path) -> None:
    """Rank 1 may write no more after the first one: the last good one stays, and the run ends or goes on as is set."""
    settings = {**DROPOUT, "checkpoint.background": background}
    config = resumable(tmp_path, "full", **settings)
    folder = RunFolder(config.folder).checkpoints

    told = two_ranks.run(refusal_without_room, config)[1]

    assert told is not None
    assert told.startswith("CheckpointError: ")
    for words in ("step_00000003", "cannot be written (rank 1: ", "step_00000002 stays the newest whole one"):
        assert words in told
    assert [path.name for path in complete_checkpoints(folder)] == ["step_00000001", "step_00000002"]
    assert not list(folder.glob(".*")), "nothing half written is left"

    optional = resumable(tmp_path, "optional", **settings, **{"checkpoint.required": False})
    recorder = two_ranks.run(train_without_room, optional)[0]
    assert sorted(recorder.steps) == list(range(1, NUM_STEPS + 1))
    assert sum("training goes on, as checkpoint.required is false" in told for told in recorder.warnings) == 4
    assert [path.name for path in complete_checkpoints(RunFolder(optional.folder).checkpoints)][-1] == "step_00000002"


def train_without_room(config: RunConfig) -> Recorder:
    """Trains, where from step 3 on no file of rank 1 may grow beyond a few bytes, as on a full disk."""
    ranks = start_distributed(TIMEOUT_SECONDS)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder()
    stepped = recorder.stepped

    def hear(state: TrainState, metrics: StepMetrics) -> None:
        stepped(state, metrics)
        if state.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    if ranks.rank == 1:
        recorder.stepped = hear  # type: ignore[method-assign]
    try:
        place = prepared(config, ranks)
        train_bundle(config, RunFolder(config.folder), place, ranks, recorder, recorder.warn)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return recorder if ranks.leads else Recorder()


def refusal_without_room(config: RunConfig) -> str | None:
    try:
        train_without_room(config)
    except ClsGenError as error:
        return f"{type(error).__name__}: {error}"
    return None


def test_checkpoint_leaves_out_frozen_weights(two_ranks: RankPool, tmp_path: Path) -> None:
    base = tiny_backbone(tmp_path / "wide", hidden_size=256, intermediate_size=512)
    lora = {"rank": 1, "alpha": 1.0, "target_modules": ["q_proj"]}
    config = resumable(tmp_path, "wide", **{"model.name_or_path": base, "model.lora": lora})
    two_ranks.run(train_on_rank, config, 2)

    (checkpoint,) = complete_checkpoints(RunFolder(config.folder).checkpoints)

    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert size < (Path(base) / "model.safetensors").stat().st_size / 10
    for path in checkpoint.glob("*.safetensors"):
        saved = load_file(path)
        assert saved
        assert all(".lora_" in name or "/head." in name for name in saved), list(saved)


def test_the_best_step_of_a_checkpoint_is_found_again(two_ranks: RankPool, tmp_path: Path) -> None:
    """The run dies after a new best step and before the checkpoint that knows of it: the one before is the best."""
    config = resumable(tmp_path, "best", **{**DROPOUT, "train.checkpoint_steps": 2})
    best = RunFolder(config.folder).best
    before = two_ranks.run(train_on_rank, config, 4)[0]
    assert before.validations[3]["best_step"] == 3, "the loss falls"
    assert json.loads((best / "state.json").read_text())["best_step"] == 3
    worse = resumable(tmp_path, "best", **{**DROPOUT, "train.checkpoint_steps": 2})
    state = TrainState(step=2, best_step=2, best_loss=before.validations[2]["loss"])

    found = two_ranks.run(find_on_rank, worse, state)[0]

    assert found == (state, [])
    assert json.loads((best / "state.json").read_text())["best_step"] == 2
    shutil.rmtree(best)
    anew, told = two_ranks.run(find_on_rank, worse, state)[0]
    assert (anew.step, anew.best_step) == (2, -1)
    assert "the weights of the best step so far, 2, are gone" in told[0]


def find_on_rank(config: RunConfig, state: TrainState) -> tuple[TrainState, list[str]]:
    told: list[str] = []
    ranks = start_distributed(TIMEOUT_SECONDS)
    folder = RunFolder(config.folder)
    return find_best(ranks, folder.best, SharedFolder(folder.checkpoints, ranks), state, told.append), told
