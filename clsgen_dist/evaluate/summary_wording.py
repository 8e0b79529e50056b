"""The first lines of a report: what a person who decides has to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clsgen_dist.evaluate.confusion import Confusion
from clsgen_dist.evaluate.language_wording import say_language
from clsgen_dist.evaluate.limits import majority
from clsgen_dist.evaluate.wording import say_verdict
from clsgen_dist.page import say_number, say_percent, say_span


def say_summary(metrics: Mapping[str, Any], confusion: Confusion, prior_differs: bool) -> list[tuple[str, str]]:
    """(topic, sentence) on decisions, probabilities, explanations and language; what was not measured is left out.

    Args:
        metrics: content of metrics.json.
        confusion: decisions held against true labels.
        prior_differs: rows with other shares of labels cannot say whether probabilities are right, so nothing is said
            of that then.
    """
    own, (name, share) = metrics["calibrated"], majority(confusion)
    low, high = own["accuracy_ci"]
    lines = [
        (
            "Decisions",
            f"{say_percent(own['accuracy'])} of the rows are decided rightly (95 %: {say_percent(low)} to "
            f"{say_percent(high)}); always saying \u201c{name}\u201d would be right in {say_percent(share)}.",
        )
    ]
    if not prior_differs:
        lines.append(("Probabilities", say_verdict(metrics)))
    explanation = metrics["explanation"]
    if explanation["num_rows"] and explanation["contradiction_rate"] is not None:
        lines.append(("Explanations", _say_explanations(explanation)))
    language = say_language(metrics["language"], explanation)
    if language:
        lines.append(("Language", language[0]))
    return lines


def _say_explanations(explanation: Mapping[str, Any]) -> str:
    free = ((explanation.get("readers") or {}).get("verdict") or {}).get("free") or explanation
    span = say_span(free.get("kappa_ci"))
    return (
        f"Left alone, the model opens its explanation with a label in {say_percent(explanation['coverage'])} of "
        f"{explanation['num_rows']:,} rows, and with another one than it decides on in "
        f"{say_percent(explanation['contradiction_rate'])} of those (kappa {say_number(explanation['kappa'])}"
        f"{f', {span}' if span else ''})."
    )
