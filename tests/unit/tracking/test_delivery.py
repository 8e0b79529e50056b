"""What a run tells reaches a real MLflow server once and whole, whatever became of server and answers meanwhile."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Metric, Run

import clsgen_dist.tracking.mlflow
from clsgen_dist.claim import claimed
from clsgen_dist.errors import TrackingError
from clsgen_dist.tracking import delivery
from clsgen_dist.tracking.journal import journal_path, read_entries, record_path
from clsgen_dist.tracking.mlflow import MlflowTracker
from clsgen_dist.tracking.sync import sync_tracking
from tests.support.tiny import ROOT
from tests.support.tracking_server import TrackingServer
from tests.support.unreliable_proxy import UnreliableProxy, unreliable_proxy

EXPERIMENT = "outages"
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    running = TrackingServer(tmp_path_factory.mktemp("mlflow"))
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture
def proxy(server: TrackingServer) -> Iterator[UnreliableProxy]:
    with unreliable_proxy(server.address) as between:
        yield between


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ones between attempts; and a busy machine is no outage."""
    monkeypatch.setattr(delivery, "_SECONDS_BETWEEN_SENDS", 0.2)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE_SECONDS", 0.2)
    be_patient(monkeypatch, PATIENCE_SECONDS)


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For servers that are away until the end."""
    be_patient(monkeypatch, 0.5)


def be_patient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(clsgen_dist.tracking.mlflow, "_PATIENCE_SECONDS", seconds)
    monkeypatch.setattr(delivery, "_PATIENCE_SECONDS", seconds)
    monkeypatch.setattr(delivery, "_LITTLE_PATIENCE_SECONDS", seconds)


def open_run(address: str, folder: Path, parent: str | None = None) -> MlflowTracker:
    tracker = MlflowTracker(address, EXPERIMENT, folder.name, folder=folder, artifacts=None, parent=parent)
    if not tracker.is_begun:
        (folder / "config.yaml").write_text("a: 1\n")
        tracker.log_params({f"setting.{number}": number for number in range(150)})
        tracker.log_artifacts(folder / "config.yaml", "")
        tracker.log_dataset("train", folder / "train.parquet", "0" * 64, 300)
        tracker.set_tags({"git_commit": "unknown"})
        tracker.begun()
    return tracker


def tell_steps(tracker: MlflowTracker, steps: range) -> None:
    for step in steps:
        tracker.log_metrics({"train/loss": 1 / step, "train/kl": step / 7, "nan": float("nan")}, step=step)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)


def runs_named(server: TrackingServer, name: str) -> list[Run]:
    client = mlflow.MlflowClient(server.address)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'"))


def rows_of(server: TrackingServer, run: Run) -> Counter[Any]:
    """Every row of metrics that the server has of a run."""
    client = mlflow.MlflowClient(server.address)
    found = [row for key in run.data.metrics for row in client.get_metric_history(run.info.run_id, key)]
    return Counter((row.key, row.step, row.value, row.timestamp) for row in found)


def rows_told(folder: Path) -> Counter[Any]:
    """Every number in the journal of a run."""
    told = [entry.content for entry in read_entries(journal_path(folder)) if entry.kind == "metrics"]
    return Counter((key, c["step"], value, c["time"]) for c in told for key, value in c["metrics"].items())


def assert_is_whole(server: TrackingServer, folder: Path, num_steps: int, status: str = "FINISHED") -> Run:
    """One run, that holds what was told and nothing twice."""
    (run,) = runs_named(server, folder.name)
    rows = rows_of(server, run)
    assert rows == rows_told(folder)
    assert Counter(key for key, *_ in rows) == {"train/loss": num_steps, "train/kl": num_steps}
    assert run.data.params == {f"setting.{number}": str(number) for number in range(150)}
    assert run.data.tags["git_commit"] == "unknown"
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["train"]
    assert [file.path for file in mlflow.MlflowClient(server.address).list_artifacts(run.info.run_id)] == [
        "config.yaml"
    ]
    assert run.info.status == status
    return run


def test_mlflow_keeps_a_number_once_however_often_it_comes(server: TrackingServer) -> None:
    """What delivery stands on: the primary key of MLflow's table of metrics."""
    client = mlflow.MlflowClient(server.address)
    run_id = client.create_run("0").info.run_id
    for _ in range(3):
        client.log_batch(run_id, metrics=[Metric("a", 0.1, 5, step) for step in (1, 2)])
    client.log_batch(run_id, metrics=[Metric("a", 0.1, 5, step) for step in (2, 3)])
    assert [row.step for row in client.get_metric_history(run_id, "a")] == [1, 2, 3]


def test_lost_answers_double_nothing(
    server: TrackingServer,
    proxy: UnreliableProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every kind of request is done by the server once without the client hearing of it; passwords stay unsaid."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-secret")
    proxy.loses_first_answer = True
    folder = tmp_path / "lost answers"
    tracker = open_run(proxy.address, folder)
    sending = "POST /api/2.0/mlflow/runs/log-batch"
    eventually(lambda: sending in proxy.lost)
    proxy.lost.remove(sending)  # once more, with numbers in it
    tell_steps(tracker, range(1, 401))
    eventually(lambda: json.loads(record_path(folder).read_text())["seq"] > 400)
    tracker.close("FINISHED")
    if runs_named(server, folder.name)[0].info.status != "FINISHED":
        sync_tracking(folder, None)
    assert_is_whole(server, folder, 400)
    ends = {name.rpartition("/")[2] for name in proxy.lost}
    assert {"create", "search", "log-batch", "log-inputs", "update"} <= ends
    assert any(name.startswith("PUT") for name in proxy.lost)
    assert "a-secret" not in caplog.text + "".join(p.read_text() for p in folder.rglob("*") if p.is_file())


def test_a_server_that_is_down_at_the_start_gets_the_run_later(
    server: TrackingServer, proxy: UnreliableProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.is_down = True
    folder = tmp_path / "late"
    with caplog.at_level(logging.WARNING):
        tracker = open_run(proxy.address, folder)
        tell_steps(tracker, range(1, 11))
        assert tracker.run_id is None
        assert json.loads(record_path(folder).read_text())["run_id"] is None
        proxy.is_down = False
        eventually(lambda: tracker.run_id is not None)
        tracker.close("FINISHED")
    run = assert_is_whole(server, folder, 10)
    first = next(read_entries(journal_path(folder))).content
    assert run.info.start_time == first["time"]
    assert caplog.text.count("the run goes on") == 1
    assert caplog.text.count("answers again") == 1


def test_a_server_that_goes_away_on_the_way_and_comes_back(
    server: TrackingServer, proxy: UnreliableProxy, tmp_path: Path
) -> None:
    folder = tmp_path / "on the way"
    tracker = open_run(proxy.address, folder)
    tell_steps(tracker, range(1, 301))
    eventually(lambda: json.loads(record_path(folder).read_text())["seq"] > 20)
    proxy.is_down = True
    tell_steps(tracker, range(301, 901))
    proxy.is_down = False
    tell_steps(tracker, range(901, 1001))
    eventually(lambda: json.loads(record_path(folder).read_text())["seq"] > 1000)
    tracker.close("FINISHED")
    assert_is_whole(server, folder, 1000)


@pytest.mark.usefixtures("little_patience")
@pytest.mark.parametrize("fault", ["is_down", "hangs"])
def test_a_server_that_is_away_for_good_leaves_it_to_the_next_command(
    fault: str, server: TrackingServer, proxy: UnreliableProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed and started again while the server is away: one journal, one run."""
    setattr(proxy, fault, True)
    folder = tmp_path / f"away {fault}"
    tell_steps(open_run(proxy.address, folder), range(1, 8))  # and never closed
    with caplog.at_level(logging.WARNING):
        resumed = open_run(proxy.address, folder)
        tell_steps(resumed, range(5, 11))
        resumed.close("FINISHED")
    assert f"python launchers/sync_tracking.py --run {folder}" in caplog.text
    assert runs_named(server, folder.name) == []
    assert sync_tracking(folder, server.address).startswith("sent: 20 metrics, 150 params, 1 tags, 1 datasets, 1 files")
    assert_is_whole(server, folder, 10)
    assert sync_tracking(folder, server.address).startswith("sent: 0 metrics, 0 params, 0 tags, 0 datasets, 0 files")
    assert_is_whole(server, folder, 10)


@pytest.mark.usefixtures("little_patience")
def test_what_waits_for_a_server_waits_on_the_disk(tmp_path: Path) -> None:
    """Memory stays as it is, however long nobody answers."""
    tracker = MlflowTracker("http://127.0.0.1:9", EXPERIMENT, "flat", folder=tmp_path / "flat", artifacts=None)
    tell_steps(tracker, range(1, 100))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tell_steps(tracker, range(100, 10_100))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    tracker.close("FAILED")
    assert journal_path(tmp_path / "flat").stat().st_size > 1_000_000
    assert grown < 300_000


def test_a_record_that_is_lost_or_behind_doubles_nothing(server: TrackingServer, tmp_path: Path) -> None:
    folder = tmp_path / "forgetful"
    tracker = open_run(server.address, folder)
    tell_steps(tracker, range(1, 6))
    tracker.close("FAILED")
    before = record_path(folder).read_text()
    record_path(folder).write_text(before[:30])
    resumed = open_run(server.address, folder)
    assert resumed.run_id == tracker.run_id
    tell_steps(resumed, range(4, 9))
    resumed.close("FINISHED")
    assert_is_whole(server, folder, 8)
    record_path(folder).write_text(before)
    again = open_run(server.address, folder)
    tell_steps(again, range(8, 10))
    again.close("FINISHED")
    assert_is_whole(server, folder, 9)


def test_a_run_of_an_earlier_version_goes_on_as_the_same_one(server: TrackingServer, tmp_path: Path) -> None:
    """It has no journal, and MLflow knows its settings."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    before = mlflow.MlflowClient(server.address).create_run("0", run_name="earlier").info.run_id
    record_path(folder).write_text(json.dumps({"uri": server.address, "run_id": before}))
    tracker = open_run(server.address, folder)
    tell_steps(tracker, range(1, 4))
    tracker.close("FINISHED")
    run = mlflow.MlflowClient(server.address).get_run(before)
    assert tracker.run_id == before
    assert rows_of(server, run) == rows_told(folder)
    assert run.data.params == {}


def test_a_journal_that_was_removed_begins_anew_in_the_same_run(server: TrackingServer, tmp_path: Path) -> None:
    folder = tmp_path / "no journal"
    tracker = open_run(server.address, folder)
    tell_steps(tracker, range(1, 31))
    tracker.close("FAILED")
    journal_path(folder).unlink()
    resumed = open_run(server.address, folder)
    tell_steps(resumed, range(31, 34))
    resumed.close("FINISHED")
    (run,) = runs_named(server, folder.name)
    history = mlflow.MlflowClient(server.address).get_metric_history(run.info.run_id, "train/loss")
    assert [row.step for row in history] == list(range(1, 34))


def test_a_run_that_was_removed_is_made_again_with_all_of_it(server: TrackingServer, tmp_path: Path) -> None:
    folder = tmp_path / "removed"
    tracker = open_run(server.address, folder)
    tell_steps(tracker, range(1, 6))
    eventually(lambda: bool(runs_named(server, folder.name)))
    mlflow.MlflowClient(server.address).delete_run(str(tracker.run_id))
    tell_steps(tracker, range(6, 9))
    tracker.close("FINISHED")
    assert_is_whole(server, folder, 8)


def test_what_mlflow_refuses_holds_nothing_up(
    server: TrackingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "refused"
    tracker = open_run(server.address, folder)
    with caplog.at_level(logging.WARNING):
        tracker.log_metrics({"ß?": 1.0, "fine": 2.0}, step=1)
        tracker.set_tags({"": "x", "kept": "y"})
        tracker.close("FINISHED")
    (run,) = runs_named(server, folder.name)
    assert run.data.metrics == {"fine": 2.0}
    assert run.data.tags["kept"] == "y"
    assert caplog.text.count("refuses") == 2


def test_a_store_for_files_that_is_away_holds_up_files_alone(
    server: TrackingServer, proxy: UnreliableProxy, tmp_path: Path
) -> None:
    proxy.refused_paths = ("mlflow-artifacts",)
    folder = tmp_path / "no files"
    tracker = open_run(proxy.address, folder)
    tell_steps(tracker, range(1, 4))
    tracker.close("FINISHED")
    (run,) = runs_named(server, folder.name)
    assert rows_of(server, run) == rows_told(folder)
    assert json.loads(record_path(folder).read_text())["left"] == [3]
    assert not list(folder.rglob("config.yaml"))[1:], "files are named in the journal, not copied"
    proxy.refused_paths = ()
    assert "1 files" in sync_tracking(folder, None)
    assert_is_whole(server, folder, 3)


def test_a_parent_that_comes_later_is_found_by_its_key(
    server: TrackingServer, proxy: UnreliableProxy, tmp_path: Path
) -> None:
    proxy.is_down = True
    parent = open_run(proxy.address, tmp_path / "parent")
    child = open_run(server.address, tmp_path / "child", parent=parent.reference)
    proxy.is_down = False
    parent.close("FINISHED")
    child.close("FINISHED")
    (run,) = runs_named(server, "child")
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id


def sync(*words: str) -> tuple[int, str, str]:
    command = [sys.executable, str(ROOT / "launchers" / "sync_tracking.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.usefixtures("little_patience")
def test_the_launcher_sends_what_is_left(server: TrackingServer, proxy: UnreliableProxy, tmp_path: Path) -> None:
    proxy.is_down = True
    folder = tmp_path / "by hand"
    tracker = open_run(proxy.address, folder)
    tell_steps(tracker, range(1, 4))
    tracker.close("FINISHED")
    with pytest.raises(TrackingError, match="entries are kept in") as away:
        sync_tracking(folder, None)
    assert away.value.exit_code == 1
    code, printed, complained = sync("--run", str(folder), "--tracking.uri", server.address)
    assert (code, complained) == (0, "")
    assert printed.startswith("sent: 6 metrics, 150 params, 1 tags, 1 datasets, 1 files")
    assert_is_whole(server, folder, 3)


def test_the_launcher_refuses_what_cannot_be(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with claimed(folder):
        code, printed, complained = sync("--run", str(folder))
    assert (code, printed) == (2, "")
    assert "is at work there" in complained
