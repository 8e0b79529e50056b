"""The same training, however it is dealt: over micro-batches, over ranks, over ZeRO stages, or in plain PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.plan import StepPlan, plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.model.build import build_model
from tests.support.ranks import RankPool
from tests.support.runs import (
    assert_same_weights,
    compared_config,
    kept_weights,
    long_rows,
    losses,
    partitioning_zero,
    train_on_rank,
)
from tests.support.tiny import tiny_rows

LORA = {"rank": 4, "alpha": 8.0}
KINDS = pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
NUM_STEPS = 5

#: Budgets of a micro-batch, tokens: all of a step's rows, or one of `long_rows`.
WHOLE, SINGLE = 4096, 80


def plans(config: RunConfig, world_size: int) -> list[StepPlan]:
    """What each step of a run deals to each rank."""
    split = TokenizedSplit(RunFolder(config.folder).tokens("train"))
    train = config.train
    return [
        plan_step(
            rows_of_step(config.run.seed, step, len(split), train.global_batch),
            split.lengths,
            world_size=world_size,
            token_budget=train.token_budget,
        )
        for step in range(NUM_STEPS)
    ]


def settings(lora: Any, **others: Any) -> dict[str, Any]:
    return {"model.lora": lora, "train.epochs": 3, "train.max_steps": NUM_STEPS, **others}


@KINDS
def test_micro_batches_and_ranks_do_not_change_training(
    one_rank: RankPool, two_ranks: RankPool, tmp_path: Path, lora: Any
) -> None:
    """Three steps an epoch, the third a short one, unequal rows: 1 x 1 x 8 rows = 1 x 8 x 1 = 2 x 1 x 4 = 2 x 4 x 1."""
    rows = long_rows(22)

    def config(name: str, token_budget: int) -> RunConfig:
        return compared_config(tmp_path, name, rows, **settings(lora, **{"train.token_budget": token_budget}))

    runs = {
        "one": (one_rank, config("one", WHOLE)),
        "one_accumulating": (one_rank, config("one_accumulating", SINGLE)),
        "two": (two_ranks, config("two", WHOLE)),
        "two_accumulating": (two_ranks, config("two_accumulating", SINGLE)),
    }
    recorders = {name: pool.run(train_on_rank, one)[0] for name, (pool, one) in runs.items()}

    shapes = {name: [[len(m) for m in rank] for rank in plans(runs[name][1], 1 + (name[0] == "t"))[0]] for name in runs}
    assert shapes["one"] == [[8]]
    assert shapes["one_accumulating"] == [[1] * 8]
    assert shapes["two"] == [[4], [4]]
    assert shapes["two_accumulating"] == [[1] * 4] * 2
    expected, weights = recorders["one"], kept_weights(runs["one"][1])
    assert len(expected.steps) == NUM_STEPS
    for name, (_, other) in runs.items():
        for part in ("loss", "loss_cls", "loss_gen", "grad_norm"):
            torch.testing.assert_close(losses(recorders[name], part), losses(expected, part), atol=1e-5, rtol=1e-5)
        assert_same_weights(kept_weights(other), weights)


def test_general_text_is_dealt_to_ranks_without_a_trace(
    one_rank: RankPool, two_ranks: RankPool, tmp_path: Path
) -> None:
    """Three passages a step, which the base model wrote by itself: one rank has them all, or two ranks share them."""
    rows = long_rows(22)
    others = {"objective.general_weight": 0.5, "objective.general_passages": 3, "objective.general_tokens": 24}
    alone = compared_config(tmp_path, "alone", rows, **settings(LORA, **others))
    shared = compared_config(tmp_path, "shared", rows, **settings(LORA, **others, **{"train.token_budget": SINGLE}))

    expected = one_rank.run(train_on_rank, alone)[0]
    recorder = two_ranks.run(train_on_rank, shared)[0]

    assert losses(expected, "general_kl")[-1] > 0
    for part in ("loss", "general_kl", "grad_norm"):
        torch.testing.assert_close(losses(recorder, part), losses(expected, part), atol=1e-5, rtol=1e-5)
    assert_same_weights(kept_weights(shared), kept_weights(alone))


@KINDS
def test_rank_without_explanations_or_rows(one_rank: RankPool, two_ranks: RankPool, tmp_path: Path, lora: Any) -> None:
    """Two rows a step: one rank gets the explanation and the other none; with one row left, a rank gets nothing."""
    rows = [row for row in tiny_rows(40) if row["label"] == 0 or "explanation" not in row][:5]
    rows += [{"id": "long", "text": "fever " * 12, "label": 1, "explanation": "A fever."}]
    rows = [{k: v for k, v in row.items() if k != "explanation" or n == 5} for n, row in enumerate(rows[1:] + rows[:1])]
    rows[4]["explanation"] = "A fever, and that is enough."
    others = {"train.global_batch": 2, "train.token_budget": 96}
    alone = compared_config(tmp_path, "alone", rows[:5], **settings(lora, **others))
    shared = compared_config(tmp_path, "shared", rows[:5], **settings(lora, **others))

    expected = one_rank.run(train_on_rank, alone)[0]
    recorders = two_ranks.run(train_on_rank, shared)

    num_scored = TokenizedSplit(RunFolder(shared.folder).tokens("train")).num_scored
    by_rank = [[int(num_scored[[row for m in rank for row in m]].sum()) for rank in plan] for plan in plans(shared, 2)]
    assert any(min(tokens) == 0 and max(tokens) > 0 for tokens in by_rank)
    assert any(max(tokens) == 0 for tokens in by_rank)
    assert any([] in [m for rank in plan for m in rank] for plan in plans(shared, 2))
    assert losses(recorders[1]).tolist() == losses(recorders[0]).tolist()
    torch.testing.assert_close(losses(recorders[0]), losses(expected), atol=1e-5, rtol=1e-5)
    assert_same_weights(kept_weights(shared), kept_weights(alone))


@KINDS
def test_zero3_is_plain_pytorch(two_ranks: RankPool, tmp_path: Path, lora: Any) -> None:
    """Weight decay and clipping at work, every row by itself and unpacked in the plain loop."""
    others = {"train.weight_decay": 0.1, "train.max_grad_norm": 0.5, "objective.w_gen": 0.7, "objective.w_cls": 1.3}
    config = compared_config(tmp_path, "zero3", long_rows(20), **settings(lora, **others))

    recorder = two_ranks.run(train_on_rank, config)[0]
    expected_losses, norms, weights = plain_training(config)

    assert max(norms) > 0.5
    torch.testing.assert_close(losses(recorder), torch.tensor(expected_losses, dtype=torch.float64), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        losses(recorder, "grad_norm"), torch.tensor(norms, dtype=torch.float64), atol=0, rtol=1e-4
    )
    assert_same_weights(kept_weights(config), weights)


def plain_training(config: RunConfig) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """The run in plain PyTorch: losses, gradient norms before clipping, trained weights."""
    split = TokenizedSplit(RunFolder(config.folder).tokens("train"))
    train, objective = config.train, config.objective
    model = build_model(config.model, str(config.model.name_or_path), 2, dtype=torch.float32, seed=config.run.seed)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [
        {
            "params": [p],
            "lr": train.head_learning_rate if name.startswith("head.") else train.learning_rate,
            "weight_decay": train.weight_decay if p.ndim > 1 else 0.0,
        }
        for name, p in weights.items()
    ]
    optimizer = torch.optim.AdamW(groups)
    step_losses, norms = [], []
    for step in range(NUM_STEPS):
        rows = [split[int(n)] for n in rows_of_step(config.run.seed, step, len(split), train.global_batch)]
        num_tokens = sum(len(row.completion) for row in rows)
        total = torch.zeros(())
        for row in rows:
            ids = torch.from_numpy(np.concatenate([row.prompt, row.completion]).astype(np.int64))[None]
            output = model.causal_lm(input_ids=ids, output_hidden_states=True)
            last = len(row.prompt) - 1
            logits = model.head(output.hidden_states[-1][:, last])
            total = total + objective.w_cls * functional.cross_entropy(logits, torch.tensor([row.label])) / len(rows)
            if len(row.completion):
                words = functional.cross_entropy(output.logits[0, last:-1], ids[0, last + 1 :], reduction="sum")
                total = total + objective.w_gen * words / num_tokens
        optimizer.zero_grad()
        total.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(weights.values(), train.max_grad_norm)))
        optimizer.step()
        step_losses.append(total.item())
    return step_losses, norms, {name: p.detach() for name, p in weights.items()}


def test_zero2_is_zero3(two_ranks: RankPool, tmp_path: Path) -> None:
    rows = long_rows(20)
    stage3 = compared_config(tmp_path, "stage3", rows, **settings(None))
    stage2 = compared_config(
        tmp_path, "stage2", rows, **settings(None, **{"train.deepspeed": partitioning_zero(tmp_path, 2)})
    )
    shipped = compared_config(
        tmp_path, "shipped", rows, **settings(None, **{"train.deepspeed": "ds_configs/zero2_bf16.json"})
    )

    recorders = {c.run.name: two_ranks.run(train_on_rank, c)[0] for c in (stage3, stage2, shipped)}

    for other in (stage2, shipped):
        torch.testing.assert_close(losses(recorders[other.run.name]), losses(recorders["stage3"]), atol=1e-5, rtol=0)
        assert_same_weights(kept_weights(other), kept_weights(stage3))


@KINDS
def test_recomputation_changes_nothing(two_ranks: RankPool, tmp_path: Path, lora: Any) -> None:
    """Under ZeRO-3, whose hooks gather every weight a second time; with dropout, which must drop the same again."""
    rows, dropping = long_rows(20), None if lora is None else lora | {"dropout": 0.2}
    configs = {
        policy: compared_config(
            tmp_path, policy, rows, **settings(dropping, **{"model.gradient_checkpointing": policy})
        )
        for policy in ("none", "selective", "full")
    }

    recorders = {policy: two_ranks.run(train_on_rank, config)[0] for policy, config in configs.items()}

    for policy in ("selective", "full"):
        for part in ("loss", "grad_norm"):
            torch.testing.assert_close(
                losses(recorders[policy], part), losses(recorders["none"], part), atol=1e-6, rtol=0
            )
        assert_same_weights(kept_weights(configs[policy]), kept_weights(configs["none"]), atol=1e-6)
    assert losses(recorders["none"])[0] > losses(recorders["none"])[-1]


def test_divergence_from_the_base_is_the_same_on_two_ranks(
    one_rank: RankPool, two_ranks: RankPool, tmp_path: Path
) -> None:
    rows = long_rows(20)
    others = {"objective.kl_weight": 0.5, "train.learning_rate": 1e-2}
    alone = compared_config(tmp_path, "alone", rows, **settings(LORA, **others))
    shared = compared_config(tmp_path, "shared", rows, **settings(LORA, **others))

    expected = one_rank.run(train_on_rank, alone)[0]
    recorder = two_ranks.run(train_on_rank, shared)[0]

    assert losses(expected, "kl")[0] == pytest.approx(0.0, abs=1e-6)
    assert losses(expected, "kl")[-1] > 1e-4
    for part in ("loss", "kl"):
        torch.testing.assert_close(losses(recorder, part), losses(expected, part), atol=1e-5, rtol=1e-5)
    assert_same_weights(kept_weights(shared), kept_weights(alone))


def test_bf16_learns(two_ranks: RankPool, tmp_path: Path) -> None:
    others = {
        "train.precision": "bf16",
        "train.epochs": 10,
        "train.max_steps": 20,
        "train.learning_rate": 1e-2,
        "train.head_learning_rate": 1e-2,
    }
    config = compared_config(tmp_path, "bf16", tiny_rows(40), **settings(LORA, **others))

    recorder = two_ranks.run(train_on_rank, config)[0]

    for part in ("loss_cls", "loss_gen"):
        values = losses(recorder, part)
        assert values[-5:].mean() < 0.9 * values[:5].mean()
