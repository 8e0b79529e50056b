"""Figures to draw on: one style, one meaning a colour, the same bytes twice.

Drawn on figures of their own, without pyplot: no window system, no state that one picture leaves to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any colour vision tell apart; one meaning, one colour in all pictures.
CALIBRATED, RAW, TRUTH, MUTED = "#0072B2", "#D55E00", "#222222", "#8a8a8a"
LABEL_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#B8A800", "#666666")

#: What chance alone shows.
BAND = "#d9dde3"

#: A line to compare with.
DASHES = (0, (4, 3))

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    # A label may hold a dollar sign, which is no formula.
    "text.parse_math": False,
    "text.usetex": False,
}


@contextmanager
def figure(path: Path, width_inches: float, height_inches: float) -> Iterator[Figure]:
    """A figure that is written to `path`, as PNG, when the block ends without an error."""
    # From the defaults, so that a matplotlibrc of the machine changes nothing.
    style: Any = {**dict(mpl.rcParamsDefault), **STYLE}
    with mpl.rc_context(style):
        drawn = Figure(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn
        # Without the Software entry, which names a version, nothing in the file depends on when or by what it was made.
        drawn.savefig(path, dpi=144, format="png", metadata={"Software": None})


def short(name: str) -> str:
    """A label name that fits a legend, on one line."""
    name = " ".join(name.split())
    return name if len(name) <= 28 else name[:27] + "\u2026"
