"""A rank under the deepspeed launcher gets kill -9, and the same command is given again."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import psutil
import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import dump_config
from tests.support.ranks import RankPool, free_port
from tests.support.runs import assert_same_weights, bundle_weights, compared_config, train_on_rank
from tests.support.tiny import tiny_rows
from tests.support.watching import Watched, last_step, watched

pytestmark = pytest.mark.slow

NUM_STEPS = 30


def test_a_rank_is_killed_and_the_same_command_goes_on(two_ranks: RankPool, tmp_path: Path) -> None:
    settings = {"train.epochs": 3, "train.checkpoint_steps": 2, "evaluate.max_explained_rows": 1}
    config, whole = (
        compared_config(tmp_path, name, tiny_rows(80), **settings, **{"run.output_dir": str(tmp_path / name)})
        for name in ("killed", "whole")
    )
    two_ranks.run(train_on_rank, whole)
    path, log = tmp_path / "run.yaml", tmp_path / "log"
    path.write_text(dump_config(config), encoding="utf-8")
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }

    def command() -> list[str]:
        launcher = [str(bin_folder / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port())]
        return [*launcher, "launchers/train.py", "--config", str(path)]

    step = random.randint(3, 15)
    first = watched(command(), environment, log)
    try:
        first.until(lambda: last_step(config) >= step, log)
        random.choice(_ranks(first)).kill()
        code = first.ended()
    finally:
        first.end()
    reached = last_step(config)
    assert code != 0
    assert not RunFolder(config.folder).bundle.exists(), "it was killed too late to tell anything"
    run_id = json.loads(RunFolder(config.folder).tracking.read_text())["run_id"]

    assert watched(command(), environment, log).ended() == 0, log.read_text(errors="replace")[-3000:]

    assert reached < NUM_STEPS == last_step(config)
    assert json.loads(RunFolder(config.folder).tracking.read_text())["run_id"] == run_id
    one, other = bundle_weights(whole), bundle_weights(config)
    assert one
    assert_same_weights(one, other, atol=0)


def _ranks(launched: Watched) -> list[psutil.Process]:
    """The launcher's own processes name the script too, further on."""
    return [one for one in launched.look() if one.is_running() and "launchers/train.py" in one.cmdline()[:3]]
