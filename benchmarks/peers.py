"""The environment of the peers: its own packages, and behind them those of this project, torch above all."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"


def make_environment(place: Path) -> Path:
    """Makes the environment, once for each state of benchmarks/requirements.txt; returns its python."""
    python, mark = place / "bin" / "python", place / "installed.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
    (library,) = place.glob("lib/python*/site-packages")
    (library / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), "-r", str(REQUIREMENTS)], check=True)
    mark.write_text(wanted, encoding="utf-8")
    return python


def environment_of_sides(threads: int) -> dict[str, str]:
    """What every side is started with: the same threads, no network, no GPU unless torch finds one."""
    added = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(ROOT),
    }
    return os.environ | added
