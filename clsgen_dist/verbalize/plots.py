"""Two pictures of a study: reliability before and after scaling, precision and recall by threshold.

Shape legend: N rows, K labels, B bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from clsgen_dist.evaluate.canvas import CALIBRATED, DASHES, MUTED, RAW, figure, short
from clsgen_dist.evaluate.metrics import calibration_bins
from clsgen_dist.records import UNLABELLED
from clsgen_dist.verbalize.study import Study
from clsgen_dist.verbalize.table import flags
from clsgen_dist.verbalize.titles import title_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Colour of the baseline that is drawn to be avoided.
BASELINE = "#CC79A7"


#: Inverted softmax and a temperature.
_PROPOSED, PROPOSED = "invert_softmax_temperature", "#009E73"


def write_study_plots(folder: Path, study: Study) -> dict[str, Path]:
    """Draw verbalized_reliability.png and verbalized_thresholds.png; the same study gives the same bytes.

    Args:
        folder: where to write; must exist.
        study: what to draw, on the rows that the methods drawn have something for.

    Returns:
        Path of each picture by name: reliability, thresholds. Empty where nothing was scaled.
    """
    before, after = study.metrics["before"], study.metrics["after"]
    if before is None or after is None:
        return {}
    known_N = (study.test.labels_N != UNLABELLED) & ~np.isnan(study.probabilities[before]).any(axis=1)
    labels_N = study.test.labels_N[known_N]
    shown = {name: study.probabilities[name][known_N] for name in (before, after)}
    paths = {name: folder / f"verbalized_{name}.png" for name in ("reliability", "thresholds")}
    with figure(paths["thresholds"], 9.2, 3.9) as canvas:
        _draw_thresholds(canvas, shown, labels_N, study.metrics["labels"], before)
    if before == "raw":
        # What the paper proposes and what it warns of are always there, whatever was chosen.
        shown.setdefault(_PROPOSED, study.probabilities[_PROPOSED][known_N])
        shown["resoftmax_temperature"] = study.probabilities["resoftmax_temperature"][known_N]
    with figure(paths["reliability"], 5.4, 5.6) as canvas:
        _draw_reliability(canvas, shown, labels_N, study.metrics["labels"], study.metrics["num_bins"], before)
    return paths


def _colour(name: str, before: str) -> str:
    if name == "resoftmax_temperature":
        return BASELINE
    if name == _PROPOSED and before == "raw":
        return PROPOSED
    return RAW if name == before else CALIBRATED


def _draw_reliability(
    canvas: Figure,
    shown: Mapping[str, FloatArray],
    labels_N: IntArray,
    labels: list[str],
    num_bins: int,
    before: str,
) -> None:
    upper, lower = canvas.subplots(2, 1, sharex=True, height_ratios=[3.4, 1.0])
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=DASHES, label="perfect")
    markers = dict(zip(shown, ("s", "o", "D", "^"), strict=False))
    for name, probability_NK in shown.items():
        if len(labels) == 2:
            event_N, happened_N = probability_NK[:, 1], labels_N == 1
        else:
            event_N, happened_N = probability_NK.max(axis=1), probability_NK.argmax(axis=1) == labels_N
        bins = calibration_bins(event_N, happened_N, num_bins=num_bins)
        filled_B = bins.num_rows_B > 0
        frequency_B = bins.frequency_B[filled_B]
        upper.errorbar(
            bins.mean_probability_B[filled_B],
            frequency_B,
            # Bars of one standard error: where a bin holds few rows, its point means little.
            yerr=np.sqrt(frequency_B * (1 - frequency_B) / bins.num_rows_B[filled_B]),
            color=_colour(name, before),
            marker=markers[name],
            markersize=4.5,
            elinewidth=0.9,
            linestyle="--" if name == "resoftmax_temperature" else "-",
            label=title_of(name),
        )
        lower.stairs(bins.num_rows_B, bins.edges, color=_colour(name, before), linewidth=1.4)
    event = f'"{short(labels[1])}"' if len(labels) == 2 else "the label with the largest probability"
    what = "with the label" if len(labels) == 2 else "where it is right"
    upper.set(title=f"Reliability of {event}", ylabel=f"share of rows {what}", xlim=(0, 1), ylim=(-0.02, 1.02))
    upper.legend(loc="upper left")
    lower.set(xlabel="mean probability of the bin", ylabel="rows a bin")


def _draw_thresholds(
    canvas: Figure, shown: Mapping[str, FloatArray], labels_N: IntArray, labels: list[str], before: str
) -> None:
    left, right = canvas.subplots(1, 2, sharex=True, sharey=True, gridspec_kw={"wspace": 0.08})
    for name, probability_NK in shown.items():
        probability_M, right_M = flags(probability_NK, labels_N)
        precision_T, recall_T, threshold_T = precision_recall_curve(right_M, probability_M)
        style = {"color": _colour(name, before), "linestyle": "--" if name == before else "-"}
        # A value holds from the threshold below it, which is left out, to its own; the first one from 0 on. Above the
        # last threshold nothing is flagged: recall is 0, and precision undefined.
        start = [0.0, *threshold_T]
        left.step(start, [precision_T[0], *precision_T[:-1]], where="pre", label=title_of(name), **style)
        right.step([*start, 1.0], [recall_T[0], *recall_T], where="pre", label=title_of(name), **style)
    of = f'"{short(labels[1])}"' if len(labels) == 2 else "each label of each row"
    left.set(title="Precision by threshold", ylabel="share", xlabel="threshold", xlim=(0, 1), ylim=(-0.02, 1.02))
    right.set(title="Recall by threshold", xlabel="threshold")
    canvas.suptitle(f"flagged: {of}, at least the threshold", fontsize=9.5)
    left.legend(loc="lower right")
