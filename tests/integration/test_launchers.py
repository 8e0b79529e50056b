"""The launchers as people start them: under deepspeed, as a job on a Ray cluster, with input that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, dump_config
from tests.support.ranks import free_port
from tests.support.runs import split_files
from tests.support.tiny import ROOT, tiny_backbone, tiny_config, tiny_rows
from tests.support.watching import SECRETS, telling_secrets, watched

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "RAY_AUTH_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
}
TWO_RANKS = ["--num_gpus", "2"]


def small_run(folder: Path, **overrides: Any) -> tuple[RunConfig, Path]:
    """Two workers, a LoRA on a tiny pretrained Llama, rows from four JSONL files; and the file that says so."""
    settings: dict[str, Any] = {
        "model.name_or_path": tiny_backbone(folder / "backbone"),
        **split_files(folder, tiny_rows(32)),
        "train.num_workers": 2,
        "train.collective_timeout_seconds": 120,
        "tracking.uri": None,
        "evaluate.max_explained_rows": 4,
        "ray.max_failures": 0,
        **overrides,
    }
    config = tiny_config(folder, **{"calibrate.method": "temperature", **settings})
    path = folder / "run.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    return config, path


def deepspeed(script: str, *words: str, seconds: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Runs a launcher script on two ranks under the deepspeed launcher."""
    command = [str(BIN / "deepspeed"), *TWO_RANKS, "--master_port", str(free_port()), script, *words]
    return run(command, seconds)


def run(command: list[str], seconds: float, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; past the limit it is ended with all that it started."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        pytest.fail(f"{' '.join(command)}: still running after {seconds:g} s\n{stdout}\n{stderr}")
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def assert_finished(config: RunConfig) -> None:
    """The run folder is whole, and MLflow has the run with its numbers and files."""
    import mlflow

    folder = RunFolder(config.folder)
    assert json.loads((folder.evaluation("test") / "metrics.json").read_text())["num_rows"] == 24
    assert len((folder.evaluation("test") / "predictions.jsonl").read_text().splitlines()) == 24
    assert (folder.bundle / "adapter" / "adapter_model.safetensors").is_file()
    client = mlflow.MlflowClient(f"sqlite:///{config.run.output_dir}/mlflow.db")
    run_id = json.loads(folder.tracking.read_text())["run_id"]
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert {point.step for point in client.get_metric_history(run_id, "train/loss")} == {1, 2, 3, 4}
    assert "test/auroc" in found.data.metrics
    assert {"bundle", "config.yaml", "evaluation"} <= {file.path for file in client.list_artifacts(run_id)}


def test_deepspeed_launcher_trains(tmp_path: Path) -> None:
    """The whole run, its words, and no secret of the environment in anything that it writes, says or shows."""
    config, path = small_run(tmp_path)
    command = [str(BIN / "deepspeed"), *TWO_RANKS, "--master_port", str(free_port()), "launchers/train.py"]
    out, err = tmp_path / "stdout", tmp_path / "stderr"

    launched = watched([*command, "--config", str(path)], {**ENVIRONMENT, **SECRETS}, out, err)

    assert launched.ended() == 0, err.read_text()[-3000:]
    assert_finished(config)
    errors = err.read_text()
    for name in ("run folder", "bundle", "MLflow UI"):
        assert sum(line.startswith(f"{name}:") for line in out.read_text().splitlines()) == 1, "rank 0 alone speaks"
    assert "train: 4/4" in errors
    assert "warning" not in errors.lower()
    assert "Traceback" not in errors
    assert len([line for line in launched.lines if "launchers/train.py" in line]) >= 3, "the launcher and two ranks"
    assert not telling_secrets(launched.lines, tmp_path)


@pytest.mark.parametrize("faulty", ["label", "key"])
def test_unusable_input_under_deepspeed(tmp_path: Path, faulty: str) -> None:
    """One message from two ranks, exit code 2, nothing written: a bad row that one finds, a bad key that both find."""
    config, path = small_run(tmp_path)
    words = ["--config", str(path)]
    if faulty == "label":
        rows = tmp_path / "train.jsonl"
        rows.write_text(rows.read_text() + '{"id": "x", "text": "Some words.", "label": "perhaps"}\n')
        expected = "train.jsonl:33: unknown label 'perhaps'"
    else:
        words += ["--train.learning_rat", "1e-4"]
        expected = "unknown key train.learning_rat; the nearest valid key is train.learning_rate"

    answer = deepspeed("launchers/train.py", *words)

    assert answer.returncode == 2
    assert expected in answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "Traceback" not in answer.stderr + answer.stdout
    assert not Path(config.run.output_dir).exists()


def test_fault_of_rank_0_alone_under_deepspeed(tmp_path: Path) -> None:
    """Rank 1, which waits for rank 0 and then sees it go, adds nothing to the message."""
    _, path = small_run(tmp_path, **{"tracking.uri": "sqlite:////proc/nowhere/mlflow.db"})

    answer = deepspeed("launchers/train.py", "--config", str(path))

    assert answer.returncode == 1
    assert "error: tracking.uri sqlite:////proc/nowhere/mlflow.db: cannot be used" in answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "Traceback" not in answer.stderr + answer.stdout


@dataclass(frozen=True)
class Cluster:
    """A Ray head that this module started: where drivers and jobs find it."""

    address: str
    jobs: str


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A Ray head with two CPU slots on free ports; ends with all processes that it started, and no others."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets lie in it: their paths must be short
    gcs, dashboard = free_port(), free_port()
    ports = {
        "port": gcs,
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "dashboard-agent-grpc-port": free_port(),
        "ray-client-server-port": free_port(),
        "metrics-export-port": free_port(),
    }
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=true"),
        *("--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=0", f"--temp-dir={folder}"),
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{dashboard}/api/jobs/", head, folder / "head.log")
        yield Cluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}")
    finally:
        started = [head_process := psutil.Process(head.pid), *head_process.children(recursive=True)]
        os.killpg(head.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(started, timeout=5)
        for process in left:
            process.kill()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.5)
    pytest.fail(f"the Ray head did not come up:\n{log.read_text()}")


@pytest.mark.ray
def test_ray_job_trains(cluster: Cluster, tmp_path: Path) -> None:
    """`ray job submit` uploads a checkout and waits for the job, as the README has it."""
    config, path = small_run(tmp_path)
    checkout = tmp_path / "checkout"
    for part in ("clsgen_dist", "launchers", "ds_configs"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))

    answer = run(
        [
            *(str(BIN / "ray"), "job", "submit", "--address", cluster.jobs, "--working-dir", str(checkout), "--"),
            *("python", "launchers/ray_train.py", "--config", str(path)),
        ],
        seconds=300,
        cwd=tmp_path,
    )

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "succeeded" in answer.stdout
    assert f"run folder: {config.folder}" in answer.stdout
    assert_finished(config)


@pytest.mark.ray
def test_more_workers_than_the_cluster_has(cluster: Cluster, tmp_path: Path) -> None:
    """Said at once, where Ray by itself would wait for nodes to come."""
    config, path = small_run(tmp_path)

    answer = run(
        [sys.executable, "launchers/ray_train.py", "--config", str(path), "--train.num_workers", "3"],
        seconds=90,
        RAY_ADDRESS=cluster.address,
    )

    assert answer.returncode == 2, answer.stderr
    assert "train.num_workers is 3, the Ray cluster has 2 CPU slots" in answer.stderr
    assert answer.stderr.count("error:") == 1
    assert "Traceback" not in answer.stderr
    assert not Path(config.run.output_dir).exists()
