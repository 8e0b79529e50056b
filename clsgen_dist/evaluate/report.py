"""One evaluation as one page: self-contained, printable, without scripts or network.

Texts and explanations come from anywhere, so the template escapes all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from clsgen_dist.evaluate.parts import TRAITS
from clsgen_dist.evaluate.wording import say_calibrator, say_prior, say_rule, say_verdict, shares_differ
from clsgen_dist.page import embed_picture, say_number, say_percent, say_span, write_page
from clsgen_dist.records import Prediction, Row

#: Example rows of each kind (right, wrong, unsure).
EXAMPLES_PER_KIND = 4

#: Characters of a text or an explanation that an example shows.
MAX_EXAMPLE_CHARACTERS = 900

#: What is said above figures of rows that a generator made.
SIMULATED = "These rows are simulated. The figures show that the method works; they say nothing about real texts."

#: Rows of the table of metrics: key, name, what it says.
METRICS = (
    ("auroc", "AUROC", "ranking; 0.5 is chance, 1 is perfect"),
    ("auprc", "AUPRC", "average precision; chance is the share of positives"),
    ("f1", "F1", "decisions at the threshold; higher is better"),
    ("accuracy", "Accuracy", "share of right decisions"),
    ("nll", "NLL", "nats a row; lower is better"),
    ("brier", "Brier score", "squared error; lower is better"),
)

#: Rows of the table of calibration.
CALIBRATION = (
    ("ece", "ECE", "calibration error in bins of equal width; never 0, so hold it against the next line"),
    ("ece_null", "ECE of a perfect model", "what chance alone shows on as many rows, with the middle 95 % of it"),
    ("ece_equal_mass", "ECE, equal mass", "the same in bins of equally many rows"),
    ("ece_top_label", "ECE, top label", "calibration error of the largest probability"),
    ("mce", "MCE", "the worst bin; one bin of few rows decides it"),
    ("calibration_slope", "Slope", "1 is right; below 1 probabilities are too extreme, above 1 too cautious"),
    ("calibration_intercept", "Intercept", "nats of log-odds, beside that slope; 0 is right"),
    (
        "calibration_in_the_large",
        "Too low by (calibration in the large)",
        "nats of log-odds; below 0 probabilities are too high",
    ),
    ("brier_reliability", "Brier: reliability", "the part of the score that calibrating could remove"),
    ("brier_resolution", "Brier: resolution", "how far probabilities tell rows apart; higher is better"),
    ("brier_uncertainty", "Brier: uncertainty", "of the labels alone; score = reliability - resolution + this"),
)

HEADLINES = ("auroc", "f1", "nll", "ece")

CAPTIONS = {
    "reliability": "Of the rows to which the model gives a probability of 0.7, 7 in 10 should have the label. Below: "
    "how many rows stand behind each point. Bars: one standard error.",
    "roc_pr": "What any other threshold would give: rows found against false alarms.",
    "scores": "Where the probabilities lie, and how well they keep the labels apart.",
    "risk_coverage": "Answering only the rows that the model is surest of, and leaving the others to a person: how "
    "many answers are wrong. On the left few rows stand behind the curve, and each mistake makes it jump.",
    "decision_curve": "Whoever acts from a probability of 0.2 on holds a false alarm for a quarter as bad as a row "
    "found is good. The model is of use at a threshold where its curve is above both flagging all and flagging none.",
}


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    plots: Mapping[str, Path],
    facts: Mapping[str, str],
    decision: Mapping[str, Any],
) -> None:
    """Write the report of one evaluation.

    Args:
        path: the HTML file to write.
        metrics: content of metrics.json, as `evaluate` makes it.
        predictions: what the model says, one a row.
        rows: the rows of the split, in any order.
        plots: pictures by name, PNG; they are copied into the page.
        facts: what there is to know of data and model, name -> value, in the order to show them.
        decision: calibrator (as `Calibrator.to_json`), and what a bundle's `Decision.facts` say of how it and the
            threshold were found.
    """
    num_labelled = Counter(prediction.label for prediction in predictions)
    shares = [num_labelled[name] / metrics["num_labelled_rows"] for name in metrics["labels"]]
    prior = decision.get("prior")
    moved = prior is not None and shares_differ(prior, metrics["labels"], shares, metrics["num_labelled_rows"])
    notes = [SIMULATED] if "bayes" in metrics else []
    notes += [say_prior(prior, metrics["labels"], shares)] if prior is not None and moved else []
    notes += [f"Calibration: {warning}." for warning in decision.get("warnings", ())]
    write_page(
        path,
        "evaluate/report.html.j2",
        {"number": say_number, "thousands": lambda count: f"{count:,}", "percent": say_percent},
        m=metrics,
        notes=notes,
        # Rows with other shares of labels cannot say whether probabilities are right where they will be used.
        verdict=None if moved else say_verdict(metrics),
        calibrator=say_calibrator(decision["calibrator"]),
        rule=say_rule(decision) if "threshold_rule" in decision else None,
        d={"prior": None, "candidates": (), "threshold_ci": None} | dict(decision),
        traits=TRAITS,
        span=say_span,
        labels=metrics["labels"],
        headlines=[(key, name) for key, name, _ in METRICS + CALIBRATION if key in HEADLINES],
        tables=(("Probabilities", METRICS), ("Calibration", CALIBRATION)),
        pictures={name: (embed_picture(plot), CAPTIONS[name]) for name, plot in plots.items()},
        kinds=choose_examples(predictions, rows, metrics["threshold"]),
        facts=facts,
        simulated="bayes" in metrics,
        clip=_clip,
    )


def choose_examples(
    predictions: Sequence[Prediction], rows: Sequence[Row], threshold: float | None
) -> list[tuple[str, list[tuple[Prediction, Row]]]]:
    """Up to twelve rows to read: surest right answers, surest wrong ones, and those nearest to the decision.

    Rows with an explanation go first. Right and wrong answers take turns between the predicted labels, so that a
    frequent label does not fill the page.

    Returns:
        (title, [(prediction, row), ...]) of each kind that has any; no row stands twice.
    """
    row_of = {row.id: row for row in rows}
    ranked = sorted(predictions, key=lambda p: (p.explanation is None, -abs(_margin(p, threshold)), p.id))
    right = _take_turns([p for p in ranked if p.label is not None and p.label == p.predicted])
    wrong = _take_turns([p for p in ranked if p.label is not None and p.label != p.predicted])
    shown = {p.id for p in (*right, *wrong)}
    rest = [p for p in predictions if p.id not in shown]
    unsure = sorted(rest, key=lambda p: (p.explanation is None, abs(_margin(p, threshold)), p.id))[:EXAMPLES_PER_KIND]
    kinds = (("Surest right answers", right), ("Surest wrong answers", wrong), ("Nearest to the decision", unsure))
    return [(title, [(p, row_of[p.id]) for p in chosen]) for title, chosen in kinds if chosen]


def _take_turns(ranked: list[Prediction]) -> list[Prediction]:
    """The first few, taking turns between predicted labels."""
    names = sorted({p.predicted for p in ranked})
    turns = zip_longest(*([p for p in ranked if p.predicted == name] for name in names))
    return [p for turn in turns for p in turn if p is not None][:EXAMPLES_PER_KIND]


def _margin(prediction: Prediction, threshold: float | None) -> float:
    """How far a probability lies from tipping the decision, 0 to 1."""
    probabilities = list(prediction.probability.values())
    if threshold is not None and len(probabilities) == 2:
        return probabilities[1] - threshold
    first, second = sorted(probabilities, reverse=True)[:2]
    return first - second


def _clip(text: str) -> str:
    if len(text) <= MAX_EXAMPLE_CHARACTERS:
        return text
    left_out = len(text) - MAX_EXAMPLE_CHARACTERS
    return f"{text[:MAX_EXAMPLE_CHARACTERS].rstrip()} \u2026 [{left_out} more characters]"
