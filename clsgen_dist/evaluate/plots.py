"""Three pictures of one evaluation. The same input gives the same bytes.

Shape legend: N rows, K labels.

Drawn on figures of their own, without pyplot: no window system, no state that one picture leaves to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from clsgen_dist.evaluate.evaluation import Columns, to_columns
from clsgen_dist.evaluate.metrics import calibration_bins, checked
from clsgen_dist.records import UNLABELLED, Prediction, Row

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Okabe and Ito's colours, which people with any colour vision tell apart; one meaning, one colour in all pictures.
CALIBRATED, RAW, TRUTH, MUTED = "#0072B2", "#D55E00", "#222222", "#8a8a8a"
LABEL_COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#B8A800", "#666666")

#: Labels drawn at most, the most frequent ones: more curves than colours cannot be told apart.
MAX_CURVES = len(LABEL_COLOURS)

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


def write_plots(
    folder: Path,
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    *,
    labels: Sequence[str],
    threshold: float | None,
    num_bins: int,
) -> dict[str, Path]:
    """Draw reliability.png, roc_pr.png and scores.png of the labelled rows.

    Args:
        folder: where to write; must exist.
        predictions: what the model says, one a row.
        rows: the rows of the split, in any order.
        labels: names of the labels in the order of their numbers.
        threshold: operating threshold of the last label of two, or None.
        num_bins: bins of equal width of the reliability diagram.

    Returns:
        Path of each picture by name: reliability, roc_pr, scores.

    Raises:
        DataError: predictions do not fit the rows, or there are not two labels to tell apart.
    """
    columns = to_columns(predictions, rows, labels)
    known_N = columns.label_N != UNLABELLED
    _, truth_N = checked(columns.probability_NK[known_N], columns.label_N[known_N])
    drawn = _drawn_labels(truth_N, len(labels))
    paths = {name: folder / f"{name}.png" for name in ("reliability", "roc_pr", "scores")}
    with _figure(paths["reliability"], 5.4, 5.6) as figure:
        _draw_reliability(figure, columns, known_N, labels, drawn, num_bins)
    with _figure(paths["roc_pr"], 9.2, 4.4) as figure:
        _draw_roc_pr(figure, columns, known_N, labels, drawn)
    with _figure(paths["scores"], 7.2, 3.8) as figure:
        _draw_scores(figure, columns, known_N, labels, drawn, threshold)
    return paths


@contextmanager
def _figure(path: Path, width_inches: float, height_inches: float) -> Iterator[Figure]:
    # From the defaults, so that a matplotlibrc of the machine changes nothing.
    style: Any = {**dict(mpl.rcParamsDefault), **STYLE}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Without the Software entry, which names a version, nothing in the file depends on when or by what it was made.
        figure.savefig(path, dpi=144, format="png", metadata={"Software": None})


def _drawn_labels(truth_N: IntArray, num_labels: int) -> list[int]:
    """Labels that get a curve: of two the last one; of more those that occur, the most frequent first up to a limit."""
    if num_labels == 2:
        return [1]
    num_rows_K = np.bincount(truth_N, minlength=num_labels)
    frequent = [int(k) for k in np.argsort(-num_rows_K, kind="stable") if num_rows_K[k]]
    return sorted(frequent[:MAX_CURVES])


def _draw_reliability(
    figure: Figure,
    columns: Columns,
    known_N: npt.NDArray[np.bool_],
    labels: Sequence[str],
    drawn: list[int],
    num_bins: int,
) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1.0])
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    truth_N = columns.label_N[known_N]
    raw_NK, probability_NK = columns.raw_probability_NK[known_N], columns.probability_NK[known_N]
    for label in drawn:
        positive_N = truth_N == label
        if len(labels) == 2:
            curves = [("raw", raw_NK, RAW, "s"), ("calibrated", probability_NK, CALIBRATED, "o")]
            if np.array_equal(raw_NK, probability_NK):
                curves = [("not calibrated", raw_NK, RAW, "s")]
        else:
            curves = [(f"label {_short(labels[label])}", probability_NK, _colour(drawn, label), "o")]
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
    event = f'"{_short(labels[1])}"' if len(labels) == 2 else "each label (after calibration)"
    upper.set(title=f"Reliability of {event}", ylabel="share of rows with the label", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(loc="upper left")
    lower.set(xlabel="mean predicted probability of the bin", ylabel="rows a bin")


def _draw_roc_pr(
    figure: Figure, columns: Columns, known_N: npt.NDArray[np.bool_], labels: Sequence[str], drawn: list[int]
) -> None:
    left, right = figure.subplots(1, 2)
    truth_N = columns.label_N[known_N]
    left.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="chance")
    for label in drawn:
        name = "model" if len(labels) == 2 else f"label {_short(labels[label])}"
        colour = CALIBRATED if len(labels) == 2 else _colour(drawn, label)
        _curves(left, right, columns.probability_NK[known_N, label], truth_N == label, name, color=colour)
    if len(labels) == 2:
        share = float(np.mean(truth_N == 1))
        right.axhline(share, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=f"chance ({share:.2f})")
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
    kind = f'positive: "{_short(labels[1])}"' if len(labels) == 2 else "each label against the rest"
    figure.suptitle(kind, fontsize=9.5)
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
    figure: Figure,
    columns: Columns,
    known_N: npt.NDArray[np.bool_],
    labels: Sequence[str],
    drawn: list[int],
    threshold: float | None,
) -> None:
    axes = figure.subplots()
    truth_N, probability_NK = columns.label_N[known_N], columns.probability_NK[known_N]
    edges = np.linspace(0, 1, 21).tolist()
    if len(labels) == 2:
        for label in (0, 1):
            scores = probability_NK[truth_N == label, 1]
            colour, name = LABEL_COLOURS[label], f"true label {_short(labels[label])} ({len(scores)} rows)"
            axes.hist(scores, edges, color=colour, alpha=0.55, histtype="stepfilled", label=name)
        if threshold is not None:
            axes.axvline(
                threshold, color=TRUTH, linewidth=1.4, linestyle="--", label=f"operating threshold {threshold:.3f}"
            )
        axes.set_title("Calibrated probability by true label")
        axes.set_xlabel(f'calibrated probability of "{_short(labels[1])}"')
    else:
        for label in drawn:
            scores = probability_NK[truth_N == label, label]
            name = f"true label {_short(labels[label])} ({len(scores)} rows)"
            axes.hist(scores, edges, color=_colour(drawn, label), histtype="step", linewidth=1.6, label=name)
        axes.set_title("Calibrated probability of the true label")
        axes.set_xlabel("calibrated probability of the row's own label")
    axes.set_ylabel("rows a bin of width 0.05")
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _colour(drawn: list[int], label: int) -> str:
    return LABEL_COLOURS[drawn.index(label)]


def _short(name: str) -> str:
    """A label name that fits a legend, on one line."""
    name = " ".join(name.split())
    return name if len(name) <= 28 else name[:27] + "\u2026"
