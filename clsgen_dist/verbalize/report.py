"""One study as one page: self-contained, printable, without scripts or network, and without a text of any row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsgen_dist.calibrate.selection import NUM_STANDARD_ERRORS
from clsgen_dist.page import Filters, embed_picture, say_number, say_percent, say_span, write_page
from clsgen_dist.verbalize.parsing import FAULTS
from clsgen_dist.verbalize.titles import title_of
from clsgen_dist.verbalize.verdict import find_warnings, say_verdict

#: Columns of the table of methods: key, name.
COLUMNS = (
    ("nll", "NLL"),
    ("brier", "Brier"),
    ("ece", "ECE"),
    ("mce", "MCE"),
    ("ece_classwise", "ECE classwise"),
    ("accuracy", "Accuracy"),
    ("auroc", "AUROC"),
)

MEANINGS = (
    ("NLL", "negative log-likelihood, nats a row: what methods are chosen by. Lower is better. A true label that was "
     "said to have 0 counts as 708 nats, so \u201cas said\u201d is also shown with the floor."),
    ("Brier", "squared error. Lower is better."),
    ("ECE", "calibration error in bins of equal width; \u201cperfect\u201d is what a perfectly calibrated model with "
     "these probabilities shows on as many rows, with the middle 95 %: an ECE inside is no sign of miscalibration. "
     "The interval of the ECE itself leans upwards, as "
     "resampling adds noise to every bin, and may lie above it."),
    ("MCE", "the largest calibration error of a bin; one bin of few rows decides it."),
    ("ECE classwise", "mean calibration error of all labels, each against the rest."),
    ("Accuracy", "share of rows whose label has the largest probability."),
    ("AUROC", "ranking; 0.5 is chance, 1 is perfect. No temperature changes it where there are two labels."),
    ("T", "the temperature: above 1 the model was too sure."),
)  # fmt: skip

TRAITS = {
    "region": "Region of confidence: the largest probability that was given before scaling",
    "length": "Length of the text",
    "readability": "Readability of the text (English)",
    "negation": "Negation in the text (English)",
    "hedging": "Words of doubt in the text (English)",
}

CAPTIONS = {
    "reliability": "Where a probability of 0.7 is given, 7 in 10 should have the label: the nearer to the dashed "
    "line, the better. Below: how many rows stand behind each point. Bars: one standard error. Re-softmax squeezes "
    "what was said into a narrow range before it scales; its NLL shows what that costs.",
    "thresholds": "What flagging everything from a threshold on gives. Scaling moves thresholds; a threshold chosen "
    "before scaling must not be kept after it.",
}


def write_study_report(
    path: Path, metrics: Mapping[str, Any], plots: Mapping[str, Path], facts: Mapping[str, str]
) -> None:
    """Write the page; the same values give the same bytes.

    Args:
        path: the HTML file to write; its folder exists.
        metrics: content of verbalized/metrics.json, as `study` makes it.
        plots: pictures by name, PNG; they are copied into the page.
        facts: what there is to know of model, prompt and rows, name -> value, in the order to show them; "Run" is the
            title.
    """
    filters: Filters = {
        "number": say_number,
        "floor": lambda floor: f"{floor:.3g}",
        "thousands": lambda count: f"{count:,}",
        "percent": say_percent,
        "title_of": title_of,
    }
    parsed = [(name, metrics[name]) for name in metrics["sources"] if name in metrics]
    write_page(
        path,
        "verbalize/report.html.j2",
        filters,
        m=metrics,
        verdict=say_verdict(metrics),
        warnings=find_warnings(metrics),
        tables=_tables(metrics, parsed),
        columns=COLUMNS,
        meanings=MEANINGS,
        pictures=[(name, embed_picture(plot), CAPTIONS[name]) for name, plot in plots.items()],
        failures=_merge_failures(metrics),
        fault_sentences=FAULTS,
        traits=TRAITS,
        parts=_pair_parts(metrics["parts"]),
        facts=facts,
        num_errors=NUM_STANDARD_ERRORS,
        span=say_span,
    )


def _tables(
    metrics: Mapping[str, Any], parsed: list[tuple[str, Mapping[str, Any]]]
) -> list[tuple[str, str, list[tuple[str, Mapping[str, Any]]]]]:
    """(title, meaning, [(method, its numbers)]) of the two tables; one where nothing failed."""
    everywhere = list(metrics["all_rows"].items())
    if all(entry["num_rows"] == metrics["num_labelled_rows"] for _, entry in parsed) and len(parsed) == len(everywhere):
        return [("All rows", "Every answer was understood.", parsed)]
    tables = [
        (
            "All rows",
            "What a user gets: where a method has nothing for a row, the share of each label among the rows of the fit "
            "stands in.",
            everywhere,
        )
    ]
    if parsed:
        words = "Each method on the rows that it has something for. Failures are no random part of the rows."
        tables.insert(0, ("Rows with a distribution", words, parsed))
    return tables


def _merge_failures(metrics: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(cause, answers to fit on, answers to test on), the most frequent first."""
    fit, test = metrics["failures_fit"], metrics["failures"]
    merged = [(cause, fit.get(cause, 0), test.get(cause, 0)) for cause in {**fit, **test}]
    return sorted(merged, key=lambda entry: (-entry[1] - entry[2], entry[0]))


def _pair_parts(
    parts: Mapping[str, Mapping[str, list[Mapping[str, Any]]]],
) -> dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Trait -> [(part before, the same part after)]."""
    return {trait: list(zip(*of_method.values(), strict=True)) for trait, of_method in parts.items()}
