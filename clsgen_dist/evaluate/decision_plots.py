"""Pictures of decisions: how wrong the surest answers are, and what acting from a threshold on is worth.

Shape legend: N rows, K labels, D distinct confidences.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from clsgen_dist.evaluate.canvas import CALIBRATED, DASHES, MUTED, RAW, TRUTH, short
from clsgen_dist.evaluate.costs import CURVE_THRESHOLDS, net_benefit
from clsgen_dist.evaluate.selective import TIE_TOLERANCE, risk_coverage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: Answered rows below which the curve jumps with each mistake; the scale is made for the rest.
MIN_STEADY_ROWS = 20


def draw_risk_coverage(canvas: Figure, probability_NK: FloatArray, truth_N: IntArray, sure_probability: float) -> None:
    """The share of wrong answers among the surest ones, by how many are answered; a step for each confidence."""
    curve = risk_coverage(probability_NK, truth_N)
    axes = canvas.subplots()
    every = float(curve.risk_D[-1])
    axes.axhline(every, color=MUTED, linewidth=1, linestyle=DASHES, label=f"all rows answered ({100 * every:.1f} %)")
    # Whoever answers more than one step must answer the next one whole: the area is the AURC.
    coverage, risk = [0.0, *curve.coverage_D], [curve.risk_D[0], *curve.risk_D]
    axes.step(coverage, risk, where="pre", color=CALIBRATED, label="surest rows answered")
    sure_D = np.flatnonzero(curve.confidence_D >= sure_probability - TIE_TOLERANCE)
    if len(sure_D):
        point = curve.coverage_D[sure_D[-1]], curve.risk_D[sure_D[-1]]
        name = f"sure: probability of {sure_probability:g} or more"
        axes.plot(*point, color=TRUTH, marker="o", markersize=5, linestyle="none", label=name)
    steady_D = curve.coverage_D * curve.num_rows >= MIN_STEADY_ROWS
    highest = max(every, float(curve.risk_D[steady_D].max(initial=0.0)))
    axes.set(title="Wrong answers by share of rows answered", xlabel="share of rows answered, the surest first")
    axes.set(
        ylabel="wrong among the answered", xlim=(0, 1.01), ylim=(-0.03 * (highest or 1.0), 1.15 * (highest or 1.0))
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def draw_decision_curve(
    canvas: Figure,
    raw_N: FloatArray,
    probability_N: FloatArray,
    positive_N: BoolArray,
    label: str,
    threshold: float | None,
) -> None:
    """Net benefit of flagging from each threshold on, before and after calibration, beside flagging all or none."""
    axes = canvas.subplots()
    calibrated = net_benefit(probability_N, positive_N, CURVE_THRESHOLDS)
    raw = net_benefit(raw_N, positive_N, CURVE_THRESHOLDS)
    share = float(np.mean(positive_N))
    axes.plot(CURVE_THRESHOLDS, calibrated.treat_all_T, color=MUTED, linewidth=1, linestyle=DASHES, label="flag all")
    axes.axhline(0, color=TRUTH, linewidth=1, label="flag none")
    if not np.array_equal(raw_N, probability_N):
        axes.plot(CURVE_THRESHOLDS, raw.model_T, color=RAW, linewidth=1.3, linestyle="--", label="raw")
    axes.plot(CURVE_THRESHOLDS, calibrated.model_T, color=CALIBRATED, label="calibrated")
    if threshold is not None:
        axes.axvline(threshold, color=TRUTH, linewidth=1, linestyle=":", label=f"operating threshold {threshold:.3f}")
    axes.set(title=f'What flagging "{short(label)}" is worth', xlim=(0, 1), ylim=(-0.25 * share, 1.1 * share))
    axes.set(xlabel="flagged from this probability on", ylabel="net benefit, true positives a row")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
