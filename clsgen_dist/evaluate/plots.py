"""The pictures of one evaluation, and which of them a split gets. The same input, the same bytes.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clsgen_dist.evaluate.canvas import LABEL_COLOURS, TRUTH, figure, short
from clsgen_dist.evaluate.columns import to_columns
from clsgen_dist.evaluate.decision_plots import draw_decision_curve, draw_risk_coverage
from clsgen_dist.evaluate.metrics import checked
from clsgen_dist.evaluate.ranking_plots import draw_precision_recall, draw_roc, ranked_curves
from clsgen_dist.evaluate.reliability_plots import draw_label_reliability, draw_reliability
from clsgen_dist.records import UNLABELLED, Prediction, Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Labels drawn at most, the most frequent ones: more curves than colours cannot be told apart.
MAX_CURVES = len(LABEL_COLOURS)

#: Of every picture: narrow enough to be read on a phone.
WIDTH_INCHES = 5.4


def write_plots(
    folder: Path,
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    threshold: float | None,
    sure_probability: float,
    num_bins: int,
) -> dict[str, Path]:
    """Draw reliability, scores, roc, precision_recall, risk_coverage (.png) of the labelled rows.

    And decision_curve of two labels, reliability_labels of more.

    Args:
        folder: where to write; must exist.
        predictions: what the model says, one a row.
        rows: the rows of the split, in any order.
        labels: names of the labels in the order of their numbers.
        threshold: operating threshold of the last label of two, or None.
        sure_probability: largest probability from which an answer counts as sure.
        num_bins: bins of equal width of the reliability diagram.

    Returns:
        Path of each picture by name.

    Raises:
        DataError: predictions do not fit the rows, or there are not two labels to tell apart.
    """
    columns = to_columns(predictions, rows, labels)
    known_N = columns.label_N != UNLABELLED
    _, truth_N = checked(columns.probability_NK[known_N], columns.label_N[known_N])
    raw_NK, probability_NK = columns.raw_probability_NK[known_N], columns.probability_NK[known_N]
    true_N = None if columns.true_probability_N is None else columns.true_probability_N[known_N]
    colour_of = _colours(truth_N, len(labels))
    curves = ranked_curves(probability_NK, truth_N, labels, colour_of, true_N)
    at = threshold if len(labels) == 2 else None
    drawers: dict[str, tuple[float, Callable[[Figure], None]]] = {
        "reliability": (5.4, lambda c: draw_reliability(c, raw_NK, probability_NK, truth_N, labels, num_bins)),
        "scores": (4.0, lambda c: _draw_scores(c, probability_NK, truth_N, labels, colour_of, at)),
        "roc": (5.2, lambda c: draw_roc(c, curves, labels, at)),
        "precision_recall": (5.2, lambda c: draw_precision_recall(c, curves, labels, at)),
        "risk_coverage": (4.2, lambda c: draw_risk_coverage(c, probability_NK, truth_N, sure_probability)),
    }
    if len(labels) == 2:
        own_N, before_N, positive_N = probability_NK[:, 1], raw_NK[:, 1], truth_N == 1
        drawers["decision_curve"] = (
            4.2,
            lambda c: draw_decision_curve(c, before_N, own_N, positive_N, labels[1], threshold),
        )
    else:
        drawers["reliability_labels"] = (
            5.4,
            lambda c: draw_label_reliability(c, probability_NK, truth_N, labels, colour_of, num_bins),
        )
    paths = {}
    for name, (height_inches, draw) in drawers.items():
        paths[name] = folder / f"{name}.png"
        with figure(paths[name], WIDTH_INCHES, height_inches) as canvas:
            draw(canvas)
    return paths


def _colours(truth_N: IntArray, num_labels: int) -> dict[int, str]:
    """Colour of each label that is drawn: both of two; else those that occur, the most frequent up to a limit."""
    num_rows_K = np.bincount(truth_N, minlength=num_labels)
    frequent = [int(k) for k in np.argsort(-num_rows_K, kind="stable") if num_rows_K[k]]
    drawn = [0, 1] if num_labels == 2 else sorted(frequent[:MAX_CURVES])
    return dict(zip(drawn, LABEL_COLOURS, strict=False))


def _draw_scores(
    canvas: Figure,
    probability_NK: FloatArray,
    truth_N: IntArray,
    labels: Sequence[str],
    colour_of: dict[int, str],
    threshold: float | None,
) -> None:
    axes = canvas.subplots()
    edges = np.linspace(0, 1, 21).tolist()
    two = len(labels) == 2
    for label, colour in colour_of.items():
        own_N = probability_NK[truth_N == label, 1 if two else label]
        style: dict[str, Any] = {"alpha": 0.55, "histtype": "stepfilled"} if two else {"histtype": "step"}
        name = f"true label {short(labels[label])} ({len(own_N):,} rows)"
        axes.hist(own_N, edges, color=colour, label=name, linewidth=1.6, **style)
    if threshold is not None:
        name = f"operating threshold {threshold:.3f}"
        axes.axvline(threshold, color=TRUTH, linewidth=1.4, linestyle="--", label=name)
    if two:
        axes.set(title="Calibrated probability by true label", xlabel=f'calibrated probability of "{short(labels[1])}"')
    else:
        axes.set(title="Calibrated probability of the true label")
        axes.set_xlabel("calibrated probability of the row's own label")
    axes.set(ylabel="rows a bin of width 0.05", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1 if two else 2)
