"""What each technique of training brings: steps with it switched off, in turns with ours.

    python benchmarks/training_techniques.py [--rows esnli] [--rounds 2] [--steps 2]

The same rows, backbone and adapter as benchmarks/training.py; each turn in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: What a turn differs in from ours: options of the side.
SWITCHED: dict[str, dict[str, Any]] = {
    "several rows a line, lines of about equal length": {"without": "lines"},
    "cross-entropy in chunks, its gradient made on the way": {"without": "chunks"},
    "logits where there is a loss, and nowhere else": {"without": "positions"},
    "ZeRO-2 in place of ZeRO-3, one process": {"zero": str(ROOT / "ds_configs" / "zero3_bf16.json")},
    "`model.attention: sdpa` in place of `eager`": {"attention": "eager"},
}


@contextmanager
def without(technique: str | None) -> Iterator[None]:
    """Training with one technique switched off; None switches nothing off."""
    if technique is None:
        yield
        return
    from clsgen_dist import objective
    from clsgen_dist.data import batch
    from clsgen_dist.model.dual_head import DualHead, DualHeadOutput

    def a_line_for_each_row(sizes: Sequence[int]) -> list[list[int]]:
        return [[n] for n in range(len(sizes))]

    def whole_cross_entropy(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")

    def logits_everywhere(
        self: DualHead,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        cls_index: torch.Tensor,
        lm_index: torch.Tensor,
        *,
        with_base: bool = False,
    ) -> DualHeadOutput:
        hidden_PD = self._hidden(input_ids, position_ids)
        return DualHeadOutput(self.head(hidden_PD[cls_index]), self.lm_logits(hidden_PD)[lm_index], None)

    place, name, other = {
        "lines": (batch, "_lines", a_line_for_each_row),
        "chunks": (objective, "token_losses", whole_cross_entropy),
        "positions": (DualHead, "forward", logits_everywhere),
    }[technique]
    with patch.object(place, name, other):
        yield


def main() -> None:
    from benchmarks import training
    from benchmarks.job import ROWS_A_STEP
    from benchmarks.peers import make_environment
    from benchmarks.rows import read_texts, tokenize

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", choices=("esnli", "pubmedqa", "vignettes"), default="esnli")
    parser.add_argument("--backbone", default=str(ROOT / "models" / "gemma3-270m"), help="folder of the model")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn that count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    settings = parser.parse_args()
    rows = tokenize(read_texts(settings.rows, (1 + settings.steps) * ROWS_A_STEP), settings.backbone)
    tokens = [sum(len(r["prompt"]) + len(r["completion"]) for r in rows[n : n + ROWS_A_STEP]) for n in _starts(rows)]
    python = make_environment(training.OUT / "peers")
    ours = {"zero": str(ROOT / "ds_configs" / "zero2_cpu.json"), "token_budget": 4096}
    turns: dict[str, dict[str, Any]] = {"ours": {}, **SWITCHED}
    measured = {name: training.Measured() for name in turns}
    job: dict[str, Any] = {"rows": rows, "backbone": settings.backbone, "precision": settings.precision}
    job |= {"num_warm": 1, "num_timed": settings.steps}
    for _ in range(settings.rounds):
        for name, options in turns.items():
            result = training.run_turn(python, "ours", job | {"options": ours | options}, settings.threads, 1800)
            measured[name].add(result, tokens[1:])
    print(table(measured))
    training.OUT.mkdir(parents=True, exist_ok=True)
    whole = {"sides": training.summary(measured), "settings": vars(settings)}
    whole |= {"machine": training.machine(), "versions": training.versions()}
    (training.OUT / "training_techniques.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def _starts(rows: Sequence[Any]) -> range:
    from benchmarks.job import ROWS_A_STEP

    return range(0, len(rows), ROWS_A_STEP)


def table(measured: dict[str, Any]) -> str:
    """As Markdown: time and memory without a technique, of ours."""
    speed = {name: statistics.median(one.tokens_per_second) for name, one in measured.items()}
    peak = {name: statistics.median(one.peak_bytes) for name, one in measured.items()}
    lines = ["| without | time, of ours | tokens a second (spread) | peak memory, of ours |", "|---|--:|--:|--:|"]
    for name, one in measured.items():
        spread = f"{min(one.tokens_per_second):.0f} to {max(one.tokens_per_second):.0f}"
        cells = f"{speed['ours'] / speed[name]:.2f} | {speed[name]:.0f} ({spread}) | {peak[name] / peak['ours']:.2f}"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
