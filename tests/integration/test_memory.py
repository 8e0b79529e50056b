"""Memory that does not suffice for the longest micro-batch is found before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import current_ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.errors import ConfigError
from tests.support.ranks import RankPool
from tests.support.runs import (
    Recorder,
    assert_same_weights,
    compared_config,
    kept_weights,
    long_rows,
    train_on_rank,
)

#: Places of a micro-batch for which a rank of these tests has memory.
_ROOM = 160


def cramped(config: RunConfig, rank: int) -> tuple[str | None, list[int]]:
    """Trains where one rank has no memory for more than `_ROOM` places; returns the error and the steps taken."""
    forward, recorder = Engine.forward, Recorder()

    def limited(engine: Engine, input_ids: torch.Tensor, *inputs: Any, **options: Any) -> Any:
        if current_ranks().rank == rank and input_ids.numel() > _ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(engine, input_ids, *inputs, **options)

    Engine.forward = limited  # type: ignore[method-assign]
    try:
        recorder = train_on_rank(config)
    except ConfigError as error:
        return str(error), sorted(recorder.steps)
    finally:
        Engine.forward = forward  # type: ignore[method-assign]
    return None, sorted(recorder.steps)


def test_the_longest_micro_batch_is_tried_first(one_rank: RankPool, tmp_path: Path) -> None:
    config = compared_config(tmp_path, "cramped", long_rows(22), **{"train.token_budget": 300, "train.dry_batch": True})
    longest = None

    told, steps = one_rank.run(cramped, config, 0)[0]

    longest = int(TokenizedSplit(RunFolder(config.folder).tokens("train")).lengths.max())
    assert longest < 150
    assert steps == []
    assert told is not None
    assert told.startswith(
        "train.token_budget is 300: rank 0 has not enough memory for the longest micro-batch. 150 fits"
    )
    assert "model.gradient_checkpointing: full" in told
    assert not list(RunFolder(config.folder).checkpoints.glob("step_*"))


def test_it_changes_nothing(two_ranks: RankPool, tmp_path: Path) -> None:
    """Weights, moments, what dropout draws: a run that tried it first is the run that did not."""
    dropout = {"model.lora": {"rank": 4, "alpha": 8.0, "dropout": 0.2}, "train.epochs": 1}
    tried = compared_config(tmp_path, "tried", long_rows(22), **dropout, **{"train.dry_batch": True})
    plain = compared_config(tmp_path, "plain", long_rows(22), **dropout, **{"train.dry_batch": False})
    one, other = (two_ranks.run(train_on_rank, config)[0] for config in (tried, plain))
    assert one.steps.keys() == other.steps.keys()
    for step, numbers in one.steps.items():
        for name in ("loss", "grad_norm"):
            assert numbers[name] == other.steps[step][name], f"{name} of step {step}"
    assert_same_weights(kept_weights(tried), kept_weights(plain), atol=0)
