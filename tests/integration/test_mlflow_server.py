"""MLflow on a real PostgreSQL, by launchers/mlflow_server.sh and as the manifest starts it.

A run told there, seen in the UI; hosts; no password in `ps`.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from playwright.sync_api import expect

from clsgen_dist.tracking.mlflow import MlflowTracker
from tests.support.browser import binary, chromium
from tests.support.kubernetes import overlay
from tests.support.postgres import PASSWORD, postgres
from tests.support.tiny import ROOT

SCRIPT = ROOT / "launchers" / "mlflow_server.sh"
PATIENCE_MS = 30_000


@dataclass(frozen=True)
class Server:
    """Attributes: how it was started, port at 127.0.0.1, id of its first process, which leads their group."""

    by: str
    port: int
    pid: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def of_script(folder: Path, database: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and variables of a server that the launcher starts."""
    return [str(SCRIPT), "--workers", "1"], {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "files"),
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow:5000,127.0.0.1:*",
        "MLFLOW_PORT": str(port),
    }


def of_manifest(folder: Path, database: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Those of the Deployment in k8s/; place of the database, volume, host and port are this machine's."""
    (found,) = [
        thing
        for thing in overlay("laptop")
        if thing["kind"] == "Deployment" and thing["metadata"]["name"].endswith("mlflow")
    ]
    (container,) = found["spec"]["template"]["spec"]["containers"]
    here = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": f"--port={port}"}
    here["--artifacts-destination=/artifacts"] = f"--artifacts-destination={folder / 'files'}"
    assert here.keys() <= set(container["args"])
    words = [here.get(word, word) for word in (*container["command"], *container["args"])]
    variables = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    assert variables["MLFLOW_BACKEND_STORE_URI"] == "postgresql://mlflow@postgres:5432/mlflow"
    return words, variables | {"MLFLOW_BACKEND_STORE_URI": database}


@pytest.fixture(scope="module", params=[of_script, of_manifest], ids=["script", "manifest"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("mlflow")
    with postgres() as database, (folder / "server.log").open("wb") as log:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command, variables = request.param(folder, database.address, port)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | variables | {"PGPASSWORD": PASSWORD, "PATH": path}
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait(process, port, folder / "server.log")
            yield Server("script" if request.param is of_script else "manifest", port, process.pid)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if _status(port, "/health", f"127.0.0.1:{port}") == 200:
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _status(port: int, path: str, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_run_is_told_and_seen(server: Server, tmp_path: Path) -> None:
    tracker = MlflowTracker(server.address, "fever", "on-postgres", folder=tmp_path / "run", artifacts=None)
    (tmp_path / "note.txt").write_text("a file of the run", encoding="utf-8")
    for step in (1, 2, 3):
        tracker.log_metrics({"train/loss": 1 / step}, step=step)
    tracker.log_artifacts(tmp_path / "note.txt", "notes")
    tracker.close("FINISHED")
    client = mlflow.MlflowClient(server.address)
    run = client.get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    fetched = client.download_artifacts(run.info.run_id, "notes/note.txt", str(tmp_path))
    assert Path(fetched).read_text(encoding="utf-8") == "a file of the run"
    binary()
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{server.address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}")
        expect(page.get_by_text("Finished", exact=True)).to_be_visible(timeout=PATIENCE_MS)
        expect(page.get_by_text("train/loss", exact=True)).to_be_visible(timeout=PATIENCE_MS)
        page.close()


def test_only_hosts_of_the_list_are_answered(server: Server) -> None:
    page = "/api/2.0/mlflow/experiments/get?experiment_id=0"
    assert _status(server.port, page, "mlflow:5000") == 200
    assert _status(server.port, page, "elsewhere.example") == 403
    # The list replaces MLflow's own; that of the manifest has localhost, for kubectl port-forward.
    assert _status(server.port, page, "localhost:5000") == (403 if server.by == "script" else 200)
    assert _status(server.port, page, "10.0.0.1:5000") == 403
    assert _status(server.port, "/health", "elsewhere.example") == 200  # for probes


def test_no_process_shows_the_password(server: Server) -> None:
    shown = [_words(pid) for pid in Path("/proc").iterdir() if pid.name.isdecimal()]
    assert any("mlflow" in words for words in shown)
    assert [words for words in shown if PASSWORD in words] == []


def _words(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("address", "words", "said"),
    [
        (None, [], "MLFLOW_BACKEND_STORE_URI is not set"),
        ("sqlite:///x.db", [], "no address of PostgreSQL"),
        ("postgresql://a@b/c", ["--backend-store-uri=postgresql://a:x@b/c"], "a list of processes shows it"),
    ],
)
def test_what_cannot_be_is_refused_at_once(address: str | None, words: list[str], said: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_BACKEND_STORE_URI"}
    given = {} if address is None else {"MLFLOW_BACKEND_STORE_URI": address}
    done = subprocess.run(
        [str(SCRIPT), *words], env=environment | given, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert said in done.stderr
