"""What a run would take, counted again by other means; and every example plans."""

from __future__ import annotations

import csv
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from clsgen_dist.config.run import RunConfig, load_config
from clsgen_dist.config.zero import offloads, read_zero
from clsgen_dist.data.plan import plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.model.build import build_model
from clsgen_dist.planning import make_plan, render_plan
from clsgen_dist.prepare import prepare
from clsgen_dist.records import SPLITS
from tests.support.tiny import ROOT, shared_backbone, tiny_config, tiny_rows, tiny_tokenizer, write_jsonl

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if not path.name.startswith("compare_"))


def config_of(tmp_path: Path, **changes: Any) -> RunConfig:
    rows = [row | {"text": row["text"] + " pain" * (40 if n % 10 == 0 else 0)} for n, row in enumerate(tiny_rows(80))]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tiny_config(tmp_path, **{"train.epochs": 3, "train.num_workers": 2, "data.max_prompt_tokens": 60} | changes)


def test_rows_tokens_and_steps_are_those_of_the_run(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    plan = make_plan(config)
    assert not (tmp_path / "runs").exists(), "a plan writes nothing"
    folder = prepare(config)
    num_cut = 0
    for split in SPLITS:
        tokens, counts = TokenizedSplit(folder.tokens(split)), plan.splits[split]
        assert counts.num_rows == len(tokens)
        assert counts.num_tokens == sum(len(row.prompt) + len(row.completion) for row in tokens)
        assert counts.longest_tokens == max(len(row.prompt) + max(0, len(row.completion) - 1) for row in tokens)
        cut = sum(len(row.prompt) == 60 for row in tokens)
        assert counts.cut_share == pytest.approx(cut / len(tokens))
        num_cut += cut
    assert num_cut == 8
    train = TokenizedSplit(folder.tokens("train"))
    assert plan.num_steps == 3 * 6  # 44 rows, 8 a step
    plans = [
        plan_step(rows_of_step(1, step, 44, 8), train.lengths, world_size=2, token_budget=128) for step in range(6)
    ]
    assert plan.num_micro_batches == sum(len(ranks[0]) for ranks in plans)
    assert plan.mean_fill == pytest.approx(train.lengths.sum() / (plan.num_micro_batches * 2 * 128))
    assert 0.3 < plan.mean_fill <= 1


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("lora", [{"rank": 4}, None], ids=["lora", "full"])
def test_parameters_are_those_of_the_model(tmp_path: Path, family: str, lora: Any) -> None:
    config = config_of(tmp_path, **{"model.lora": lora, "model.name_or_path": shared_backbone(family)})
    model = build_model(config.model, shared_backbone(family), 2, dtype=torch.float32, seed=0)
    plan = make_plan(config)
    assert plan.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert plan.num_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_memory_is_counted_by_number_format_workers_and_stage(tmp_path: Path) -> None:
    def memory(zero: str, **changes: Any) -> Any:
        plan = make_plan(config_of(tmp_path, **{"train.deepspeed": str(ROOT / "ds_configs" / zero)} | changes))
        return plan, plan.memory

    plan, two = memory("zero3_cpu.json")
    assert two.parameters == plan.num_parameters * 4 // 2
    assert two.gradients == plan.num_trainable * 4 // 2
    assert two.optimizer == plan.num_trainable * 12 // 2
    assert two.gathered > 0
    assert two.total == sum(vars(two).values()), "nothing waits on the host"
    _, bf16 = memory("zero3_cpu.json", **{"train.precision": "bf16"})
    assert (bf16.parameters, bf16.gradients, bf16.optimizer) == (two.parameters // 2, two.gradients // 2, two.optimizer)
    assert two.activations // 2 < bf16.activations < two.activations, "norms keep fp32"
    _, eight = memory("zero3_cpu.json", **{"train.num_workers": 8})
    assert eight.parameters == plan.num_parameters * 4 // 8
    _, stage2 = memory("zero2_bf16.json", **{"train.precision": "bf16"})
    assert (stage2.parameters, stage2.gathered) == (plan.num_parameters * 2, 0)
    assert stage2.gradients == bf16.gradients
    zero = read_zero(str(ROOT / "ds_configs" / "zero3_offload.json"))
    assert offloads(zero, "optimizer")
    assert offloads(zero, "param")
    _, offloaded = memory("zero3_offload.json")
    assert (offloaded.parameters, offloaded.optimizer) == (0, 0)
    _, checkpointed = memory("zero3_cpu.json", **{"model.gradient_checkpointing": "full"})
    assert checkpointed.activations < two.activations
    assert plan.memories["full"] == checkpointed, "a plan shows all policies"
    _, away = memory("zero3_cpu.json", **{"model.gradient_checkpointing": "full", "model.activation_offload": True})
    assert away.moved_to_host == checkpointed.activations - away.activations > 0
    assert away.total == checkpointed.total - away.moved_to_host


def test_logits_are_counted_at_scored_positions_only(tmp_path: Path) -> None:
    config = config_of(tmp_path, **{"train.num_workers": 1, "train.token_budget": 4096})
    train = TokenizedSplit(prepare(config).tokens("train"))
    most = max(int(train.num_scored[rows_of_step(1, step, 44, 8)].sum()) for step in range(6))
    assert make_plan(config).memory.logits == most * 320 * (4 + 8)


def test_the_page_shows_all_of_it(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    plan = make_plan(config)
    page = render_plan(plan, config)
    for split in SPLITS:
        assert any(
            line.startswith(split) and f"{plan.splits[split].num_tokens:,}" in line for line in page.splitlines()
        )
    assert "optimizer steps       18 of 8 rows" in page
    assert f"parameters            {plan.num_parameters:,}, trainable {plan.num_trainable:,}" in page
    assert f"{plan.num_micro_batches:,} a worker and epoch" in page
    assert "moved to host" not in page
    away = config_of(tmp_path, **{"model.gradient_checkpointing": "full", "model.activation_offload": True})
    assert "  moved to host " in render_plan(make_plan(away), away)
    for name in (*vars(plan.memory).keys() - {"moved_to_host"}, "total"):
        assert f"  {name} " in page
    assert "none <    selective         full" in page


def test_a_plan_refuses_what_training_would(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="matches no module"):
        make_plan(config_of(tmp_path, **{"model.lora.target_modules": ["query"]}))
    with pytest.raises(DataError, match="unknown label"):
        make_plan(config_of(tmp_path, **{"data.label_map": {"x": "yes"}}))
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def llama_8b(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shape of Llama 3.1 8B, a tokenizer, and not one weight."""
    folder = tmp_path_factory.mktemp("llama-8b")
    LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131_072,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    tiny_tokenizer(bos=True, chat=True).save_pretrained(folder)
    return str(folder)


def test_eight_billion_parameters_plan_without_a_weight(tmp_path: Path, llama_8b: str) -> None:
    changes = {
        "model.name_or_path": llama_8b,
        "model.lora": {"rank": 16},
        "model.gradient_checkpointing": "full",
        "train.num_workers": 8,
        "train.precision": "bf16",
        "train.deepspeed": str(ROOT / "ds_configs" / "zero3_bf16.json"),
    }
    plan = make_plan(config_of(tmp_path, **changes))
    lora = 16 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336))
    assert plan.num_trainable == lora + 2 * 4096 + 2
    assert plan.num_parameters == 8_030_261_248 + plan.num_trainable
    assert plan.memory.parameters == plan.num_parameters * 2 // 8
    assert plan.memory.gathered == 2 * 128_256 * 4096 * 2, "the embeddings are the largest module"
    assert 2.0 < plan.memory.total / 2**30 < 8


def stand_in(data: dict[str, Any], source: str, place: Path, prefix: str, num_rows: int) -> str:
    """Rows that fit the columns of an example, in the kind of file that it names."""
    columns = [name for _, name, _, _ in string.Formatter().parse(data["text_template"] or "") if name]
    keys = list(data["label_map"] or {str(k): None for k in range(2)})
    rows = []
    for n, row in enumerate(tiny_rows(num_rows, prefix=prefix)):
        record: dict[str, Any] = {name: f"{name} {row['text']}" for name in columns or [data["text_column"]]}
        record[data["label_column"]] = int(keys[n % len(keys)])
        record[data["explanation_column"]] = row.get("explanation", "")
        if data["group_column"] and data["group_column"] not in record:
            record[data["group_column"]] = f"{prefix} {n}"
        rows.append(record)
    path = place / f"{prefix}{Path(source).suffix}"
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        write_jsonl(path, rows)
    return str(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_plans(path: Path, tmp_path: Path, llama_8b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With small rows that have its columns, and a small backbone, or an 8B one without weights, for its own."""
    monkeypatch.chdir(ROOT)
    example = load_config(path)
    data, words = example.data.model_dump(), ["--run.output_dir", str(tmp_path / "runs")]
    for split in SPLITS:
        if data[split] is not None:
            source = stand_in(data, data[split], tmp_path, split, 240 if split == "train" else 20)
            words += [f"--data.{split}", source]
        elif data["vignettes"] is not None:
            words += [f"--data.vignettes.num_{split}", "100"]
    if example.model.name_or_path is not None:
        backbone = llama_8b if "8b" in example.model.name_or_path.lower() else shared_backbone("gemma3")
        words += ["--model.name_or_path", backbone]
    config = load_config(path, words)
    plan = make_plan(config)
    assert plan.num_steps >= 1
    assert sum(counts.num_rows for counts in plan.splits.values()) > 0
    assert plan.num_trainable > 0
    assert plan.memory.total > 0
    assert "optimizer steps" in render_plan(plan, config)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "ds_configs").glob("*.json")), ids=lambda path: path.name)
def test_every_file_of_zero_settings_plans(path: Path, tmp_path: Path) -> None:
    plan = make_plan(config_of(tmp_path, **{"train.deepspeed": str(path)}))
    assert np.isfinite(plan.memory.total)
    assert json.loads(path.read_text(encoding="utf-8"))["zero_optimization"]["stage"] in (2, 3)
