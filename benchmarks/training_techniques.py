"""What each technique of training brings: steps with it switched off, in turns with ours.

    python benchmarks/training_techniques.py [--rows esnli] [--rounds 2] [--steps 2]

The same rows, backbone and adapter as benchmarks/training.py; each turn in a process of its own.
"""

from __future__ import annotations

import json
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
        self: DualHead, input_ids: Any, position_ids: Any, cls_index: Any, lm_index: Any, **_: Any
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

    settings = training.arguments(__doc__, rounds=2, steps=2).parse_args()
    ours = training.sides_of("ds_configs/zero2_cpu.json", 4096, "padded")["ours"]
    sides = {name: ours | options | {"side": "ours"} for name, options in {"ours": {}, **SWITCHED}.items()}
    measured = training.measure(settings, sides)
    print(table(measured))
    training.OUT.mkdir(parents=True, exist_ok=True)
    whole = {"sides": training.summary(measured), "settings": vars(settings)}
    whole |= {"machine": training.machine(), "versions": training.versions()}
    (training.OUT / "training_techniques.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


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
