"""What the benchmark of growth makes of what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling import SHAPE, rows_of_file, table

ROOT = Path(__file__).parents[2]


def test_memory_is_that_of_the_process_not_of_its_parent() -> None:
    """A parent with 600 MB starts a child with little."""
    program = (
        "import subprocess, sys\n"
        "held = b'x' * 600_000_000\n"
        "own = 'from benchmarks.scaling import status_mib; print(status_mib(\"VmHWM\"))'\n"
        "from benchmarks.scaling import status_mib\n"
        "print(status_mib('VmHWM'), subprocess.check_output([sys.executable, '-c', own], text=True))"
    )
    parent, child = map(float, subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).split())
    assert parent > 570 > 100 > child


def test_pages_of_mapped_files_are_not_a_process_s_own(tmp_path: Path) -> None:
    """300 MB that were held for a moment count, 400 MB of a mapped file do not."""
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(400_000_000)
    program = (
        "import mmap, sys, time\n"
        "from benchmarks.scaling import OwnMemory, status_mib\n"
        "own = OwnMemory()\n"
        "own.start()\n"
        "held = b'x' * 300_000_000\n"
        "time.sleep(1)\n"
        "del held\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "touched = sum(mapped[place] for place in range(0, len(mapped), 4096))\n"
        "time.sleep(1)\n"
        "own.end()\n"
        "print(own.peak_mib, status_mib('VmHWM'))"
    )
    found = subprocess.check_output([sys.executable, "-c", program, str(large)], cwd=ROOT, text=True)
    own, every = map(float, found.split())
    assert 280 < own < 350
    assert every > 380


def test_rows_are_all_different() -> None:
    rows = [json.loads(line) for line in rows_of_file(300)]
    assert len({row["text"] for row in rows}) == 300
    assert {row["label"] for row in rows} == {0, 1}
    assert all(300 < len(row["text"]) < 500 for row in rows)


def test_growth_is_over_the_first() -> None:
    prepare = {"prepare_own_mib": 400.4, "prepare_peak_mib": 500.4, "prepare_cpu_seconds": 7}
    load = {"load_own_mib": 200, "load_peak_mib": 300, "load_cpu_seconds": 2}
    by_rows = {"1000": prepare | load, "100000": prepare | {"prepare_own_mib": 430} | load | {"load_peak_mib": 310}}
    by_length = {
        "256": {"cpu_milliseconds_per_token": 0.4, "megaoperations_per_token": 100.0},
        "8192": {"cpu_milliseconds_per_token": 1.0, "megaoperations_per_token": 200.0},
    }
    found = table(by_rows, by_length).splitlines()
    assert "| 100,000 | 430 | 500 | 7 | 200 | 310 | 2 |" in found
    assert found[-1] == "| 8,192 | 1.000 | 2.50 | 2.00 |"


def test_attention_weighs_as_much_as_all_else_at_the_longest() -> None:
    from benchmarks.gpu import operations_a_step

    all_of_it, without = (operations_a_step(SHAPE, 8192, length, 256) for length in (8192, 0))
    assert all_of_it / without == pytest.approx(2.0, rel=0.25)
