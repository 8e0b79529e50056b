"""Training runs on ranks, as tests need them: recorded, stopped on the way, with rows of known shape."""

from __future__ import annotations

import contextlib
import json
import os
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import clsgen_dist.accelerator  # noqa: F401 - before transformers, which looks for GPUs
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import start_distributed
from clsgen_dist.errors import ClsGenError
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics, Validation
from clsgen_dist.worker import train_bundle
from tests.support.tiny import tiny_config, tiny_rows, write_jsonl

#: Longest wait of a rank for another one; short, so that a hang is a failure rather than a wait.
TIMEOUT_SECONDS = 60

#: Settings of a run whose weights are compared: its last step is the one that is kept.
COMPARED = {
    "run.seed": 3,
    "data.max_prompt_tokens": 64,
    "data.max_explanation_tokens": 16,
    "train.eval_steps": 1000,
    "train.warmup_fraction": 0.0,
    "train.final_lr_fraction": 1.0,
    "train.collective_timeout_seconds": TIMEOUT_SECONDS,
}


class Stopped(Exception):
    """The run was interrupted, as the test wanted it."""


@dataclass
class Recorder:
    """Events of the loop that notes everything and, where `stop_at` is set, ends the run in the middle of a step."""

    stop_at: int | None = None
    steps: dict[int, dict[str, float]] = field(default_factory=dict)
    validations: dict[int, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def stepped(self, state: TrainState, metrics: StepMetrics) -> None:
        self.steps[state.step] = asdict(metrics)
        if state.step == self.stop_at:
            raise Stopped

    def validated(self, state: TrainState, validation: Validation) -> None:
        self.validations[state.step] = {"loss": validation.loss, **state.to_dict()}


def train_on_rank(config: RunConfig, stop_at: int | None = None) -> Recorder:
    """Prepares and trains one run as one rank; with `stop_at` it dies after that step, before anything is saved."""
    ranks = start_distributed(TIMEOUT_SECONDS)
    place = prepared(config, ranks)
    recorder = Recorder(stop_at)
    with contextlib.suppress(Stopped):
        train_bundle(config, RunFolder(config.folder), place, ranks, recorder, recorder.warn)
    return recorder


def refusal_on_rank(config: RunConfig) -> str | None:
    """What a user would be told of a run that is refused; None where it goes through."""
    try:
        train_on_rank(config)
    except ClsGenError as error:
        return f"{type(error).__name__}: {error}"
    return None


def prepared(config: RunConfig, ranks: Ranks) -> str:
    """Makes the run folder on rank 0, while the others wait; returns where the backbone is."""
    from clsgen_dist.prepare import backbone_place, prepare  # needs more libraries than training itself

    if ranks.leads:
        prepare(config)
    ranks.barrier()
    return backbone_place(config, RunFolder(config.folder))


def losses(recorder: Recorder, name: str = "loss") -> torch.Tensor:
    """One number of every step, in order, fp64."""
    return torch.tensor([recorder.steps[step][name] for step in sorted(recorder.steps)], dtype=torch.float64)


def kept_weights(config: RunConfig) -> dict[str, torch.Tensor]:
    """Trainable weights of the best step."""
    return load_file(RunFolder(config.folder).best / "trainable.safetensors")


def bundle_weights(config: RunConfig) -> dict[str, torch.Tensor]:
    """Adapter, or all weights, and head of the bundle."""
    bundle = RunFolder(config.folder).bundle
    files = sorted(bundle.rglob("*.safetensors"))
    return {f"{path.relative_to(bundle)}/{name}": t for path in files for name, t in load_file(path).items()}


def assert_same_weights(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], *, atol: float = 1e-5, rtol: float = 0.0
) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}")


def partitioning_zero(folder: Path, stage: int = 3) -> str:
    """ZeRO settings under which even tiny weights are partitioned; the shipped files keep small ones whole."""
    path = folder / f"zero{stage}.json"
    settings: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    if stage == 3:
        settings |= {"stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 1000}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"zero_optimization": settings}), encoding="utf-8")
    return str(path)


def split_files(folder: Path, train: list[dict[str, Any]], num_others: int = 24) -> dict[str, str]:
    """Writes four splits; returns the settings that name them."""
    paths = {"data.train": str(write_jsonl(folder / "train.jsonl", train))}
    for split in ("validation", "calibration", "test"):
        rows = tiny_rows(num_others, prefix=split)
        paths[f"data.{split}"] = str(write_jsonl(folder / f"{split}.jsonl", rows))
    return paths


def long_rows(num_rows: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of some 45 to 75 tokens, so that two do not fit into a budget of 80; three of four have an explanation."""
    draw = random.Random(seed)
    words = [
        "pain",
        "cough",
        "rash",
        "calm",
        "old",
        "young",
        "tired",
        "back",
        "arm",
        "leg",
        "mild",
        "known",
        "since",
        "monday",
        "little",
        "walks",
        "sleeps",
        "eats",
    ]
    rows = []
    for number in range(num_rows):
        label = number % 2
        text = " ".join([*draw.choices(words, k=draw.randint(17, 24)), "fever" if label else "fine", f"n{number}"])
        row = {"id": f"long-{number}", "text": text, "label": label}
        if number % 4 != 3:
            row["explanation"] = "A fever." if label else "All is fine, as before."
        rows.append(row)
    return rows


def compared_config(folder: Path, name: str, train: list[dict[str, Any]], **overrides: Any) -> RunConfig:
    """A run over `train` with the settings of COMPARED, its weights partitioned in earnest."""
    settings: dict[str, Any] = {
        "run.name": name,
        "train.deepspeed": partitioning_zero(folder),
        **split_files(folder, train),
        **COMPARED,
        **overrides,
    }
    return tiny_config(folder, **{"calibrate.method": "temperature", **settings})


def flow_on_rank(config: RunConfig, die_at: int | None = None) -> list[tuple[str, int]]:
    """The whole flow as one rank; returns stage and progress of every event that rank 0 told.

    With `die_at` the process ends like one that was killed, when it hears that so many steps are done.
    """
    from clsgen_dist.pipeline import run_launched  # needs more libraries than training itself
    from clsgen_dist.progress import Event

    heard: list[tuple[str, int]] = []

    def listen(event: Event) -> None:
        heard.append((event.stage, event.done))
        if (event.stage, event.done) == ("train", die_at):
            os._exit(1)

    run_launched(config, listen)
    return heard
