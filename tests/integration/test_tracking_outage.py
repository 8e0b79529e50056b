"""A training whose MLflow server is killed on the way and comes back: its numbers are there in the end, once each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import mlflow

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.deepspeed import start_distributed
from clsgen_dist.progress import Event
from clsgen_dist.tracking.journal import journal_path, read_entries
from clsgen_dist.tracking.sync import sync_tracking
from clsgen_dist.worker import train_bundle
from tests.support.ranks import RankPool
from tests.support.runs import TIMEOUT_SECONDS, compared_config, long_rows, prepared
from tests.support.tracking_server import TrackingServer

NUM_STEPS, KILLED_AFTER, AWAY_UNTIL = 20, 5, 12
SECONDS_A_STEP = 0.4
LIMIT_SECONDS = 300.0


def train_slowly(config: RunConfig, killed: Path, is_back: Path) -> None:
    """Trains as rank 0 does, some two steps a second; waits at two steps for what happens to the server."""
    from clsgen_dist.observe import RunObserver, open_tracker

    def listen(event: Event) -> None:
        time.sleep(SECONDS_A_STEP)
        flag = {KILLED_AFTER: killed, AWAY_UNTIL: is_back}.get(event.done)
        while event.stage == "train" and flag and not flag.exists():
            time.sleep(0.05)

    ranks = start_distributed(TIMEOUT_SECONDS)
    backbone = prepared(config, ranks)
    folder = RunFolder(config.folder)
    tracker = open_tracker(config, folder)
    observer = RunObserver(config, 40, tracker, listen)
    train_bundle(config, folder, backbone, ranks, observer)
    tracker.log_artifacts(folder.bundle, "bundle")
    tracker.close("FINISHED")


def test_a_server_that_is_killed_while_a_run_trains_has_all_of_it_once(one_rank: RankPool, tmp_path: Path) -> None:
    server = TrackingServer(tmp_path)
    killed, is_back = tmp_path / "killed", tmp_path / "back"
    overrides = {"train.epochs": 4, "train.checkpoint_steps": 5, "tracking.experiment": "outage"}
    try:
        server.start()
        config = compared_config(tmp_path, "outage", long_rows(40), **overrides, **{"tracking.uri": server.address})
        journal = journal_path(config.folder)
        fate = threading.Thread(target=_kill_and_start, args=(server, journal, killed, is_back))
        fate.start()
        one_rank.run(train_slowly, config, killed, is_back, seconds=LIMIT_SECONDS)
        fate.join()
        sync_tracking(config.folder, None)  # for a machine so busy that the end of the run did not wait for MLflow
        assert_is_whole(server.address, journal)
    finally:
        server.kill()


def _kill_and_start(server: TrackingServer, journal: Path, killed: Path, is_back: Path) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while _last_step(journal) < KILLED_AFTER and time.monotonic() < deadline:
        time.sleep(0.05)
    server.kill()
    killed.touch()
    while _last_step(journal) < AWAY_UNTIL and time.monotonic() < deadline:
        time.sleep(0.05)
    server.start()
    is_back.touch()


def _last_step(journal: Path) -> int:
    if not journal.exists():
        return 0
    return max((int(told["step"]) for told in _metrics(journal)), default=0)


def _metrics(journal: Path) -> list[dict[str, Any]]:
    return [entry.content for entry in read_entries(journal) if entry.kind == "metrics"]


def assert_is_whole(address: str, journal: Path) -> None:
    """The server's rows are those of the journal, each once, and every step is among them."""
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("outage")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    kept = [row for key in run.data.metrics for row in client.get_metric_history(run.info.run_id, key)]
    rows = Counter((row.key, row.step, row.value, row.timestamp) for row in kept)
    told = Counter((key, t["step"], v, t["time"]) for t in _metrics(journal) for key, v in t["metrics"].items())
    assert rows == told
    assert set(rows.values()) == {1}
    assert sorted(row.step for row in kept if row.key == "train/loss") == list(range(1, NUM_STEPS + 1))
    assert run.info.status == "FINISHED"
    assert "manifest.json" in {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "bundle")}
