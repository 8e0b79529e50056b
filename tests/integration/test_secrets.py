"""Secrets of the environment in nothing that a run writes, says, or shows in the list of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from clsgen_dist.config.run import dump_config
from tests.support.runs import split_files
from tests.support.tiny import ROOT, tiny_backbone, tiny_config, tiny_rows

pytestmark = [pytest.mark.slow, pytest.mark.ray]

#: Longest wait for the run, seconds.
LONGEST_SECONDS = 300

NAMES = ("OPENAI_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SOME_PRIVATE_NOTE")
SECRETS = {name: f"planted-{name.lower()}-0123456789" for name in NAMES}


def test_a_run_under_ray_tells_no_secret(tmp_path: Path) -> None:
    settings = {
        "model.name_or_path": tiny_backbone(tmp_path / "backbone"),
        **split_files(tmp_path, tiny_rows(32)),
        "train.num_workers": 2,
        "train.max_steps": 2,
        "train.collective_timeout_seconds": 120,
        "evaluate.max_explained_rows": 2,
        "ray.max_failures": 0,
        "calibrate.method": "temperature",
    }
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(tiny_config(tmp_path, **settings)), encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="clsgen-ray-", dir="/tmp") as sessions:  # sockets have short names
        environment = {
            **os.environ,
            **SECRETS,
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_TMPDIR": sessions,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
        }
        seen, given = _run([sys.executable, "launchers/ray_train.py", "--config", str(path)], environment, tmp_path)
        assert len(seen) > 3  # the driver, Ray's own processes, workers
        assert not [line for line in seen if any(secret in line for secret in SECRETS.values())]
        assert "DS_ACCELERATOR" in given
        # Workers track and fetch models, so they have what MLflow, stores and the Hub need, and nothing else.
        assert given & SECRETS.keys() == {"HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"}
        assert list(Path(sessions).rglob("*.log"))
        assert not _holding(tmp_path) + _holding(Path(sessions))
    assert list(tmp_path.rglob("metrics.json"))
    assert list(tmp_path.rglob("mlflow.db"))


def _run(command: list[str], environment: dict[str, str], folder: Path) -> tuple[set[str], set[str]]:
    """Runs a command to its end, its output in `folder`.

    Returns:
        The command lines of all its processes; the names of the variables that those of Ray have.
    """
    seen: set[str] = set()
    given: set[str] = set()
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT, env=environment, start_new_session=True)
        whole = psutil.Process(process.pid)
        end = time.monotonic() + LONGEST_SECONDS
        try:
            while process.poll() is None and time.monotonic() < end:
                seen |= set(_command_lines(whole))
                given |= _given_to_ray(whole)
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert process.returncode == 0, (folder / "stderr").read_text()[-2000:]
    return seen, given


def _given_to_ray(whole: psutil.Process) -> set[str]:
    names: set[str] = set()
    try:
        children = whole.children(recursive=True)
    except psutil.NoSuchProcess:
        return names
    for process in children:
        try:
            command = " ".join(process.cmdline())
            if command.startswith("ray::") or "raylet" in command or "gcs_server" in command:
                names |= set(process.environ())
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return names


def _command_lines(whole: psutil.Process) -> list[str]:
    lines = []
    try:
        processes = [whole, *whole.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
    for process in processes:
        try:
            lines.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
    return lines


def _holding(folder: Path) -> list[str]:
    """Files with a secret in them, and which."""
    return [
        f"{path}: {name}"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]


def test_a_secret_in_a_file_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"key={SECRETS['HF_TOKEN']}")
    assert _holding(tmp_path) == [f"{tmp_path / 'log'}: HF_TOKEN"]
