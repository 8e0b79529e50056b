"""One evaluation as one page: self-contained, printable, without scripts or network.

Texts and explanations come from anywhere, so the template escapes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clsgen_dist.evaluate.confusion import count_confusions
from clsgen_dist.evaluate.examples import choose_examples, to_example
from clsgen_dist.evaluate.explanation_tables import (
    alignment_lines,
    contradictions_by_confidence,
    form_lines,
    say_range,
)
from clsgen_dist.evaluate.language_wording import language_lines, other_numbers, say_change, say_language
from clsgen_dist.evaluate.limits import GENERAL, say_limits
from clsgen_dist.evaluate.parts import TRAITS
from clsgen_dist.evaluate.summary_wording import say_summary
from clsgen_dist.evaluate.wording import say_calibrator, say_prior, say_rule, shares_differ
from clsgen_dist.page import embed_picture, say_number, say_percent, say_span, write_page
from clsgen_dist.records import Prediction, Row

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
    "reliability": "Of the rows to which the model gives a probability of 0.7, 7 in 10 should be as it says. Grey: "
    "where the points of a model whose probabilities are all right would lie, for as many rows as these, 19 times in "
    "20; only a point outside is a sign of an error. Below: how many rows stand behind each point.",
    "reliability_labels": "The same for the probability of each label, held against the dashed line.",
    "roc": "What any other threshold would give: rows found against false alarms.",
    "precision_recall": "How many of the flagged rows are right, the more of the label's rows are found.",
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
    labels = metrics["labels"]
    confusion = count_confusions(predictions, labels)
    shares = [int(count) / metrics["num_labelled_rows"] for count in confusion.num_rows_KK.sum(axis=1)]
    prior = decision.get("prior")
    moved = prior is not None and shares_differ(prior, labels, shares, metrics["num_labelled_rows"])
    notes = [SIMULATED] if "bayes" in metrics else []
    notes += [say_prior(prior, labels, shares)] if prior is not None and moved else []
    notes += [f"Calibration: {warning}." for warning in decision.get("warnings", ())]
    explanation, language = metrics["explanation"], metrics["language"]
    kinds = choose_examples(predictions, rows, metrics["threshold"])
    write_page(
        path,
        "evaluate/report.html.j2",
        {
            "number": say_number,
            "thousands": lambda count: f"{count:,}",
            "percent": say_percent,
            "change": say_change,
        },
        m=metrics,
        labels=labels,
        notes=notes,
        # Rows with other shares of labels cannot say whether probabilities are right where they will be used.
        summary=say_summary(metrics, confusion, moved),
        limits=say_limits(metrics, confusion, moved),
        general_limits=GENERAL,
        confusion=confusion,
        calibrator=say_calibrator(decision["calibrator"]),
        rule=say_rule(decision) if "threshold_rule" in decision else None,
        d={"prior": None, "candidates": (), "threshold_ci": None} | dict(decision),
        traits=TRAITS,
        span=say_span,
        headlines=[(key, name) for key, name, _ in METRICS + CALIBRATION if key in HEADLINES],
        tables=(("Probabilities", METRICS), ("Calibration", CALIBRATION)),
        pictures={name: (embed_picture(plot), CAPTIONS[name]) for name, plot in plots.items()},
        alignment=alignment_lines(explanation),
        by_confidence=contradictions_by_confidence(explanation),
        form=form_lines(explanation),
        range=say_range,
        language_lines=language_lines(language),
        language_numbers=other_numbers(language),
        language_words=say_language(language, explanation),
        kinds=[(title, [to_example(*pair) for pair in chosen]) for title, chosen in kinds],
        facts=facts,
        simulated="bayes" in metrics,
    )
