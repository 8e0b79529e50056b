"""Running launchers/explain.py, and what holds of every explained set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, dump_config
from clsgen_dist.data.store import stored_rows
from clsgen_dist.records import EXPLAINED_SPLITS
from tests.support.tiny import ROOT, tiny_config

#: Key of the endpoint, in TEACHER_KEY.
KEY = "sk-very-secret-0123456789"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "RAY_AUTH_MODE": "disabled",
    "DS_ACCELERATOR": "cpu",
    "TEACHER_KEY": KEY,
}


def written_config(folder: Path, **settings: Any) -> RunConfig:
    """A `tiny_config`, which stands in `run.yaml` for the launcher."""
    config = tiny_config(folder, **settings)
    (folder / "run.yaml").write_text(dump_config(config), encoding="utf-8")
    return config


def command(folder: Path, *words: str) -> list[str]:
    """The launcher's command line for the `run.yaml` of a folder, with overrides."""
    return [sys.executable, str(ROOT / "launchers" / "explain.py"), "--config", str(folder / "run.yaml"), *words]


def explain(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the launcher to its end."""
    return subprocess.run(
        command(folder, *words), env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=300, check=False
    )


def check_nothing_lost(folder: RunFolder) -> None:
    """Every labelled row came out, once and in its place."""
    for split in EXPLAINED_SPLITS:
        rows_in, rows_out = list(stored_rows(folder.labelled(split))), list(stored_rows(folder.rows(split)))
        assert [(r.id, r.text, r.label) for r in rows_out] == [(r.id, r.text, r.label) for r in rows_in]
