"""Two processes never write into one run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clsgen_dist.claim import claimed
from clsgen_dist.errors import ConfigError
from clsgen_dist.explain.stage import explain_run
from clsgen_dist.pipeline import run_with_ray
from clsgen_dist.progress import silent
from tests.support.tiny import tiny_config

HOLDER = """
import sys, time
from pathlib import Path
from clsgen_dist.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"one: process {holder.pid} on .* is at work there; wait until"):
            claimed(folder).__enter__()
        with claimed(folder.with_name("two")):
            pass
        holder.send_signal(signal.SIGKILL)
    with claimed(folder):  # kill -9 leaves the file of the claim behind, and nobody who holds it
        assert (tmp_path / "runs" / ".one.lock").read_text(encoding="utf-8").startswith(f"process {os.getpid()} on ")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wrong"), claimed(tmp_path / "a" / "b" / "run"):
        raise ConfigError("wrong")
    assert not any(tmp_path.iterdir())
    with claimed(tmp_path / "a" / "run"):
        (tmp_path / "a" / "run").mkdir()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"one: nothing can be written there \(.*\); see run\.output_dir"):
        claimed(tmp_path / "runs" / "one").__enter__()


def test_whoever_explains_or_trains_claims_the_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with claimed(config.folder):
        for stage in (explain_run, run_with_ray):
            with pytest.raises(ConfigError, match="is at work there"):
                stage(config, silent)
    assert not config.folder.exists()
