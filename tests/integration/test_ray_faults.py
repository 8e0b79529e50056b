"""A run under Ray: a worker gets SIGTERM; driver and head get kill -9; of the same command, given again, one worker is
killed and one hangs; at last a worker meets a user's error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, dump_config
from clsgen_dist.engine.manifest import complete_checkpoints
from tests.support.ranks import RankPool
from tests.support.runs import assert_same_weights, bundle_weights, split_files, train_on_rank
from tests.support.tiny import ROOT, tiny_backbone, tiny_config, tiny_rows
from tests.support.watching import SECRETS, kill, last_step, telling_secrets, watched

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1500)]

#: Steps of the run; those between checkpoints that it writes unasked.
NUM_STEPS, CHECKPOINT_STEPS = 48, 20
#: Of Ray, on each node. They look for their head for a minute or two before they go.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@dataclass(frozen=True)
class Hit:
    """The run after all of it.

    Attributes:
        config: of the run.
        asked: steps of the checkpoints that stood once the group had started again after SIGTERM.
        stood: checkpoints at the kill, by step, and when they were written.
        found: those in the end.
        left: processes that were there a while after driver and head were gone, Ray's agents aside.
        num_second: workers that the command after that had, of which one got kill -9 and one SIGSTOP.
        said: its words.
        weights: of the bundle in the end, and of a run that nothing was done to.
        run_ids: MLflow runs that the run folder spoke of, before the kill and in the end.
        tracked: id and status of each run that MLflow has, and how often it has each step.
        lines, given: see `Watched`.
        telling: command lines and files with a secret in them.
        refused: exit code and words of the same command once the bundle was altered, and how many workers it had.
    """

    config: RunConfig
    asked: list[int]
    stood: dict[int, int]
    found: dict[int, int]
    left: list[str]
    num_second: int
    said: str
    weights: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
    run_ids: tuple[str, str]
    tracked: list[tuple[str, str, Counter[int]]]
    lines: set[str]
    given: set[str]
    telling: list[str]
    refused: tuple[int, str, int]


@pytest.fixture(scope="module")
def hit(tmp_path_factory: pytest.TempPathFactory, two_ranks: RankPool) -> Hit:
    folder = tmp_path_factory.mktemp("hit")
    settings = {
        "model.name_or_path": tiny_backbone(folder / "backbone"),
        **split_files(folder, tiny_rows(32)),
        "train.num_workers": 2,
        "train.epochs": 30,
        "train.max_steps": NUM_STEPS,
        "train.eval_steps": 1000,
        "train.checkpoint_steps": CHECKPOINT_STEPS,
        "train.keep_checkpoints": 9,
        "train.collective_timeout_seconds": 120,
        "evaluate.max_explained_rows": 2,
        "ray.max_failures": 2,
        "train.hang_seconds": 10,
        "calibrate.method": "temperature",
    }
    config = tiny_config(folder, **settings)
    whole = tiny_config(folder, **settings, **{"run.output_dir": str(folder / "others")})
    two_ranks.run(train_on_rank, whole)
    path, log = folder / "run.yaml", folder / "log"
    path.write_text(dump_config(config), encoding="utf-8")
    run, command = RunFolder(config.folder), [sys.executable, "launchers/ray_train.py", "--config", str(path)]
    with tempfile.TemporaryDirectory(prefix="clsgen-ray-", dir="/tmp") as sessions:  # sockets have short names
        environment = {
            **os.environ,
            **SECRETS,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": sessions,
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }
        first = watched(command, environment, log)
        try:
            first.until(lambda: last_step(config) >= 2, log)
            victim = next(one for one in first.look() if one.pid in first.workers)
            victim.send_signal(signal.SIGTERM)
            first.until(lambda: bool(_written(run)) and not victim.is_running(), log)
            asked = sorted(_written(run))
            first.until(lambda: CHECKPOINT_STEPS in _written(run), log)
            seen = first.look()
            heads = [one for one in seen if one.name() in ("gcs_server", "raylet")]
            assert len(heads) == 2, "the head is not among the driver's processes"
            rest = [one for one in seen if one.name() not in AGENTS]
            kill([seen[0], *heads])
            stood, before = _written(run), _run_id(run)
            _, alive = psutil.wait_procs(rest, timeout=30)
            left = [one.name() for one in alive]
        finally:
            first.end()
        last = last_step(config)  # nobody is left who could tell another one
        second = watched(command, environment, log)
        try:
            for fault in (signal.SIGKILL, signal.SIGSTOP):
                second.until(lambda last=last: last_step(config) > last, log)
                last = last_step(config)
                next(one for one in second.look() if one.pid in second.workers).send_signal(fault)
        except BaseException:
            second.end()
            raise
        assert second.ended() == 0, log.read_text(errors="replace")[-3000:]
        assert list(Path(sessions).rglob("*.log"))
        lines = first.lines | second.lines
        telling = telling_secrets(lines, folder, Path(sessions))
        tracked = _tracked(config)
        weights = bundle_weights(config), bundle_weights(whole)
        with (run.bundle / "head.safetensors").open("ab") as file:
            file.write(b"x")
        words = folder / "words"
        third = watched(command, environment, words)
        refused = (third.ended(), words.read_text(errors="replace"), len(third.workers))
    given = first.given | second.given
    ids = (before, _run_id(run))
    return Hit(
        config,
        asked,
        stood,
        _written(run),
        left,
        len(second.workers),
        log.read_text(errors="replace"),
        weights,
        ids,
        tracked,
        lines,
        given,
        telling,
        refused,
    )


def test_a_worker_that_gets_sigterm_leaves_a_checkpoint_and_the_group_starts_again(hit: Hit) -> None:
    assert len(hit.asked) == 1
    assert 2 <= hit.asked[0] < CHECKPOINT_STEPS, "a checkpoint that only the signal can have made"


def test_driver_and_head_are_killed_and_the_same_command_goes_on(hit: Hit) -> None:
    assert not hit.left
    assert hit.stood.items() <= hit.found.items(), "a checkpoint that stood was written again"
    assert max(hit.found) == NUM_STEPS
    assert json.loads((RunFolder(hit.config.folder).evaluation("test") / "metrics.json").read_text())["num_rows"] == 24


def test_a_worker_is_killed_and_one_hangs_and_the_group_starts_again_by_itself(hit: Hit) -> None:
    assert hit.num_second == 6, "two workers, and two more for each group of which one was lost"
    assert hit.said.count("has given no sign of life for 10 s (train.hang_seconds)") >= 1
    assert hit.weights[0]
    assert_same_weights(*hit.weights, atol=0)


def test_mlflow_has_one_run_with_every_step_once(hit: Hit) -> None:
    assert hit.run_ids[0] == hit.run_ids[1]
    assert hit.tracked == [(hit.run_ids[0], "FINISHED", Counter(range(1, NUM_STEPS + 1)))]


def test_it_tells_no_secret(hit: Hit) -> None:
    """In nothing that it writes or says, nor in the list of processes."""
    assert len(hit.lines) > 3  # the driver, Ray's own processes, workers
    assert not hit.telling
    assert "DS_ACCELERATOR" in hit.given
    # Workers track and fetch models, so they have what MLflow, stores and the Hub need, and nothing else.
    assert hit.given & SECRETS.keys() == {"HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"}


def test_an_error_of_the_users_in_a_worker_is_told_once_and_not_tried_again(hit: Hit) -> None:
    code, words, num_workers = hit.refused
    assert code == 2
    assert words.count("head.safetensors was altered after the bundle was written") == 1
    assert "Traceback" not in words
    assert num_workers == 2, "Ray started the group again"


def test_a_secret_that_is_told_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"key={SECRETS['HF_TOKEN']}")
    line = f"python --key {SECRETS['OPENAI_API_KEY']}"
    assert telling_secrets({line}, tmp_path) == [f"{line}: OPENAI_API_KEY", f"{tmp_path / 'log'}: HF_TOKEN"]


def _written(run: RunFolder) -> dict[int, int]:
    """Whole checkpoints by step, and when their manifest was written."""
    found = complete_checkpoints(run.checkpoints) if run.checkpoints.exists() else []
    return {int(path.name.removeprefix("step_")): (path / "manifest.json").stat().st_mtime_ns for path in found}


def _tracked(config: RunConfig) -> list[tuple[str, str, Counter[int]]]:
    import mlflow

    client = mlflow.MlflowClient(str(config.tracking.uri))
    return [
        (
            one.info.run_id,
            one.info.status,
            Counter(p.step for p in client.get_metric_history(one.info.run_id, "train/loss")),
        )
        for one in client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    ]


def _run_id(run: RunFolder) -> str:
    return str(json.loads(run.tracking.read_text())["run_id"])
