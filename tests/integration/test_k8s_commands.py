"""The training of a manifest, run: head, worker and submitter as processes with the arguments that stand in it."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from clsgen_dist.manifests.objects import Manifest, Pod, amount, of_kind, pods_of, resources
from tests.support.kubernetes import overlay
from tests.support.pods import ADDRESSES, Machine, missing, two_networks
from tests.support.tiny import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.ray]

#: Longest waits, seconds; nothing is measured by them.
CLUSTER_SECONDS = 180
JOB_SECONDS = 300
SERVICE = "train-head-svc.clsgen-dist.svc.cluster.local"
CHECK = ROOT.parent / "shared" / "checks" / "run_folder.py"

#: Settings of the run that replace those of the ConfigMap, so that it takes seconds.
TINY: dict[str, dict[str, Any]] = {
    "data": {"vignettes": {"num_train": 64, "num_validation": 16, "num_calibration": 64, "num_test": 24}},
    "model": {
        "from_scratch": {"hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 2, "vocab_size": 512}
    },
    "train": {"epochs": 1, "global_batch": 32, "token_budget": 2560},
    "predict": {"max_new_tokens": 8},
    "evaluate": {"max_explained_rows": 4},
    "tracking": {"uri": "sqlite:////workspace/mlflow.db"},
}


@dataclass
class Cluster:
    """Ray as the manifest has it: its pods, and what KubeRay would hand to each."""

    job: Manifest
    pods: dict[str, Pod]
    machine: Machine
    networks: tuple[str, str]
    token: str

    def start(self, name: str, role: str, command: list[str], **variables: str) -> subprocess.Popen[bytes]:
        network = self.networks[role != "head"]
        return self.machine.start(name, self.pods[role], network, command, RAY_AUTH_TOKEN=self.token, **variables)

    def ask(self, path: str) -> Any:
        """What the head's dashboard answers under a path; None as long as it does not answer."""
        script = (
            "import sys, urllib.request as u\n"
            "r = u.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})\n"
            "sys.stdout.write(u.urlopen(r, timeout=10).read().decode())"
        )
        url = f"http://{ADDRESSES[0]}:8265{path}"
        command = ["nsenter", f"--net=/run/netns/{self.networks[0]}", sys.executable, "-I", "-c", script]
        answer = subprocess.run([*command, url, self.token], capture_output=True, text=True, timeout=60)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def logs(self) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.machine.folder.glob("*.log")))


def ray_start(pod: Pod) -> list[str]:
    """The command that KubeRay makes of `rayStartParams`, with what it adds to them."""
    params = dict((pod.group or {})["rayStartParams"])
    first = ["--head"] if pod.role == "head" else [f"--address={SERVICE}:6379"]
    if pod.role == "head":
        params.setdefault("dashboard-host", "0.0.0.0")
    limits = resources(pod.containers[0], "limits")
    params.setdefault("memory", str(int(amount(limits["memory"]))))
    params.setdefault("dashboard-agent-listen-port", "52365")
    params.setdefault("metrics-export-port", "8080")
    words = [*first, *(f"--{name}={value}" for name, value in sorted(params.items())), "--block"]
    return ["/bin/bash", "-c", "--", f"ulimit -n 65536; ray start {shlex.join(words)}"]


def submission(job: Manifest) -> list[str]:
    """The command that KubeRay gives to the submitter's container in K8sJobMode."""
    address = f"--address http://{SERVICE}:8265"
    return [
        *("bash", "-ce"),
        f"if ! ray job status {address} train-1 >/dev/null 2>&1; then "
        f"ray job submit {address} --no-wait --submission-id train-1 -- {job['spec']['entrypoint']}; fi; "
        f"ray job logs {address} --follow train-1",
    ]


def tiny(text: str) -> str:
    """The run configuration of the ConfigMap with TINY in it; no key may be new."""
    tree = yaml.safe_load(text)
    for section, settings in TINY.items():
        assert settings.keys() <= tree[section].keys()
        tree[section] |= settings
    return yaml.safe_dump(tree)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The laptop overlay's training, nothing started yet; ends with all that a test started."""
    if reason := missing():
        pytest.skip(reason)
    manifests = overlay("laptop")
    job = of_kind(manifests, "RayJob")[0]
    pods = {pod.role: pod for pod in pods_of([job])}
    assert {"head", "worker", "submitter"} == pods.keys()
    maps = {m["metadata"]["name"]: {k: tiny(v) for k, v in m["data"].items()} for m in of_kind(manifests, "ConfigMap")}
    hosts = {SERVICE: ADDRESSES[0], "train-head": ADDRESSES[0], "train-worker": ADDRESSES[1]}
    machine = Machine(tmp_path, hosts, maps)
    with two_networks() as networks:
        try:
            yield Cluster(job, pods, machine, networks, secrets.token_hex(16))
        finally:
            machine.end()


def test_the_training_of_the_laptop_overlay(cluster: Cluster, tmp_path: Path) -> None:
    head = cluster.start("train-head", "head", ray_start(cluster.pods["head"]), RAY_ADDRESS="127.0.0.1:6379")
    _wait_for_nodes(cluster, 1, head)
    worker = cluster.start("train-worker", "worker", ray_start(cluster.pods["worker"]), RAY_ADDRESS=f"{SERVICE}:6379")
    nodes = _wait_for_nodes(cluster, 2, head, worker)
    cpus = {node["node_ip"]: node["resources_total"].get("CPU", 0) for node in nodes}
    assert cpus == {ADDRESSES[0]: 0, ADDRESSES[1]: 2}

    submitter = cluster.start("submitter", "submitter", submission(cluster.job))
    assert submitter.wait(JOB_SECONDS) == 0, cluster.logs()

    jobs = {job["submission_id"]: job["status"] for job in cluster.ask("/api/jobs/")}
    assert jobs == {"train-1": "SUCCEEDED"}, cluster.logs()
    assert "run folder: /workspace/runs/demo" in cluster.machine.log("submitter").read_text()
    _assert_whole(tmp_path / "workspace" / "runs" / "demo")
    # The head trains nothing.
    assert _ranks(tmp_path / "train-head") == 0
    assert _ranks(tmp_path / "train-worker") == 2

    # A pod that must go takes its node along before its time is over, and the head goes on.
    assert worker.poll() is None
    cluster.machine.terminate(worker)
    worker.wait(cluster.pods["worker"].spec["terminationGracePeriodSeconds"])
    assert "Draining for up to 60" in cluster.machine.log("train-worker").read_text()
    assert [node["node_ip"] for node in _wait_for_nodes(cluster, 1, head)] == [ADDRESSES[0]]


def _wait_for_nodes(cluster: Cluster, count: int, *processes: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    end = time.monotonic() + CLUSTER_SECONDS
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        answer = cluster.ask("/api/v0/nodes?detail=1")
        nodes = answer["data"]["result"]["result"] if answer else []
        if len(alive := [node for node in nodes if node["state"] == "ALIVE"]) == count:
            return alive
        time.sleep(1)
    pytest.fail(f"fewer than {count} nodes are alive\n{cluster.logs()}")


def _ranks(pod: Path) -> int:
    """Ranks of the training that ran in a pod, by the logs in its /tmp."""
    return len(list(pod.glob("tmp/ray/session_2*/logs/train/ray-train-app-worker-*.log")))


def _assert_whole(folder: Path) -> None:
    for name in ("config.yaml", "bundle/manifest.json", "evaluation/test/report.html"):
        assert (folder / name).is_file()
    metrics = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text())
    predictions = (folder / "evaluation" / "test" / "predictions.jsonl").read_text().splitlines()
    assert metrics["num_rows"] == len(predictions) == 24
    if CHECK.is_file():
        answer = subprocess.run([sys.executable, str(CHECK), str(folder)], capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0, answer.stdout + answer.stderr
