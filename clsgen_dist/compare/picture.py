"""The picture of a comparison: a dot an arm and number, its interval, and a small dot for each seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from clsgen_dist.compare.columns import COLUMN
from clsgen_dist.evaluate.canvas import CALIBRATED, MUTED, RAW, figure, short

#: What is drawn, where any arm has it.
_DRAWN = ("auroc", "f1", "nll", "ece", "kappa", "general_text_change")
_ARROWS = {"up": "\u2192 better", "down": "\u2190 better", "": ""}


def draw_comparison(path: Path, content: Mapping[str, Any]) -> Path | None:
    """Draws comparison.png; the same content gives the same bytes. None where there is nothing to draw."""
    rows = [row for row in content["rows"] if any(row["numbers"][key] is not None for key in _DRAWN)]
    keys = [key for key in _DRAWN if any(row["numbers"][key] is not None for row in rows)]
    if not keys:
        path.unlink(missing_ok=True)
        return None
    with figure(path, 3.2 + 2.1 * len(keys), 1.3 + 0.36 * len(rows)) as canvas:
        axes = canvas.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        for axis, key in zip(axes, keys, strict=True):
            _draw(axis, key, rows)
        axes[0].set_yticks(range(len(rows)), [short(row["name"].replace("_", " ")) for row in rows])
        axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return path


def _draw(axis: Axes, key: str, rows: list[Mapping[str, Any]]) -> None:
    for line, row in enumerate(rows):
        numbers = row["numbers"][key]
        if numbers is None:
            continue
        colour = RAW if row["part"] == "raw" else CALIBRATED if row["kind"] in ("trained", "conditioned") else MUTED
        if numbers["ci"] is not None:
            axis.plot(numbers["ci"], [line, line], color=colour, linewidth=1.6)
        if len(numbers["values"]) > 1:
            axis.plot(numbers["values"], [line] * len(numbers["values"]), "|", color=colour, markersize=8)
        axis.plot([numbers["mean"]], [line], "o", color=colour, markersize=5)
    axis.set_title(COLUMN[key].title)
    axis.set_xlabel(_ARROWS[COLUMN[key].is_better], fontsize=8.5)
    axis.tick_params(axis="y", length=0)
