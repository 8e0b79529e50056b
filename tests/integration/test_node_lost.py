"""A Ray node that is lost on the way: the run goes on with the workers for which there is room, or waits, as it is set.

The run stands in a bucket of an S3 server and its MLflow server never answers: neither stops it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.cluster_utils import Cluster

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import dump_config
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.object_place import ObjectPlace
from clsgen_dist.objects import Objects
from tests.support.object_store import Bucket, s3_bucket
from tests.support.runs import split_files
from tests.support.tiny import ROOT, tiny_backbone, tiny_config, tiny_rows

pytestmark = [pytest.mark.slow, pytest.mark.ray]

NUM_STEPS = 30
#: One slot.
NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
#: Longest wait for anything, seconds.
LONGEST_SECONDS = 420


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as made:
        yield made


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch, bucket: Bucket) -> Iterator[Cluster]:
    """Two Ray nodes on this machine, one slot each; the driver's is the first. Both have the keys of the bucket."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("waits", [False, True], ids=["goes_on_with_the_worker_that_is_left", "waits_for_another_node"])
def test_a_node_is_lost(two_nodes: Cluster, bucket: Bucket, tmp_path: Path, waits: bool) -> None:
    settings = {
        "model.name_or_path": tiny_backbone(tmp_path / "backbone"),
        **split_files(tmp_path, tiny_rows(32)),
        "train.num_workers": 2,
        "train.max_steps": NUM_STEPS,
        "train.epochs": 30,
        "train.checkpoint_steps": 1,
        "train.collective_timeout_seconds": 60,
        "calibrate.method": "temperature",
        "evaluate.max_explained_rows": 2,
        "ray.min_workers": None if waits else 1,
        "run.storage": f"{bucket.uri}/all",
        "tracking.uri": "http://127.0.0.1:9",
        "train.deepspeed": "ds_configs/zero3_cpu.json",  # of the driver's folder, which workers do not run in
    }
    config = tiny_config(tmp_path, **settings)
    path = tmp_path / "run.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    folder = RunFolder(config.folder)
    objects = Objects(f"{bucket.uri}/all/{config.run.name}/checkpoints")
    checkpoints = ObjectPlace(objects, tmp_path / "seen", Ranks(0, 1, torch.device("cpu")), [0], lambda: None)
    environment = {
        **os.environ,
        "RAY_ADDRESS": str(two_nodes.address),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    }
    log = tmp_path / "log"
    with log.open("wb") as said:
        driver = subprocess.Popen(
            [sys.executable, "launchers/ray_train.py", "--config", str(path)],
            stdout=said,
            stderr=said,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
    try:
        _until(lambda: _last(checkpoints)["step"] >= 3, driver, log)
        writers = _last(checkpoints)["world_size"]
        lost = next(node for node in two_nodes.list_all_nodes() if not node.head)
        two_nodes.remove_node(lost, allow_graceful=False)
        message = "waiting for the others" if waits else "the run goes on with these"
        _until(lambda: f"room for 1 of 2 workers: {message}" in log.read_text(), driver, log)
        if waits:
            two_nodes.add_node(**NODE)
        driver.wait(timeout=LONGEST_SECONDS)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
    assert driver.returncode == 0, log.read_text()[-3000:]
    assert writers == 2
    last = _last(checkpoints)
    assert (last["step"], last["world_size"]) == (NUM_STEPS, 2 if waits else 1)
    assert ("room for 2 of 2 workers again" in log.read_text()) == waits
    assert json.loads((folder.evaluation("test") / "metrics.json").read_text())["num_rows"] == 24


def _last(checkpoints: ObjectPlace) -> dict[str, Any]:
    """What the newest whole checkpoint says of itself."""
    return next(reversed(checkpoints.whole().values()), {"step": 0})


def _until(condition: object, driver: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + LONGEST_SECONDS
    while not condition():  # type: ignore[operator]
        if driver.poll() is not None or time.monotonic() > end:
            pytest.fail(log.read_text()[-3000:])
        time.sleep(0.1)
