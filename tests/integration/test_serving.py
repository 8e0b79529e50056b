"""A bundle registered in MLflow's registry and served, by our launcher and by `mlflow models serve`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.integrity import write_json
from clsgen_dist.sealed import Decision, set_decision
from tests.support.bundles import write_tiny_bundle
from tests.support.tiny import ROOT

SECRET = "confidential"
ASKED = {"dataframe_records": [{"text": "fever"}], "params": {"explain": True}}


@dataclass(frozen=True)
class Registered:
    """A database with two versions of a model, the second one calibrated and champion."""

    folder: Path
    uri: str


def launch(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launchers" / name), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    folder = tmp_path_factory.mktemp("registry")
    bundle, uri = write_tiny_bundle(folder), f"sqlite:///{folder}/mlflow.db"
    first = launch("register.py", "--bundle", str(bundle), "--name", "tickets", "--tracking.uri", uri)
    assert first.returncode == 0, first.stderr
    assert "models:/tickets/1" in first.stdout
    set_decision(bundle, Decision(Calibrator("temperature", {"temperature": (2.0,)}, 100), 0.4))
    (folder / "evaluation" / "test").mkdir(parents=True)
    metrics = {"threshold": 0.4, "calibrated": {"auroc": 0.91, "ece": 0.03}}
    write_json(folder / "evaluation" / "test" / "metrics.json", metrics)
    words = ("--bundle", str(bundle), "--name", "tickets", "--alias", "champion", "--tracking.uri", uri)
    second = launch("register.py", *words)
    assert second.returncode == 0, second.stderr
    assert "models:/tickets@champion" in second.stdout
    return Registered(folder, uri)


@contextmanager
def served(command: Sequence[str], port: int, environment: dict[str, str], log: Path) -> Iterator[str]:
    address = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, cwd=log.parent, env=os.environ | environment, start_new_session=True
        )
        try:
            for _ in range(400):
                if server.poll() is not None:
                    break
                try:
                    with urllib.request.urlopen(f"{address}/health", timeout=2):
                        yield address
                        return
                except (urllib.error.URLError, OSError):
                    time.sleep(0.3)
            raise AssertionError(log.read_text(errors="replace")[-2000:])
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(address: str, body: Any) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_versions_carry_what_is_known_of_them(registered: Registered) -> None:
    client = mlflow.MlflowClient(registered.uri)
    first = client.get_model_version("tickets", "1")
    champion = client.get_model_version_by_alias("tickets", "champion")
    assert (first.tags["calibrated"], "auroc" in first.tags) == ("false", False)
    assert champion.version in (2, "2")
    told = {name: champion.tags[name] for name in ("calibrated", "threshold", "auroc", "ece", "run")}
    assert told == {"calibrated": "true", "threshold": "0.4", "auroc": "0.91", "ece": "0.03", "run": "tiny"}
    assert champion.tags["base_model"]


def test_the_champion_is_served(registered: Registered) -> None:
    port = free_port()
    command = [sys.executable, str(ROOT / "launchers/serve.py"), "--model", "models:/tickets@champion"]
    command += ["--tracking.uri", registered.uri, "--port", str(port)]
    with served(command, port, {}, registered.folder / "serve.log") as address:
        status, text = ask(address, ASKED)
        (found,) = json.loads(text)["predictions"]
        assert status == 200
        assert (found["calibrated"], found["threshold"], found["model_version"]) == (True, 0.4, "tickets/2")
        assert isinstance(found["explanation"], str)
        status, text = ask(address, {"dataframe_records": [{"text": SECRET}], "params": {"explian": True}})
        assert (status, SECRET in text) == (400, False)


def test_mlflow_serves_it_too(registered: Registered) -> None:
    """The same answers and the same refusals, where MLflow by itself drops what it does not know and tells rows."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/tickets@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    bins = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"MLFLOW_TRACKING_URI": registered.uri, "PATH": bins, "PYTHONPATH": str(ROOT)}
    with served(command, port, environment, registered.folder / "mlflow_serve.log") as address:
        status, text = ask(address, ASKED)
        assert status == 200, text
        (found,) = json.loads(text)["predictions"]
        assert set(found["probability"]) == {"no", "yes"}
        assert (found["calibrated"], found["model_version"]) == (True, "tickets/2")
        assert isinstance(found["explanation"], str)
        rows = [{"text": "fever", "id": "a"}, {"text": "calm", "id": "b"}]
        status, text = ask(address, {"dataframe_records": rows})
        assert [row["id"] for row in json.loads(text)["predictions"]] == ["a", "b"]
        status, text = ask(address, {"dataframe_records": [{"text": f"{SECRET} " * 60}]})
        assert status == 422
        assert "the limit is" in text
        assert SECRET not in text
        refused = [
            (400, {"dataframe_records": [{"text": SECRET}], "params": {"explian": True}}, "explian"),
            (400, {"dataframe_records": [{"txet": SECRET}]}, "expected an object with text"),
            (400, {"dataframe_records": [{"text": 7, "id": SECRET}]}, "text"),
            (413, {"dataframe_records": [{"text": SECRET * 200_000}]}, "limit"),
        ]
        for expected, body, words in refused:
            status, text = ask(address, body)
            assert (status, words in text) == (expected, True), text
            assert SECRET not in text
            assert "Traceback" not in text
        status, text = ask(address, ASKED)
        assert json.loads(text)["predictions"] == [found]
    log = (registered.folder / "mlflow_serve.log").read_text(errors="replace")
    assert SECRET not in log


def test_what_is_no_bundle_is_not_registered(registered: Registered, tmp_path: Path) -> None:
    words = ("--bundle", str(tmp_path), "--name", "other", "--tracking.uri", registered.uri)
    refused = launch("register.py", *words)
    assert (refused.returncode, "no bundle here" in refused.stderr, "Traceback" in refused.stderr) == (2, True, False)
    assert [m.name for m in mlflow.MlflowClient(registered.uri).search_registered_models()] == ["tickets"]
