"""An example of the paper's benchmarks from its files to its metrics, as a person starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.benchmarks import write_clinifact
from tests.support.tiny import ROOT, shared_backbone

pytestmark = pytest.mark.slow

#: Few steps, with a tiny backbone; the rest is the example's.
SMALL = [
    *("--train.max_steps", "3", "--train.eval_steps", "3", "--train.precision", "fp32"),
    *("--evaluate.max_explained_rows", "4", "--evaluate.num_bootstrap", "100", "--evaluate.max_language_rows", "4"),
    *("--predict.max_new_tokens", "12"),
]


def test_clinifact_runs_from_its_files_to_its_metrics(tmp_path: Path) -> None:
    write_clinifact(tmp_path, {"train": 160, "validation": 16, "test": 30})
    (tmp_path / "ds_configs").symlink_to(ROOT / "ds_configs")
    config = str(ROOT / "examples" / "clinifact_gemma3_270m.yaml")
    words = ["--config", config, "--model.name_or_path", shared_backbone(), *SMALL]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launchers" / "train.py"), *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "clinifact-gemma3-270m"
    metrics = json.loads((folder / "evaluation" / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["num_rows"], metrics["labels"]) == (30, ["FALSE", "TRUE"])
    assert metrics["num_groups"] < 30, "intervals keep trials whole"
    assert json.loads((folder / "explained" / "manifest.json").read_text(encoding="utf-8"))["teacher"] == "evidence"
