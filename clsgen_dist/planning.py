"""What a run would take, before it is paid for: rows, tokens, steps, parameters and bytes a GPU. Loads no weights."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.zero import offloads, read_zero, zero_stage
from clsgen_dist.data.plan import num_steps_an_epoch, plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.errors import ConfigError
from clsgen_dist.model.build import build_skeleton
from clsgen_dist.prepare import backbone_place, prepare
from clsgen_dist.records import SPLITS
from clsgen_dist.scaling import Load, render_scaling
from clsgen_dist.train.schedule import total_steps

#: Bytes of a number, by precision.
_BYTES = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class SplitPlan:
    """Counts of a split; `cut_share` is the share of prompts that lose tokens from their middle."""

    num_rows: int
    num_tokens: int
    longest_tokens: int
    cut_share: float


@dataclass(frozen=True)
class MemoryPlan:
    """Estimated bytes on one GPU; activations and logits of the largest micro-batch."""

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__dataclass_fields__)


@dataclass(frozen=True)
class Plan:
    """What a run would take.

    Attributes:
        splits: counts by split.
        num_steps: optimizer steps of the run.
        num_micro_batches: micro-batches a worker, over the first epoch.
        mean_fill: share of the token budget that micro-batches use, on average.
        num_trainable, num_parameters: counts.
        memory: bytes a GPU.
    """

    splits: dict[str, SplitPlan]
    num_steps: int
    num_micro_batches: int
    mean_fill: float
    num_trainable: int
    num_parameters: int
    memory: MemoryPlan


def make_plan(config: RunConfig) -> Plan:
    """Prepares the run in a temporary folder and counts.

    Raises:
        ConfigError, DataError: what training would refuse.
    """
    with tempfile.TemporaryDirectory(prefix="clsgen-plan-") as scratch:
        elsewhere = config.run.model_copy(update={"output_dir": scratch})
        _lend_explained_set(RunFolder(config.folder), Path(scratch) / config.run.name)
        try:
            folder = prepare(config.model_copy(update={"run": elsewhere}))
        except ConfigError as error:  # of the run's own folder, which this one stands for
            raise ConfigError(str(error).replace(scratch, config.run.output_dir)) from None
        splits = {split: _count_split(folder, split) for split in SPLITS}
        train = TokenizedSplit(folder.tokens("train"))
        num_micro, fill, most_tokens, most_scored = _count_micro_batches(config, train)
        model = build_skeleton(config.model, backbone_place(config, folder), config.num_labels)
    num_parameters = sum(p.numel() for p in model.parameters())
    trainable = [p for p in model.parameters() if p.requires_grad]
    num_trainable = sum(p.numel() for p in trainable)
    return Plan(
        splits=splits,
        num_steps=total_steps(config.train, len(train)),
        num_micro_batches=num_micro,
        mean_fill=fill,
        num_trainable=num_trainable,
        num_parameters=num_parameters,
        memory=_estimate_memory(config, model, num_parameters, num_trainable, most_tokens, most_scored),
    )


def _lend_explained_set(folder: RunFolder, place: Path) -> None:
    """Lets the plan count reasons that a teacher has written already."""
    if folder.manifest.is_file() and folder.labelled_manifest.is_file():
        place.mkdir()
        for part in (folder.labelled_manifest.parent, folder.explained):
            (place / part.name).symlink_to(part, target_is_directory=True)


def _count_split(folder: RunFolder, split: str) -> SplitPlan:
    counts = json.loads(folder.tokens(split).with_suffix(".json").read_text(encoding="utf-8"))
    longest = int(TokenizedSplit(folder.tokens(split)).lengths.max())
    return SplitPlan(counts["num_rows"], counts["num_tokens"], longest, counts["num_cut_prompts"] / counts["num_rows"])


def _count_micro_batches(config: RunConfig, split: TokenizedSplit) -> tuple[int, float, int, int]:
    """Micro-batches a worker in an epoch, their mean fill, and most tokens and scored tokens in one of them."""
    num_micro, most_tokens, most_scored = 0, 0, 0
    for step in range(num_steps_an_epoch(len(split), config.train.global_batch)):
        rows = rows_of_step(config.run.seed, step, len(split), config.train.global_batch)
        plan = plan_step(
            rows, split.lengths, world_size=config.train.num_workers, token_budget=config.train.token_budget
        )
        num_micro += len(plan[0])
        for members in (members for rank in plan for members in rank):
            most_tokens = max(most_tokens, int(split.lengths[members].sum()))
            most_scored = max(most_scored, int(split.num_scored[members].sum()))
    room = num_micro * config.train.num_workers * config.train.token_budget
    return num_micro, float(np.sum(split.lengths)) / room, most_tokens, most_scored


def _estimate_memory(
    config: RunConfig, model: Any, num_parameters: int, num_trainable: int, most_tokens: int, most_scored: int
) -> MemoryPlan:
    """Bytes on one GPU.

    ZeRO-3 keeps 1/world of parameters, gradients and optimizer state, and gathers the largest module twice over
    (in use, and prefetched); ZeRO-2 keeps parameters whole. AdamW holds a fp32 copy and two moments of what is
    trained. Activations are those of a Llama layer without attention scores, which no kernel in use keeps; with
    checkpointing only the layers' inputs and one layer's own stay.

    Source: arXiv 1910.02054 (ZeRO) for states, arXiv 2205.05198 for activations; an estimate, not a promise.
    """
    zero = read_zero(config.train.deepspeed)
    world, size = config.train.num_workers, _BYTES[config.train.precision]
    shape = model.causal_lm.config.get_text_config()
    width, inner, layers = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    heads = shape.num_attention_heads + 2 * (getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads)
    head_width = getattr(shape, "head_dim", None) or width // shape.num_attention_heads
    layer_bytes = most_tokens * size * (8 * width + 2 * heads * head_width + 4 * inner)
    kept_layers = 1 if config.model.gradient_checkpointing else layers
    inputs = most_tokens * size * width * layers if config.model.gradient_checkpointing else 0
    sharded = zero_stage(zero) == 3
    modules = [*model.causal_lm.get_decoder().layers, model.causal_lm.get_input_embeddings()]
    largest = max(sum(p.numel() for p in module.parameters()) for module in modules)
    return MemoryPlan(
        parameters=0 if offloads(zero, "param") else num_parameters * size // (world if sharded else 1),
        gradients=num_trainable * size // world,
        optimizer=0 if offloads(zero, "optimizer") else num_trainable * 12 // world,
        gathered=2 * largest * size if sharded else 0,
        activations=kept_layers * layer_bytes + inputs,
        # In the model's format, then in fp32 with its gradient, for the cross-entropy.
        logits=most_scored * shape.vocab_size * (size + 8),
    )


def render_plan(plan: Plan, config: RunConfig) -> str:
    """The plan as a page of text."""
    lines = [f"{'split':<13}{'rows':>11}{'tokens':>14}{'longest':>9}{'prompts cut':>13}"]
    for split, counts in plan.splits.items():
        cut = f"{100 * counts.cut_share:.1f} %"
        lines.append(f"{split:<13}{counts.num_rows:>11,}{counts.num_tokens:>14,}{counts.longest_tokens:>9,}{cut:>13}")
    share = 100 * plan.num_trainable / plan.num_parameters
    lines += [
        "",
        f"optimizer steps       {plan.num_steps:,} of {config.train.global_batch} rows",
        f"workers               {config.train.num_workers}",
        f"micro-batches         {plan.num_micro_batches:,} a worker and epoch, {100 * plan.mean_fill:.0f} % of "
        f"{config.train.token_budget:,} tokens filled",
        f"parameters            {plan.num_parameters:,}, trainable {plan.num_trainable:,} ({share:.2f} %)",
        "",
        "estimated bytes a GPU",
    ]
    for name in plan.memory.__dataclass_fields__:
        lines.append(f"  {name:<20}{getattr(plan.memory, name) / 2**30:>9.2f} GiB")
    lines.append(f"  {'total':<20}{plan.memory.total / 2**30:>9.2f} GiB")
    load = Load(
        num_parameters=plan.num_parameters,
        num_trainable=plan.num_trainable,
        num_tokens=max(1, round(plan.mean_fill * config.train.token_budget)),
        bytes_a_number=_BYTES[config.train.precision],
        checkpointing=config.model.gradient_checkpointing,
    )
    lines += ["", *render_scaling(load, zero_stage(read_zero(config.train.deepspeed)))]
    return "\n".join(lines)
