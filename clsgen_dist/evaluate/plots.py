"""The pictures of one evaluation: probabilities here, decisions in `decision_plots.py`. The same input, the same bytes.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from clsgen_dist.evaluate.canvas import CALIBRATED, DASHES, LABEL_COLOURS, MUTED, RAW, TRUTH, figure, short
from clsgen_dist.evaluate.columns import Columns, to_columns
from clsgen_dist.evaluate.decision_plots import draw_decision_curve, draw_risk_coverage
from clsgen_dist.evaluate.metrics import calibration_bins, checked
from clsgen_dist.records import UNLABELLED, Prediction, Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Labels drawn at most, the most frequent ones: more curves than colours cannot be told apart.
MAX_CURVES = len(LABEL_COLOURS)


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
    """Draw reliability, roc_pr, scores, risk_coverage and, of two labels, decision_curve (.png) of the labelled rows.

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
    drawn = _drawn_labels(truth_N, len(labels))
    raw_NK, probability_NK = columns.raw_probability_NK[known_N], columns.probability_NK[known_N]
    names = ("reliability", "scores", "roc_pr", "risk_coverage", *(("decision_curve",) if len(labels) == 2 else ()))
    paths = {name: folder / f"{name}.png" for name in names}
    with figure(paths["reliability"], 5.4, 5.6) as canvas:
        _draw_reliability(canvas, columns, known_N, labels, drawn, num_bins)
    with figure(paths["roc_pr"], 9.2, 4.4) as canvas:
        _draw_roc_pr(canvas, columns, known_N, labels, drawn)
    with figure(paths["scores"], 7.2, 3.8) as canvas:
        _draw_scores(canvas, columns, known_N, labels, drawn, threshold)
    with figure(paths["risk_coverage"], 6.4, 3.8) as canvas:
        draw_risk_coverage(canvas, probability_NK, truth_N, sure_probability)
    if len(labels) == 2:
        with figure(paths["decision_curve"], 6.4, 3.8) as canvas:
            draw_decision_curve(canvas, raw_NK[:, 1], probability_NK[:, 1], truth_N == 1, labels[1], threshold)
    return paths


def _drawn_labels(truth_N: IntArray, num_labels: int) -> list[int]:
    """Labels that get a curve: of two the last one; of more those that occur, the most frequent first up to a limit."""
    if num_labels == 2:
        return [1]
    num_rows_K = np.bincount(truth_N, minlength=num_labels)
    frequent = [int(k) for k in np.argsort(-num_rows_K, kind="stable") if num_rows_K[k]]
    return sorted(frequent[:MAX_CURVES])


def _draw_reliability(
    canvas: Figure,
    columns: Columns,
    known_N: npt.NDArray[np.bool_],
    labels: Sequence[str],
    drawn: list[int],
    num_bins: int,
) -> None:
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=[3.4, 1.0])
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES, label="perfect")
    truth_N = columns.label_N[known_N]
    raw_NK, probability_NK = columns.raw_probability_NK[known_N], columns.probability_NK[known_N]
    for label in drawn:
        positive_N = truth_N == label
        if len(labels) == 2:
            curves = [("raw", raw_NK, RAW, "s"), ("calibrated", probability_NK, CALIBRATED, "o")]
            if np.array_equal(raw_NK, probability_NK):
                curves = [("not calibrated", raw_NK, RAW, "s")]
        else:
            curves = [(f"label {short(labels[label])}", probability_NK, _colour(drawn, label), "o")]
        for name, scores_NK, colour, marker in curves:
            bins = calibration_bins(scores_NK[:, label], positive_N, num_bins=num_bins)
            filled_B = bins.num_rows_B > 0
            mean_B, frequency_B = bins.mean_probability_B[filled_B], bins.frequency_B[filled_B]
            # Bars of one standard error: where a bin holds few rows, its point means little.
            error_B = np.sqrt(frequency_B * (1 - frequency_B) / bins.num_rows_B[filled_B])
            upper.errorbar(
                mean_B,
                frequency_B,
                yerr=error_B,
                color=colour,
                marker=marker,
                markersize=4.5,
                elinewidth=0.9,
                label=name,
            )
            lower.stairs(bins.num_rows_B, bins.edges, color=colour, linewidth=1.4)
    event = f'"{short(labels[1])}"' if len(labels) == 2 else "each label (after calibration)"
    upper.set(title=f"Reliability of {event}", ylabel="share of rows with the label", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(loc="upper left")
    lower.set(xlabel="mean predicted probability of the bin", ylabel="rows a bin")


def _draw_roc_pr(
    canvas: Figure, columns: Columns, known_N: npt.NDArray[np.bool_], labels: Sequence[str], drawn: list[int]
) -> None:
    left, right = canvas.subplots(1, 2)
    truth_N = columns.label_N[known_N]
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES, label="chance")
    for label in drawn:
        name = "model" if len(labels) == 2 else f"label {short(labels[label])}"
        colour = CALIBRATED if len(labels) == 2 else _colour(drawn, label)
        _curves(left, right, columns.probability_NK[known_N, label], truth_N == label, name, color=colour)
    if len(labels) == 2:
        share = float(np.mean(truth_N == 1))
        right.axhline(share, color=MUTED, linewidth=1, linestyle=DASHES, label=f"chance ({share:.2f})")
        if columns.true_probability_N is not None:
            style = {"color": TRUTH, "linestyle": "--", "linewidth": 1.3}
            _curves(
                left,
                right,
                columns.true_probability_N[known_N],
                truth_N == 1,
                "true probability",
                **style,
            )
    kind = f'positive: "{short(labels[1])}"' if len(labels) == 2 else "each label against the rest"
    canvas.suptitle(kind, fontsize=9.5)
    left.set(title="ROC", xlabel="false positive rate (share of other rows)")
    left.set_ylabel("true positive rate (share of rows found)")
    right.set(title="Precision and recall", xlabel="recall (share of rows found)")
    right.set_ylabel("precision (share of flagged rows that are right)")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    left.legend(loc="lower right")
    right.legend(loc="lower left")


def _curves(
    left: Axes, right: Axes, score_N: FloatArray, positive_N: npt.NDArray[np.bool_], name: str, **style: Any
) -> None:
    false_rate, true_rate, _ = roc_curve(positive_N, score_N)
    precision, recall, _ = precision_recall_curve(positive_N, score_N)
    left.plot(false_rate, true_rate, label=name, **style)
    # Steps, because precision does not run straight between two thresholds.
    right.step(recall, precision, where="post", label=name, **style)


def _draw_scores(
    canvas: Figure,
    columns: Columns,
    known_N: npt.NDArray[np.bool_],
    labels: Sequence[str],
    drawn: list[int],
    threshold: float | None,
) -> None:
    axes = canvas.subplots()
    truth_N, probability_NK = columns.label_N[known_N], columns.probability_NK[known_N]
    edges = np.linspace(0, 1, 21).tolist()
    if len(labels) == 2:
        for label in (0, 1):
            scores = probability_NK[truth_N == label, 1]
            colour, name = LABEL_COLOURS[label], f"true label {short(labels[label])} ({len(scores)} rows)"
            axes.hist(scores, edges, color=colour, alpha=0.55, histtype="stepfilled", label=name)
        if threshold is not None:
            axes.axvline(
                threshold, color=TRUTH, linewidth=1.4, linestyle="--", label=f"operating threshold {threshold:.3f}"
            )
        axes.set_title("Calibrated probability by true label")
        axes.set_xlabel(f'calibrated probability of "{short(labels[1])}"')
    else:
        for label in drawn:
            scores = probability_NK[truth_N == label, label]
            name = f"true label {short(labels[label])} ({len(scores)} rows)"
            axes.hist(scores, edges, color=_colour(drawn, label), histtype="step", linewidth=1.6, label=name)
        axes.set_title("Calibrated probability of the true label")
        axes.set_xlabel("calibrated probability of the row's own label")
    axes.set_ylabel("rows a bin of width 0.05")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _colour(drawn: list[int], label: int) -> str:
    return LABEL_COLOURS[drawn.index(label)]
