"""Reliability diagrams: the share of rows with the label, by the probability that was given; with counts and noise.

Shape legend: N rows, K labels, B bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsgen_dist.evaluate.canvas import BAND, CALIBRATED, DASHES, MUTED, RAW, short
from clsgen_dist.evaluate.metrics import calibration_bins, top_label
from clsgen_dist.evaluate.null_band import null_band

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Bins above whose bars the number of rows fits.
MAX_COUNTED_BINS = 12


def draw_reliability(
    canvas: Figure,
    raw_NK: FloatArray,
    probability_NK: FloatArray,
    truth_N: IntArray,
    labels: Sequence[str],
    num_bins: int,
) -> None:
    """Before and after calibration, on the noise of a perfect model: of the last label of two, else of the answer."""
    upper, lower = _axes(canvas)
    if len(labels) == 2:
        event = f'"{short(labels[1])}"'
        upper.set(title=f"Reliability of {event}", ylabel="share of rows with the label")
        raw_N, happened_raw_N = raw_NK[:, 1], truth_N == 1
        probability_N, happened_N = probability_NK[:, 1], truth_N == 1
    else:
        upper.set(
            title="Reliability of the label with the largest probability", ylabel="share of rows where it is right"
        )
        (raw_N, happened_raw_N), (probability_N, happened_N) = (
            top_label(raw_NK, truth_N),
            top_label(probability_NK, truth_N),
        )
    is_calibrated = not np.array_equal(raw_NK, probability_NK)
    low_B, high_B = null_band(probability_N, num_bins=num_bins)
    edges = np.linspace(0, 1, num_bins + 1)
    upper.stairs(high_B, edges, baseline=low_B, fill=True, color=BAND, label="perfect model, 95 % of the time")
    if is_calibrated:
        _draw_points(upper, raw_N, happened_raw_N, num_bins, color=RAW, marker="s", label="raw", linestyle="--")
        style = {"color": CALIBRATED, "marker": "o", "label": "calibrated"}
    else:
        style = {"color": RAW, "marker": "s", "label": "not calibrated"}
    _draw_points(upper, probability_N, happened_N, num_bins, **style)
    upper.legend(loc="upper left")
    num_raw_B = calibration_bins(raw_N, happened_raw_N, num_bins=num_bins).num_rows_B
    if is_calibrated:
        lower.stairs(num_raw_B, edges, color=RAW, linewidth=1.2, linestyle="--")
    highest = _draw_counts(lower, probability_N, num_bins, style["color"])
    lower.set_ylim(0, 1.3 * max(highest, int(num_raw_B.max())))


def draw_label_reliability(
    canvas: Figure,
    probability_NK: FloatArray,
    truth_N: IntArray,
    labels: Sequence[str],
    colour_of: dict[int, str],
    num_bins: int,
) -> None:
    """Each label's own probability, calibrated, of more than two labels."""
    upper, lower = _axes(canvas)
    for label, colour in colour_of.items():
        name = short(labels[label])
        _draw_points(upper, probability_NK[:, label], truth_N == label, num_bins, color=colour, marker="o", label=name)
        bins = calibration_bins(probability_NK[:, label], truth_N == label, num_bins=num_bins)
        lower.stairs(bins.num_rows_B, bins.edges, color=colour, linewidth=1.2)
    upper.set(title="Reliability of each label, calibrated", ylabel="share of rows with the label")
    upper.legend(loc="upper left")


def _axes(canvas: Figure) -> tuple[Axes, Axes]:
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES)
    upper.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    lower.set(xlabel="mean probability of the bin", ylabel="rows a bin")
    return upper, lower


def _draw_points(axes: Axes, probability_N: FloatArray, happened_N: BoolArray, num_bins: int, **style: str) -> None:
    bins = calibration_bins(probability_N, happened_N, num_bins=num_bins)
    filled_B = bins.num_rows_B > 0
    axes.plot(bins.mean_probability_B[filled_B], bins.frequency_B[filled_B], markersize=4.5, **style)  # type: ignore[arg-type]


def _draw_counts(axes: Axes, probability_N: FloatArray, num_bins: int, colour: str) -> int:
    """How many rows stand behind each point, as bars, and as numbers where they fit; the most of them."""
    bins = calibration_bins(probability_N, np.zeros(len(probability_N)), num_bins=num_bins)
    axes.stairs(bins.num_rows_B, bins.edges, color=colour, fill=True, alpha=0.35)
    axes.stairs(bins.num_rows_B, bins.edges, color=colour, linewidth=1.2)
    if num_bins <= MAX_COUNTED_BINS:
        for number, left, right in zip(bins.num_rows_B, bins.edges[:-1], bins.edges[1:], strict=True):
            axes.annotate(
                f"{number:,}",
                ((left + right) / 2, number),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=7.5,
            )
    return int(bins.num_rows_B.max())
