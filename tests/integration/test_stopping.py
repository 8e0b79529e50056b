"""A run that gets SIGTERM or Ctrl-C ends at the end of its step, on all ranks, and goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.manifest import complete_checkpoints
from clsgen_dist.errors import Interrupted
from clsgen_dist.pipeline import run_launched
from clsgen_dist.progress import Event
from tests.support.ranks import RankPool
from tests.support.runs import assert_same_weights, compared_config, flow_on_rank, kept_weights, long_rows


def signalled_on_rank(config: RunConfig, number: int, rank: int, stage: tuple[str, int]) -> tuple[int, str]:
    """The whole flow on ranks, one of which gets a signal at a point of its way, where rank 0 hears of it.

    Returns:
        Exit code and message.
    """
    peers = Path(config.folder).parent / "pids"
    peers.mkdir(parents=True, exist_ok=True)
    (peers / os.environ["RANK"]).write_text(str(os.getpid()))

    def listen(event: Event) -> None:
        if (event.stage, event.done) == stage:
            os.kill(int((peers / str(rank)).read_text()), number)

    try:
        run_launched(config, listen)
    except Interrupted as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.mark.parametrize(("number", "rank"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)], ids=["TERM", "INT"])
def test_signal_in_a_step(two_ranks: RankPool, tmp_path: Path, number: int, rank: int) -> None:
    config = compared_config(tmp_path, "stopped", long_rows(24), **{"train.checkpoint_steps": None})
    told = two_ranks.run(signalled_on_rank, config, number, rank, ("train", 1), seconds=240.0)

    assert told[0] == told[1]
    assert told[0][0] == 128 + number
    (checkpoint,) = complete_checkpoints(RunFolder(config.folder).checkpoints)
    step = int(checkpoint.name.removeprefix("step_"))
    assert step < 3
    assert told[0][1] == f"after step {step}, its checkpoint is written; the same command goes on there"
    if number == signal.SIGTERM:
        return
    heard = two_ranks.run(flow_on_rank, config, seconds=240.0)[0]
    assert [done for stage, done in heard if stage == "train"] == list(range(step + 1, 4))
    whole = compared_config(tmp_path, "whole", long_rows(24), **{"train.checkpoint_steps": None})
    two_ranks.run(flow_on_rank, whole, seconds=240.0)
    assert_same_weights(kept_weights(config), kept_weights(whole), atol=0)
    assert json.loads(RunFolder(config.folder).tracking.read_text())["run_id"]
