"""The benchmark for one GPU, tried with a toy, on a machine as bare as those that lend GPUs by the hour."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import LLAMA_8B, TOY, jobs, judged, operations_a_step, table

ROOT = Path(__file__).parents[2]

#: Refuses what such a machine lacks, then runs the script as a user would.
BARE = """
import runpy, sys
sys.modules |= dict.fromkeys(("deepspeed", "datasets", "mlflow", "ray", "trl"))
sys.argv = ["gpu.py", "--tiny", "--out", sys.argv[1], "--only", "ours"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def test_a_toy_goes_through_without_deepspeed_ray_mlflow_and_datasets(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", BARE, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(written["results"]) == [name for name in jobs(tiny=True) if "ours" in name]
    for name, one in written["results"].items():
        longest = "longest" in name
        assert one["length"] == (512 if longest else int(name.split()[1]))
        assert one["policy"] == ("full" if longest else "none")
        assert len(one["seconds"]) == (1 if longest else 2)
        assert one["failed"] is None
    assert (tmp_path / "gpu.md").read_text(encoding="utf-8").count("| ours") == len(written["results"])


def test_operations_are_those_counted_by_hand() -> None:
    """Width 64, 16 channels a head, 2 key heads, 192 inner channels, 2 layers, rank 16."""
    linear = 64 * 64 + 64 * 32 + 64 * 32 + 64 * 64 + 3 * 64 * 192
    adapters = 16 * (128 + 96 + 96 + 128 + 3 * 256)
    attention = 128 / 2 * 64 * 2 * 6  # half of 128 tokens, 64 channels, a product and a sum, two products three times
    expected = 256 * 2 * (4 * linear + 6 * adapters + attention) + 64 * 64 * 512 * 4
    assert operations_a_step(TOY, 256, 128, 64) == expected


def test_the_eight_billion_have_as_many_operations_as_weights_say() -> None:
    """Of 8.03e9 weights 1.05e9 stand in embeddings and output layer."""
    found = operations_a_step(LLAMA_8B, 1, 1, 0)
    assert found == pytest.approx(4 * 6.98e9 + 6 * 41.9e6, rel=1e-3)


def test_a_side_that_failed_says_so_in_its_row() -> None:
    job = jobs(tiny=True)["ours, longest row"]
    good = {"seconds": [2.0, 1.0, 4.0], "tokens": 256, "length": 128, "scored": 64, "policy": "full"}
    good |= {"peak_bytes": 3 * 2**30, "failed": 256}
    found = {
        "ours": judged(job, good, operations_a_step(TOY, 256, 128, 64)),
        "trl": judged(job, {"seconds": [], "error": "no memory"}, 1.0),
        "plain": judged(job, {"seconds": [], "failed": 128}, 1.0),
    }
    assert table(found).splitlines()[2:] == [
        "| ours | 128 | 2 | full | 128 | 50.0 % | 3.0 | 256 |",
        "| trl | | | | | | | no memory |",
        "| plain | | | | | | | 128 |",
    ]
