"""What a run would take, before it is paid for: rows, tokens, steps, parameters and bytes a GPU. Loads no weights."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clsgen_dist.accelerator import free_bytes
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.zero import read_zero, zero_stage
from clsgen_dist.data.plan import num_steps_an_epoch, plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import current_ranks
from clsgen_dist.errors import ConfigError
from clsgen_dist.memory import RECOMPUTED_SHARES, MemoryPlan, least_recomputation
from clsgen_dist.model.build import DTYPES, build_skeleton
from clsgen_dist.prepare import backbone_place, prepare
from clsgen_dist.records import SPLITS
from clsgen_dist.scaling import Load, render_scaling
from clsgen_dist.train.automatic import estimates
from clsgen_dist.train.schedule import total_steps

#: Memory of GPUs for which a plan says what `auto` would take, GiB: an L4 or RTX 4090, an A100, another or an H100, an
#: H200.
_DEVICES_GIB = (24, 40, 80, 141)


@dataclass(frozen=True)
class SplitPlan:
    """Counts of a split; `cut_share` is the share of prompts that lose tokens from their middle."""

    num_rows: int
    num_tokens: int
    longest_tokens: int
    cut_share: float


@dataclass(frozen=True)
class Plan:
    """What a run would take.

    Attributes:
        splits: counts by split.
        num_steps: optimizer steps of the run.
        num_micro_batches: micro-batches a worker, over the first epoch.
        mean_fill: share of the token budget that micro-batches use, on average.
        num_trainable, num_parameters: counts.
        memories: bytes a GPU, by policy of recomputation.
        policy: the one that the run takes; of `auto` the one for a device of this machine.
    """

    splits: dict[str, SplitPlan]
    num_steps: int
    num_micro_batches: int
    mean_fill: float
    num_trainable: int
    num_parameters: int
    memories: dict[str, MemoryPlan]
    policy: str

    @property
    def memory(self) -> MemoryPlan:
        return self.memories[self.policy]

    def policy_for(self, device_bytes: int) -> str:
        """What `auto` takes where a device has so much memory."""
        return least_recomputation(self.memories, device_bytes)


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
        num_micro, fill = _count_micro_batches(config, train)
        model = build_skeleton(config.model, backbone_place(config, folder), config.num_labels)
        memories = estimates(config, model, train, config.train.num_workers, read_zero(config.train.deepspeed))
    policy: str = config.model.gradient_checkpointing
    if policy == "auto":
        policy = least_recomputation(memories, _free_here(config))
    num_parameters = sum(p.numel() for p in model.parameters())
    num_trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Plan(
        splits=splits,
        num_steps=total_steps(config.train, len(train)),
        num_micro_batches=num_micro,
        mean_fill=fill,
        num_trainable=num_trainable,
        num_parameters=num_parameters,
        memories=memories,
        policy=policy,
    )


def _free_here(config: RunConfig) -> int:
    """Bytes that a worker would have on this machine, which CPU workers share."""
    device = current_ranks().device
    return free_bytes(device) // (1 if device.type == "cuda" else config.train.num_workers)


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


def _count_micro_batches(config: RunConfig, split: TokenizedSplit) -> tuple[int, float]:
    """Micro-batches a worker in an epoch, and their mean fill."""
    num_micro = 0
    for step in range(num_steps_an_epoch(len(split), config.train.global_batch)):
        rows = rows_of_step(config.run.seed, step, len(split), config.train.global_batch)
        plan = plan_step(
            rows, split.lengths, world_size=config.train.num_workers, token_budget=config.train.token_budget
        )
        num_micro += len(plan[0])
    room = num_micro * config.train.num_workers * config.train.token_budget
    return num_micro, float(np.sum(split.lengths)) / room


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
        "estimated GiB a GPU, by layers that are computed again (model.gradient_checkpointing)",
        f"  {'':<20}" + "".join(f"{policy + ' <' * (policy == plan.policy):>13}" for policy in plan.memories),
    ]
    parts = [part for part in MemoryPlan.__dataclass_fields__ if part != "moved_to_host"]
    for part in [*parts, "total", *["moved_to_host"] * config.model.activation_offload]:
        sizes = (getattr(memory, part) / 2**30 for memory in plan.memories.values())
        lines.append(f"  {part.replace('_', ' '):<20}" + "".join(f"{size:>13.2f}" for size in sizes))
    if config.model.gradient_checkpointing == "auto":
        by_device = ", ".join(f"{plan.policy_for(gib * 2**30)} with {gib} GiB" for gib in _DEVICES_GIB)
        lines.append(f"  auto takes {plan.policy} with the memory that is free here; {by_device}")
    load = Load(
        num_parameters=plan.num_parameters,
        num_trainable=plan.num_trainable,
        num_tokens=max(1, round(plan.mean_fill * config.train.token_budget)),
        bytes_a_number=DTYPES[config.train.precision].itemsize,
        recomputed_share=RECOMPUTED_SHARES[plan.policy],
    )
    lines += ["", *render_scaling(load, zero_stage(read_zero(config.train.deepspeed)))]
    return "\n".join(lines)
