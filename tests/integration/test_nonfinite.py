"""A loss or gradient that is no number ends the run before the update, on all ranks, and says where."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import clsgen_dist.accelerator  # noqa: F401 - before deepspeed, which looks for GPUs
from clsgen_dist import worker
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.plan import plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.deepspeed import Engine, StepReport
from clsgen_dist.errors import NumericsError
from tests.support.ranks import RankPool
from tests.support.runs import (
    Recorder,
    assert_same_weights,
    compared_config,
    kept_weights,
    long_rows,
    partitioning_zero,
    train_on_rank,
)
from tests.support.tiny import tiny_backbone, tiny_tokenizer

#: A letter whose second byte stands in no other word.
RARE = "\N{LATIN SMALL LETTER SHARP S}"
POISONED = 17


def failed_on_rank(config: RunConfig, poison_gradient_of_step: int | None = None) -> dict[str, Any]:
    """Trains until the run is refused.

    Returns:
        The message, steps that were applied, and by how much the weights moved since the last of them (on rank 0).
    """
    applied: list[dict[str, torch.Tensor]] = []
    moved: dict[str, float] = {}

    class Watched(Engine):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            applied.append(self.trainable_state())

        def backward(self, loss: torch.Tensor, *, last: bool) -> None:
            if poison_gradient_of_step == len(applied) and torch.distributed.get_rank() == 1:
                loss.register_hook(lambda gradient: gradient * math.inf)
            super().backward(loss, last=last)

        def step(self, factors: Any) -> StepReport:
            report = super().step(factors)
            if report.applied and math.isfinite(report.grad_norm):
                applied.append(self.trainable_state())
            return report

        def close(self) -> None:
            for name, weight in self.trainable_state().items():
                moved[name] = float((weight - applied[-1][name]).abs().max())
            super().close()

    worker.Engine = Watched  # type: ignore[misc]
    try:
        train_on_rank(config)
        message = None
    except NumericsError as error:
        message = str(error)
    finally:
        worker.Engine = Engine  # type: ignore[misc]
    return {"message": message, "num_applied": len(applied) - 1, "moved": moved}


def place_of(config: RunConfig, row: int) -> tuple[int, int]:
    """Step, counted from 1, and rank that meet a row of the training split first."""
    split = TokenizedSplit(RunFolder(config.folder).tokens("train"))
    for step in range(100):
        rows = rows_of_step(config.run.seed, step, len(split), config.train.global_batch)
        if row in rows:
            plan = plan_step(rows, split.lengths, world_size=2, token_budget=config.train.token_budget)
            return step + 1, next(n for n, micros in enumerate(plan) if any(row in members for members in micros))
    raise AssertionError


@pytest.mark.parametrize("value", [math.inf, math.nan], ids=["inf", "nan"])
def test_loss_that_is_not_finite(two_ranks: RankPool, tmp_path: Path, value: float) -> None:
    """One row has a token whose embedding is broken: it alone is named, with its step and rank."""
    base = Path(tiny_backbone(tmp_path / "base"))
    token = tiny_tokenizer()(RARE, add_special_tokens=False)["input_ids"][-1]
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = value
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    rows = long_rows(24)
    rows[POISONED]["text"] += RARE
    config = compared_config(
        tmp_path, "broken", rows, **{"model.name_or_path": str(base), "train.token_budget": 80, "run.seed": 2}
    )

    found = two_ranks.run(failed_on_rank, config)

    step, rank = place_of(config, POISONED)
    assert step > 1
    assert found[0]["message"] == found[1]["message"]
    expected = (
        f"step {step}: the loss is not a finite number (rows at rank {rank}: long-{POISONED}); the weights were not"
    )
    assert found[0]["message"].startswith(expected)
    assert [answer["num_applied"] for answer in found] == [step - 1] * 2
    assert set(found[0]["moved"].values()) == {0.0}
    assert not RunFolder(config.folder).bundle.exists()
    assert not list(RunFolder(config.folder).path.glob("**/*.partial"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [3, 2])
def test_gradient_that_is_not_finite(two_ranks: RankPool, tmp_path: Path, stage: int, precision: str) -> None:
    """The loss is fine, the gradient of rank 1 overflows: no rank updates, all rows of the step are named."""
    overrides = {"train.deepspeed": partitioning_zero(tmp_path, stage), "train.precision": precision}
    config = compared_config(tmp_path, "overflow", long_rows(24), **overrides)

    found = two_ranks.run(failed_on_rank, config, 2)

    rows = rows_of_step(config.run.seed, 1, 24, config.train.global_batch)
    assert found[0]["message"] == found[1]["message"]
    assert found[0]["message"].startswith("step 2: the gradient is not a finite number (rows at rank 0: long-")
    assert all(f"long-{row}" in found[0]["message"] for row in rows)
    assert [answer["num_applied"] for answer in found] == [1, 1]
    assert set(found[0]["moved"].values()) == {0.0}


def skipped_on_rank(config: RunConfig, poison: str, stop_at: int | None = None) -> Recorder:
    """Trains with the loss, or the gradient alone, of step 2 broken on rank 1."""
    num_steps = [0]

    class Broken(Engine):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            output = super().forward(*inputs, **options)
            if poison == "loss" and self.breaks:
                return output._replace(cls_logits_EK=output.cls_logits_EK * math.nan)
            return output

        def backward(self, loss: torch.Tensor, *, last: bool) -> None:
            if poison == "gradient" and self.breaks:
                loss.register_hook(lambda gradient: gradient * math.inf)
            super().backward(loss, last=last)
            num_steps[0] += last

        @property
        def breaks(self) -> bool:
            return num_steps[0] == 1 and self.module.training and torch.distributed.get_rank() == 1

    worker.Engine = Broken  # type: ignore[misc]
    try:
        return train_on_rank(config, stop_at)
    finally:
        worker.Engine = Engine  # type: ignore[misc]


@pytest.mark.parametrize("stage", [3, 2])
def test_skipped_step(two_ranks: RankPool, tmp_path: Path, stage: int) -> None:
    """A step whose loss is broken and one whose gradient is leave the same weights: what was added is forgotten."""
    settings = {
        "train.deepspeed": partitioning_zero(tmp_path, stage),
        "train.on_nonfinite": "skip",
        "train.max_skipped_steps": 1,
        "train.token_budget": 80,
        "train.checkpoint_steps": 1,
        "train.dry_batch": False,  # steps are counted by their backward passes
    }
    weights = {}
    for poison in ("loss", "gradient"):
        config = compared_config(tmp_path, poison, long_rows(24), **settings)
        steps = two_ranks.run(skipped_on_rank, config, poison)[0].steps
        assert [step for step in steps if steps[step]["skipped"]] == [2]
        assert steps[2]["skipped"].startswith(f"step 2: the {poison} is not a finite number (rows at rank ")
        assert steps.keys() == {1, 2, 3}
        weights[poison] = kept_weights(config)
    assert_same_weights(weights["loss"], weights["gradient"], atol=0)


def test_resumed_run_has_no_more_skips_than_it_had(two_ranks: RankPool, tmp_path: Path) -> None:
    settings = {"train.on_nonfinite": "skip", "train.max_skipped_steps": 1, "train.checkpoint_steps": 1}
    settings["train.dry_batch"] = False
    config = compared_config(tmp_path, "twice", long_rows(40), **settings)
    assert two_ranks.run(skipped_on_rank, config, "loss", 4)[0].steps[2]["skipped"]

    told = two_ranks.run(refused_again_on_rank, config)

    assert told[0] == told[1]
    assert told[0].startswith("step 5: the loss is not a finite number")


def refused_again_on_rank(config: RunConfig) -> str:
    try:
        skipped_on_rank(config, "loss")
    except NumericsError as error:
        return str(error)
    return "went through"
