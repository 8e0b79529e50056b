"""`auto`: decided by the rank with the least memory, by the same estimates that a plan prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.zero import read_zero
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import ConfigError
from clsgen_dist.memory import USABLE_SHARE
from clsgen_dist.model.build import build_skeleton
from clsgen_dist.planning import make_plan, render_plan
from clsgen_dist.prepare import prepare
from clsgen_dist.train import automatic
from tests.support.tiny import tiny_backbone, tiny_config, tiny_rows, write_jsonl

ZERO = read_zero("ds_configs/zero3_cpu.json")


class TwoRanks(Ranks):
    """Another rank of this node, or of another one, has so much less memory."""

    def gather(self, value: Any) -> list[Any]:
        node, free = value
        return [(node, free), self.other(node, free)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("other", ["same node", "smaller node"])
def test_the_rank_with_the_least_memory_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80))
    backbone = tiny_backbone(tmp_path / "backbone", num_hidden_layers=6)
    changes = {"model.name_or_path": backbone, "model.gradient_checkpointing": "auto", "train.num_workers": 2}
    config = tiny_config(tmp_path, **changes)
    split = TokenizedSplit(RunFolder(prepare(config).path).tokens("train"))
    plan = make_plan(config)
    totals = {policy: memory.total for policy, memory in plan.memories.items()}
    assert totals["full"] < totals["selective"] < totals["none"]
    ranks = TwoRanks(0, 2, torch.device("cpu"))
    # Two ranks of one node share what is free there.
    beside = {"same node": lambda node, free: (node, free), "smaller node": lambda node, free: ("other", free // 2)}
    object.__setattr__(ranks, "other", beside[other])
    for policy, total in totals.items():
        free = 2 * int(total / USABLE_SHARE + 2)
        monkeypatch.setattr(automatic, "free_bytes", lambda device, free=free: free)
        decided = automatic.decided(config, str(config.model.name_or_path), split, ranks, ZERO)
        assert decided.model.gradient_checkpointing == policy
        assert plan.policy_for(free // 2) == policy
    assert "auto takes none with the memory that is free here; none with 24 GiB" in render_plan(plan, config)


def test_the_longest_micro_batch_is_tried_where_the_estimate_is_more_than_a_third_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80))
    config = tiny_config(tmp_path, **{"model.name_or_path": tiny_backbone(tmp_path / "backbone")})
    assert config.train.dry_batch == "auto"
    split = TokenizedSplit(RunFolder(prepare(config).path).tokens("train"))
    total = make_plan(config).memories[config.model.gradient_checkpointing].total
    alone = Ranks(0, 1, torch.device("cpu"))
    for free, tried in ((3 * total + 3, False), (3 * total - 3, True)):
        monkeypatch.setattr(automatic, "free_bytes", lambda device, free=free: free)
        decided = automatic.decided(config, str(config.model.name_or_path), split, alone, ZERO)
        assert decided.train.dry_batch is tried
        assert decided.model == config.model
    # A worker on another node has the run folder, not the file that the configuration names.
    elsewhere = config.model_copy(update={"train": config.train.model_copy(update={"deepspeed": "not/here.json"})})
    assert automatic.decided(elsewhere, str(config.model.name_or_path), split, alone, ZERO).train.dry_batch is True
    given = tiny_config(tmp_path, **{"train.dry_batch": True, "model.gradient_checkpointing": "auto"})
    assert automatic.decided(given, str(config.model.name_or_path), split, alone, ZERO).train.dry_batch is True


def test_scores_that_the_estimate_leaves_out_are_tried(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80))
    backbone = tiny_backbone(tmp_path / "backbone")
    split = None
    for attention, tried in (("sdpa", False), ("eager", True)):
        config = tiny_config(
            tmp_path, **{"model.name_or_path": backbone, "model.attention": attention, "run.name": attention}
        )
        split = split or TokenizedSplit(RunFolder(prepare(config).path).tokens("train"))
        decided = automatic.decided(config, backbone, split, Ranks(0, 1, torch.device("cpu")), ZERO)
        assert decided.train.dry_batch is tried


def test_on_cpus_what_is_offloaded_takes_the_same_memory(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80))
    offload = {"model.name_or_path": tiny_backbone(tmp_path / "b"), "train.deepspeed": "ds_configs/zero3_offload.json"}
    config = tiny_config(tmp_path, **offload)
    split = TokenizedSplit(RunFolder(prepare(config).path).tokens("train"))
    model = build_skeleton(config.model, str(config.model.name_or_path), config.num_labels)
    on_gpu, on_cpu = (
        automatic.estimates(config, model, split, 1, read_zero(config.train.deepspeed), on_cpu=on_cpu)["none"]
        for on_cpu in (False, True)
    )
    assert on_cpu.optimizer > on_gpu.optimizer
    assert on_cpu.total > on_gpu.total


def test_what_somebody_has_chosen_stays(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80))
    config = tiny_config(tmp_path, **{"model.gradient_checkpointing": "selective", "train.dry_batch": True})
    split = TokenizedSplit(RunFolder(prepare(config).path).tokens("train"))
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert automatic.decided(config, "", split, ranks, ZERO) is config


@pytest.mark.parametrize(
    ("name", "changes"),
    [("activation_offload", {"model.gradient_checkpointing": "full"}), ("liger_kernels", {})],
)
def test_what_needs_a_gpu_is_refused_on_cpus(tmp_path: Path, name: str, changes: dict[str, str]) -> None:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(80))
    config = tiny_config(tmp_path, **changes | {f"model.{name}": True})
    split = TokenizedSplit(RunFolder(prepare(config).path).tokens("train"))
    with pytest.raises(ConfigError, match=rf"model.{name}: true, and this training runs on CPUs"):
        automatic.decided(config, "", split, Ranks(0, 1, torch.device("cpu")), ZERO)


@pytest.mark.parametrize(("others", "taken"), [("flash_attention_2", "flash_attention_2"), ("sdpa", "sdpa")])
def test_attention_is_what_all_ranks_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str, taken: str
) -> None:
    class Beside(Ranks):
        def gather(self, value: Any) -> list[Any]:
            return [value, others]

    config = tiny_config(tmp_path, **{"model.attention": "auto", "train.dry_batch": False})
    monkeypatch.setattr(automatic, "attention_here", lambda asked, dtype, device: "flash_attention_2")
    decided = automatic.decided(config, "", None, Beside(0, 2, torch.device("cpu")), ZERO)  # type: ignore[arg-type]
    assert decided.model.attention == taken
