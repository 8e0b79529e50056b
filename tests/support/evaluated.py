"""Evaluations made up: what a fair but overconfident model would say of rows whose true probability is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.evaluate.evaluation import evaluate
from clsgen_dist.evaluate.plots import write_plots
from clsgen_dist.evaluate.report import write_report
from clsgen_dist.records import Prediction, Row

Split = tuple[list[Prediction], list[Row]]

CALIBRATOR = Calibrator(method="temperature", parameters={"temperature": (2.0,)}, num_rows=500)


def simulate_split(num_rows: int, labels: list[str], *, threshold: float | None, seed: int = 0) -> Split:
    """Rows in groups of two; every tenth without a label, every fourth without explanation."""
    generator = np.random.default_rng(seed)
    num_labels = len(labels)
    honest_NK = generator.normal(size=(num_rows, num_labels)) * 1.3
    true_NK = IDENTITY.apply(honest_NK)
    truth_N = (generator.random((num_rows, 1)) > true_NK.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    logits_NK = 2 * honest_NK + 0.3 * generator.normal(size=honest_NK.shape)
    raw_NK, calibrated_NK = IDENTITY.apply(logits_NK), CALIBRATOR.apply(logits_NK)
    predicted_N = decide(calibrated_NK, threshold)
    rows, predictions = [], []
    for i in range(num_rows):
        label = None if i % 10 == 9 else int(truth_N[i])
        true_probability = float(true_NK[i, 1]) if num_labels == 2 else None
        explained = i % 4 != 3
        verdict = labels[predicted_N[i] if i % 5 else truth_N[i]] if explained and i % 7 else None
        rows.append(
            Row(id=f"r{i}", text=f"text {i}", label=label, group=f"g{i // 2}", true_probability=true_probability)
        )
        predictions.append(
            Prediction(
                id=f"r{i}",
                label=None if label is None else labels[label],
                probability=dict(zip(labels, calibrated_NK[i].tolist(), strict=True)),
                raw_probability=dict(zip(labels, raw_NK[i].tolist(), strict=True)),
                predicted=labels[predicted_N[i]],
                explanation=f"{labels[predicted_N[i]]}. Because of {i}." if explained else None,
                free_verdict=verdict,
                free_explanation=f"Because of {i}." if explained else None,
                is_cut=False,
                is_free_cut=False,
                logits=logits_NK[i].tolist(),
            )
        )
    return predictions, rows


def metrics_of(split: Split, labels: list[str], threshold: float | None) -> dict[str, Any]:
    """The content of metrics.json, with numbers of the language that no model said."""
    metrics = evaluate(
        *split,
        labels=labels,
        threshold=threshold,
        calibrated=True,
        costs=None,
        sure_probability=0.9,
        num_bootstrap=100,
        num_bins=10,
        seed=0,
    )
    return metrics | {"language": {"distinct_2": 0.512, "num_words": 12, "reference_explanation_nll": 1.25}}


def draw(folder: Path, split: Split, labels: list[str], threshold: float | None) -> dict[str, Path]:
    """All pictures of the split, in a folder."""
    return write_plots(folder, *split, labels=labels, threshold=threshold, sure_probability=0.9, num_bins=10)


def render(
    folder: Path,
    split: Split,
    labels: list[str],
    threshold: float | None,
    *,
    decision: dict[str, Any] | None = None,
    with_pictures: bool = False,
    run: str = "demo <1>",
    **changes: Any,
) -> str:
    """Writes report.html into a folder and returns the page.

    Args:
        folder: where to write.
        split, labels, threshold: what is reported.
        decision: how the bundle came to decide; None: nobody calibrated it.
        with_pictures: draw them, too.
        run: name of the run.
        changes: parts of the metrics.
    """
    plots = draw(folder, split, labels, threshold) if with_pictures else {}
    write_report(
        folder / "report.html",
        metrics_of(split, labels, threshold) | changes,
        *split,
        plots,
        {"Run": run, "Backbone": "a small one"},
        decision or {"calibrator": IDENTITY.to_json()},
    )
    return (folder / "report.html").read_text(encoding="utf-8")


def everything_measured(explanation: dict[str, Any]) -> dict[str, Any]:
    """Parts of metrics.json that need a model: all readers, form, faithfulness, references and language.

    Args:
        explanation: what `evaluate` says of explanations.
    """
    bands = [(0.5, 0.6, 12, 0.25), (0.6, 0.9, 61, 0.0984), (0.9, 1.0, 102, 0.0)]
    by_confidence = [{"low": a, "high": b, "num_rows": n, "contradiction_rate": rate} for a, b, n, rate in bands]
    free = dict(explanation) | {"agreement": 0.9, "kappa_ci": [0.801, 0.912], "auroc_alignment_ci": [0.955, 0.999]}
    free["by_confidence"] = by_confidence
    own = free | {"kappa": 1.0, "kappa_ci": [1.0, 1.0], "contradiction_rate": 0.0, "coverage": 1.0, "unparsed": 0}
    text = free | {"kappa": 0.7123, "contradiction_rate": 0.1411, "coverage": 0.8}
    form = {
        **{"num_rows": 200, "empty_share": 0.01, "cut_share": 0.08, "duplicate_share": 0.12, "mean_words": 14.2},
        **{"flesch_reading_ease": 71.4, "flesch_kincaid_grade": 6.1, "rep_2": 0.031, "rep_3": 0.011, "rep_4": 0.0042},
        **{"distinct_1": 0.21, "distinct_2": 0.52, "distinct_3": 0.74},
    }
    explanation = explanation | {
        "readers": {
            "verdict": {"free": free, "conditioned": own},
            "text": {
                "free": text,
                "conditioned": text | {"kappa": 0.7321},
                "reader": {"accuracy": 0.871, "accuracy_ci": [0.84, 0.9], "coverage": 0.77, "num_rows": 1200},
            },
        },
        "unavailable": {"judge": "no endpoint is set; see evaluate.judge <here>"},
        "form": {"free": form, "conditioned": form | {"mean_words": 15.9}},
        "references": {
            **{"num_rows": 150, "chrf_free": 31.4, "chrf_conditioned": 32.9, "chrf_other_rows": 17.2},
            **{"num_rows_with_several": 150, "chrf_references": 30.1},
        },
        "faithfulness": {
            "num_rows": 64,
            "swap_share": 0.9219,
            "swap_share_ci": [0.827, 0.974],
            "mean_log_ratio": 0.215,
            "mean_log_ratio_ci": [0.151, 0.281],
            "mean_log_ratio_per_row": 3.015,
            "correlation": 0.412,
            "correlation_ci": None,
            "by_confidence": [
                {"low": 0.5, "high": 0.9, "num_rows": 30, "swap_share": 0.86, "mean_log_ratio": 0.11},
                {"low": 0.9, "high": 1.0, "num_rows": 34, "swap_share": 0.98, "mean_log_ratio": 0.29},
            ],
        },
    }
    language = {
        "reference_explanation_nll": 1.412,
        "reference_explanation_nll_base": 2.203,
        "general_text_nll": 3.157,
        "general_text_nll_base": 2.889,
        "general_text_change": 0.09277,
        "general_text_kl": 0.211,
        "general_text_change_ci": [0.081, 0.104],
        "num_general_tokens": 4096,
        "num_reference_rows": 180,
        "num_free_rows": 200,
        "explanation_nll_under_base": 1.951,
        "free_rep_4": 0.0042,
        "base": None,
    }
    return {"explanation": explanation, "language": language}
