"""What the flow does where a group of workers is not sound: one of them hangs, or they do not share a storage."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.batch import Batch
from clsgen_dist.data.plan import MicroBatch
from clsgen_dist.engine.manifest import complete_checkpoints
from clsgen_dist.errors import ConfigError
from clsgen_dist.pipeline import run_launched
from clsgen_dist.progress import Event, silent
from clsgen_dist.train.loader import Loader
from tests.support.ranks import RankPool, RanksFailed
from tests.support.runs import assert_same_weights, compared_config, flow_on_rank, kept_weights, long_rows


def stop_on_rank(config: RunConfig, told: Path) -> None:
    """The whole flow; after step 2 rank 0 stops rank 1, as a process that hangs does. Rank 0's words go to a file."""
    rank = os.environ["RANK"]
    (told / f"pid-{rank}").write_text(str(os.getpid()))
    if rank == "0":
        os.dup2(os.open(told / "stderr", os.O_WRONLY | os.O_CREAT, 0o600), 2)

    def listen(event: Event) -> None:
        if (event.stage, event.done) == ("train", 2):
            os.kill(int((told / "pid-1").read_text()), signal.SIGSTOP)

    run_launched(config, listen)


def test_a_worker_that_hangs_is_named_and_the_same_command_goes_on(two_ranks: RankPool, tmp_path: Path) -> None:
    settings = {"train.checkpoint_steps": 1, "train.hang_seconds": 4}
    whole = compared_config(tmp_path, "whole", long_rows(24), **settings)
    two_ranks.run(flow_on_rank, whole, seconds=240.0)
    hung = compared_config(tmp_path, "hung", long_rows(24), **settings)
    ranks = RankPool(2)
    try:
        with pytest.raises(RanksFailed, match="rank 0 ended without a word"):
            ranks.run(stop_on_rank, hung, tmp_path, seconds=240.0)
    finally:
        ranks.close(broken=True)

    process = int((tmp_path / "pid-1").read_text())
    assert f"rank 1 (process {process} on " in (tmp_path / "stderr").read_text()
    assert not Path(f"/proc/{process}").exists(), "it would keep its memory"
    assert complete_checkpoints(RunFolder(hung.folder).checkpoints)
    two_ranks.run(flow_on_rank, hung, seconds=240.0)
    assert_same_weights(kept_weights(hung), kept_weights(whole), atol=0)


def slow_on_rank(config: RunConfig, told: Path) -> None:
    """The whole flow; rank 1 lives and takes long over its fourth micro-batch. Rank 0's words go to a file."""
    rank, laid_out, num_laid_out = os.environ["RANK"], Loader._laid_out, 0
    before = os.dup(2)

    def slowly(self: Loader, members: MicroBatch) -> Batch:
        nonlocal num_laid_out
        num_laid_out += 1
        if rank == "1" and num_laid_out == 4:
            time.sleep(6)
        return laid_out(self, members)

    Loader._laid_out = slowly  # type: ignore[method-assign]
    if rank == "0":
        os.dup2(os.open(told / "stderr", os.O_WRONLY | os.O_CREAT, 0o600), 2)
    try:
        run_launched(config, silent)
    finally:
        Loader._laid_out = laid_out  # type: ignore[method-assign]
        os.dup2(before, 2)


def test_a_worker_that_lives_and_does_not_get_on_is_named(two_ranks: RankPool, tmp_path: Path) -> None:
    config = compared_config(tmp_path, "slow", long_rows(24), **{"train.hang_seconds": 4, "train.stall_seconds": 3})
    two_ranks.run(slow_on_rank, config, tmp_path, seconds=240.0)
    told = re.findall(
        r"for 3 s \(train.stall_seconds\): rank 1 \(process \d+ on \S+\) has begun (\d+), others (\d+) and wait for it",
        (tmp_path / "stderr").read_text(),
    )
    # Counted since the processes began, which earlier tests had too; on a busy machine other steps stand still as well.
    assert [int(others) - int(behind) for behind, others in told].count(1) >= 1, (tmp_path / "stderr").read_text()
    assert RunFolder(config.folder).bundle.exists(), "nothing was ended"


def apart_on_rank(config: RunConfig) -> str:
    """The whole flow, where rank 1 has a folder of its own under the name of the shared one."""
    if os.environ["RANK"] == "1":
        apart = Path(config.run.output_dir) / "elsewhere"
        apart.mkdir(parents=True, exist_ok=True)
        config = config.model_copy(update={"run": config.run.model_copy(update={"output_dir": str(apart)})})
    try:
        run_launched(config, silent)
    except ConfigError as error:
        return str(error)
    return "went through"


def test_storage_that_workers_do_not_share_is_refused(two_ranks: RankPool, tmp_path: Path) -> None:
    config = compared_config(tmp_path, "apart", long_rows(24))
    told = two_ranks.run(apart_on_rank, config, seconds=120.0)
    for words in told:
        assert "is not one folder that all nodes see" in words
        assert "does not see what rank 1 wrote; rank 1 on" in words
    assert not config.folder.exists(), "nothing heavy was begun"
