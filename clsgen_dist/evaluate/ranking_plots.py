"""Pictures of ranking: what each threshold finds, against the false alarms that it costs.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from clsgen_dist.evaluate.canvas import CALIBRATED, DASHES, MUTED, TRUTH, short

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Ranked(NamedTuple):
    """Rows by a score.

    Attributes:
        name: of the curve.
        score_N: higher means surer of the event.
        positive_N: whether it happened.
        style: of the line.
    """

    name: str
    score_N: FloatArray
    positive_N: BoolArray
    style: dict[str, Any]


def ranked_curves(
    probability_NK: FloatArray,
    truth_N: IntArray,
    labels: Sequence[str],
    colour_of: dict[int, str],
    true_probability_N: FloatArray | None,
) -> list[Ranked]:
    """The curves to draw: of two labels the last one, beside the true probability if it is known; else each label."""
    if len(labels) > 2:
        return [
            Ranked(short(labels[label]), probability_NK[:, label], truth_N == label, {"color": colour})
            for label, colour in colour_of.items()
        ]
    curves = [Ranked("model", probability_NK[:, 1], truth_N == 1, {"color": CALIBRATED})]
    if true_probability_N is not None:
        style = {"color": TRUTH, "linestyle": "--", "linewidth": 1.3}
        curves.append(Ranked("true probability", true_probability_N, truth_N == 1, style))
    return curves


def draw_roc(canvas: Figure, curves: Sequence[Ranked], labels: Sequence[str], threshold: float | None) -> None:
    """Rows found against false alarms."""
    axes = canvas.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES, label="chance")
    for name, score_N, positive_N, style in curves:
        false_rate, true_rate, _ = roc_curve(positive_N, score_N)
        axes.plot(false_rate, true_rate, label=name, **style)
    if threshold is not None:
        flagged_N, positive_N = curves[0].score_N >= threshold, curves[0].positive_N
        _mark(axes, float(flagged_N[~positive_N].mean()), float(flagged_N[positive_N].mean()), threshold)
    axes.set(title=f"ROC, {_event(labels)}", xlabel="false alarms: share of the other rows that is flagged")
    axes.set_ylabel("found: share of the label's rows that is flagged")
    _square(axes, legend="lower right")


def draw_precision_recall(
    canvas: Figure, curves: Sequence[Ranked], labels: Sequence[str], threshold: float | None
) -> None:
    """How many of the flagged rows are right, by how many are found."""
    axes = canvas.subplots()
    for name, score_N, positive_N, style in curves:
        precision, recall, _ = precision_recall_curve(positive_N, score_N)
        # Steps, because precision does not run straight between two thresholds.
        axes.step(recall, precision, where="post", label=name, **style)
    if len(labels) == 2:
        share = float(np.mean(curves[0].positive_N))
        axes.axhline(share, color=MUTED, linewidth=1, linestyle=DASHES, label=f"chance ({share:.2f})")
    if threshold is not None:
        flagged_N, positive_N = curves[0].score_N >= threshold, curves[0].positive_N
        if flagged_N.any():
            _mark(axes, float(flagged_N[positive_N].mean()), float(positive_N[flagged_N].mean()), threshold)
    axes.set(
        title=f"Precision and recall, {_event(labels)}", xlabel="recall: share of the label's rows that is flagged"
    )
    axes.set_ylabel("precision: share of flagged rows with the label")
    _square(axes, legend="lower left")


def _event(labels: Sequence[str]) -> str:
    return f'"{short(labels[1])}"' if len(labels) == 2 else "each label against the rest"


def _mark(axes: Axes, x: float, y: float, threshold: float) -> None:
    name = f"operating threshold {threshold:.3f}"
    axes.plot(x, y, color=TRUTH, marker="o", markersize=6, linestyle="none", label=name, zorder=3)


def _square(axes: Axes, legend: Literal["lower left", "lower right"]) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.legend(loc=legend)
