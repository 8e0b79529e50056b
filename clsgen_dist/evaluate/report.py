"""One evaluation as one page: self-contained, printable, without scripts or network.

Texts and explanations come from anywhere, so the template escapes all of them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from clsgen_dist.page import write_page
from clsgen_dist.records import Prediction, Row

#: Example rows of each kind (right, wrong, unsure).
EXAMPLES_PER_KIND = 4

#: Characters of a text or an explanation that an example shows.
MAX_EXAMPLE_CHARACTERS = 900

#: Rows of the table of metrics: key, name, what it says.
METRICS = (
    ("auroc", "AUROC", "ranking; 0.5 is chance, 1 is perfect"),
    ("auprc", "AUPRC", "average precision; chance is the share of positives"),
    ("f1", "F1", "decisions at the threshold; higher is better"),
    ("accuracy", "Accuracy", "share of right decisions"),
    ("nll", "NLL", "nats a row; lower is better"),
    ("brier", "Brier score", "squared error; lower is better"),
    ("ece", "ECE", "calibration error; lower is better, never quite 0 on few rows"),
    ("ece_top_label", "ECE, top label", "calibration error of the largest probability"),
)

HEADLINES = ("auroc", "f1", "nll", "ece")

CAPTIONS = {
    "reliability": "Of the rows to which the model gives a probability of 0.7, 7 in 10 should have the label. Below: "
    "how many rows stand behind each point. Bars: one standard error.",
    "roc_pr": "What any other threshold would give: rows found against false alarms.",
    "scores": "Where the probabilities lie, and how well they keep the labels apart.",
}


def write_report(
    path: Path,
    metrics: Mapping[str, Any],
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    plots: Mapping[str, Path],
    facts: Mapping[str, str],
) -> None:
    """Write the report of one evaluation.

    Args:
        path: the HTML file to write.
        metrics: content of metrics.json, as `evaluate` makes it.
        predictions: what the model says, one a row.
        rows: the rows of the split, in any order.
        plots: pictures by name, PNG; they are copied into the page.
        facts: what there is to know of data and model, name -> value, in the order to show them.
    """
    write_page(
        path,
        "evaluate/report.html.j2",
        {"number": _number},
        m=metrics,
        labels=metrics["labels"],
        headlines=[(key, name) for key, name, _ in METRICS if key in HEADLINES],
        metric_rows=METRICS,
        pictures=[(name, _data_uri(plot), CAPTIONS.get(name, "")) for name, plot in plots.items()],
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


def _number(value: Any) -> str:
    """A metric for people: counts as they are, None as undefined."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return "undefined" if value is None else str(value)


def _clip(text: str) -> str:
    if len(text) <= MAX_EXAMPLE_CHARACTERS:
        return text
    left_out = len(text) - MAX_EXAMPLE_CHARACTERS
    return f"{text[:MAX_EXAMPLE_CHARACTERS].rstrip()} \u2026 [{left_out} more characters]"


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
