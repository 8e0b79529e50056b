"""A comparison as people start it: arms of every kind on a tiny backbone, stopped, gone on, and one that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from clsgen_dist.config.run import dump_config
from clsgen_dist.config.source import dump_tree
from tests.support.runs import split_files
from tests.support.tiny import ROOT, tiny_backbone, tiny_config, tiny_rows

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ENVIRONMENT = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ARMS = [
    {"name": "zero_shot_label_tokens", "kind": "zero_shot_label_tokens"},
    {"name": "zero_shot_verbalised", "kind": "zero_shot_verbalised"},
    {"name": "bag_of_words", "kind": "bag_of_words"},
    {"name": "joint"},
    {"name": "broken", "overrides": {"model.lora.target_modules": ["no_such_layer"]}},
    {"name": "joint_conditioned", "kind": "conditioned", "of": "joint"},
]


def comparison_file(folder: Path) -> Path:
    base = tiny_config(
        folder,
        **{
            "model.name_or_path": tiny_backbone(folder / "backbone"),
            **split_files(folder, tiny_rows(48)),
            "calibrate.method": "temperature",
            "train.checkpoint_steps": 1,
            "evaluate.max_explained_rows": 4,
            "verbalize.max_tokens": 8,
            "verbalize.prompt": "direct",
            "tracking.uri": None,
        },
    )
    (folder / "run.yaml").write_text(dump_config(base), encoding="utf-8")
    path = folder / "compare.yaml"
    tree: dict[str, Any] = {"name": "cmp", "base": str(folder / "run.yaml"), "seeds": 1, "arms": ARMS}
    path.write_text(dump_tree(tree), encoding="utf-8")
    return path


def launched(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "launchers" / "compare.py"), "--config", str(path)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def told_until(process: subprocess.Popen[str], words: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return lines
    pytest.fail(f"never said {words!r}: {''.join(lines)}")


def ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)  # nobody may be there to bury it
    except psutil.NoSuchProcess:
        return True


@pytest.mark.timeout(900)
def test_a_comparison_is_stopped_goes_on_and_outlives_an_arm_that_fails(tmp_path: Path) -> None:
    import mlflow

    path, folder = comparison_file(tmp_path), tmp_path / "runs" / "cmp"

    first = launched(path)
    told_until(first, "zero_shot_verbalised-1  ")
    children = [child.pid for child in psutil.Process(first.pid).children(recursive=True)]
    os.kill(first.pid, signal.SIGTERM)  # as a cluster does, to this process alone
    first.communicate(timeout=120)
    assert first.returncode == 130
    deadline = time.monotonic() + 30
    while not all(ended(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert children
    assert all(ended(pid) for pid in children), "its job ends with it"
    finished = folder / "zero_shot_label_tokens-1" / "evaluation" / "test" / "metrics.json"
    written = finished.stat().st_mtime_ns
    begun = json.loads((folder / "compare" / "comparison.json").read_text(encoding="utf-8"))
    assert "joint-1" in begun["missing"], "what was finished is compared already"

    second = launched(path)
    stdout, stderr = second.communicate(timeout=700)

    assert second.returncode == 1, stderr
    assert finished.stat().st_mtime_ns == written, "not run again"
    assert "5 runs, 1 of them finished before" in stderr
    assert "broken-1 failed, the others go on: model.lora.target_modules: ['no_such_layer'] matches no module" in stderr
    content = json.loads((folder / "compare" / "comparison.json").read_text(encoding="utf-8"))
    assert list(content["failed"]) == ["broken-1"]
    rows = {row["name"]: row["numbers"] for row in content["rows"]}
    for name in ("zero_shot_label_tokens", "zero_shot_verbalised_raw", "zero_shot_verbalised", "bag_of_words", "joint"):
        assert 0 <= rows[name]["auroc"]["mean"] <= 1
        low, high = rows[name]["auroc"]["ci"]
        assert low <= high
    assert rows["bag_of_words"]["auroc"]["mean"] > 0.9
    assert rows["joint_conditioned"]["auroc"]["mean"] == rows["joint"]["auroc"]["mean"]
    assert rows["joint"]["train_minutes"]["mean"] > 0
    assert rows["zero_shot_label_tokens"]["train_minutes"] is None
    pairs = {(found["first"], found["second"]) for found in content["differences"]}
    assert ("joint", "bag_of_words") in pairs
    assert "cannot tell:" in stdout or "holds:" in stdout
    for name in ("table.md", "comparison.png", "comparison.html"):
        assert (folder / "compare" / name).is_file()
    for name in ("bag_of_words-1", "zero_shot_verbalised-1", "zero_shot_label_tokens-1", "joint-1"):
        metrics = json.loads((folder / name / "evaluation" / "test" / "metrics.json").read_text(encoding="utf-8"))
        assert {"auroc_ci", "f1_ci", "nll_ci", "ece_ci"} <= metrics["calibrated"].keys()
        assert metrics["num_rows"] == 24

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'clsgen_dist'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("cmp")
    assert parent.info.status == "FAILED"
    assert "joint/auroc" in parent.data.metrics
    assert {"joint-1", "bag_of_words-1", "zero_shot_label_tokens-1", "zero_shot_verbalised-1"} == runs.keys()
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
