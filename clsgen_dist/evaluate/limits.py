"""What a model should not be used for, as far as its own evaluation tells; then what holds for every such model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clsgen_dist.evaluate.confusion import Confusion
from clsgen_dist.evaluate.language_wording import loses_language
from clsgen_dist.evaluate.parts import TRAITS
from clsgen_dist.page import say_percent, say_span

#: Labelled rows below which intervals are too wide for much, of all labels and of one.
FEW_ROWS, FEW_LABEL_ROWS = 200, 30

#: Share of rows whose free explanation names no label, or was cut, from which it is worth a word.
NOTABLE_SHARE = 0.05

#: Share of rows whose explanation is likelier under its own verdict, below which it hardly depends on it.
WEAK_SWAP_SHARE = 0.75

#: Parts of the rows that are named.
MAX_PARTS = 5

GENERAL = (
    "Not for decisions about a person without someone who reads the text and answers for the decision.",
    "Not for texts of another kind, place or time than the rows of this split: the probabilities hold where the labels "
    "are as frequent as here.",
    "Not as proof of a cause: the explanation is text that the model writes beside its probability. It can be fluent "
    "and wrong, and the probability does not depend on it.",
    "Not for small differences: where intervals overlap, this split does not tell two models apart, and it says "
    "nothing about groups of rows that it does not report.",
    "Not for sharing without thought: the page shows texts of the split as they are.",
)


def say_limits(metrics: Mapping[str, Any], confusion: Confusion, prior_differs: bool) -> list[str]:
    """What this evaluation speaks against, a sentence or two each, the gravest first.

    Args:
        metrics: content of metrics.json.
        confusion: decisions held against true labels.
        prior_differs: whether the probabilities are made for other shares of labels than the rows have.
    """
    return [
        *_of_rows(metrics, confusion),
        *_of_skill(metrics, confusion),
        *_of_probabilities(metrics, prior_differs),
        *_of_parts(metrics),
        *_of_explanations(metrics),
    ]


def majority(confusion: Confusion) -> tuple[str, float]:
    """The most frequent true label, and the share of right answers of always saying it."""
    num_rows_K = confusion.num_rows_KK.sum(axis=1)
    most = int(num_rows_K.argmax())
    return confusion.labels[most], float(num_rows_K[most] / num_rows_K.sum())


def _of_rows(metrics: Mapping[str, Any], confusion: Confusion) -> Iterator[str]:
    if "bayes" in metrics:
        yield "Not for any claim about real texts: these rows are simulated."
    num_rows, num_rows_K = metrics["num_labelled_rows"], confusion.num_rows_KK.sum(axis=1)
    if num_rows < FEW_ROWS:
        yield (
            f"Not for fine judgements: there are {num_rows} labelled rows only, so the intervals are wide. Evaluate on "
            f"{FEW_ROWS} rows or more."
        )
    counts = zip(confusion.labels, num_rows_K, strict=True)
    rare = [f"\u201c{name}\u201d ({count})" for name, count in counts if count < FEW_LABEL_ROWS]
    if rare:
        yield f"Not for labels that hardly occur here: {', '.join(rare)}. Of so few rows nothing can be said."


def _of_skill(metrics: Mapping[str, Any], confusion: Confusion) -> Iterator[str]:
    own, (name, share) = metrics["calibrated"], majority(confusion)
    if own["auroc_ci"][0] <= 0.5:
        yield f"Not at all, as it stands: its ranking may be no better than chance (AUROC {say_span(own['auroc_ci'])})."
    elif own["accuracy_ci"][0] <= share:
        yield (
            "Not for its bare decisions where every mistake counts the same: always saying "
            f"\u201c{name}\u201d is right in {say_percent(share)} of these rows, and the model may be in no more than "
            f"{say_percent(own['accuracy_ci'][0])}. Its ranking and probabilities may still be of use."
        )


def _of_probabilities(metrics: Mapping[str, Any], prior_differs: bool) -> Iterator[str]:
    own = metrics["calibrated"]
    if prior_differs:
        yield (
            "Not with trust in the probabilities before they were checked where the model will be used: they are made "
            "for other shares of labels than these rows have."
        )
    elif own["ece"] > own["ece_null_ci"][1]:
        yield (
            "Not for acting on the size of a probability: the probabilities are off by more than chance (ECE "
            f"{own['ece']:.3f}; a perfect model shows {own['ece_null_ci'][1]:.3f} at most, 39 times in 40)."
        )
    if not metrics["is_calibrated"]:
        yield (
            "Not where probabilities must keep their meaning: no calibrator was fitted, and what fits these rows may "
            "be chance. Calibrate on rows of the place where the model will be used."
        )


def _of_parts(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Parts that are off, those of the rows' own columns first."""
    parts = [
        (column in TRAITS, part["ece_null_ci"][1] - part["ece"], _say_part(column, part))
        for column, of_column in metrics["subgroups"].items()
        for part in of_column
    ]
    off = sorted(part for part in parts if part[1] < 0)
    if off:
        named = "; ".join(name for *_, name in off[:MAX_PARTS])
        yield (
            f"Not without a second look at parts of the rows: in {len(off)} of {len(parts)} the probabilities are off "
            f"by more than chance, which alone marks about {len(parts) / 40:.1f}: {named}"
            f"{'; and others' if len(off) > MAX_PARTS else ''}."
        )


def _say_part(column: str, part: Mapping[str, Any]) -> str:
    title = TRAITS[column].split(":")[0].split(" (")[0] if column in TRAITS else column
    ends = part["intercept_ci"]
    lean = "" if ends is None or ends[0] <= 0 <= ends[1] else ", too low" if ends[0] > 0 else ", too high"
    return f"{title} \u201c{part['name']}\u201d, ECE {part['ece']:.3f}{lean}"


def _of_explanations(metrics: Mapping[str, Any]) -> Iterator[str]:
    explanation = metrics["explanation"]
    if not explanation["num_rows"]:
        yield "Not for its explanations: whether they argue for what is decided was not measured."
        return
    rate = explanation["contradiction_rate"]
    if rate:
        yield (
            "Not as a view into the decision: left alone, the explanation argues for another label than the one "
            f"decided on in {say_percent(rate)} of the rows where it names one. What users see follows the decision, "
            "and hides such doubt."
        )
    if explanation["coverage"] < 1 - NOTABLE_SHARE:
        yield (
            f"Not for explanations alone: left alone, {say_percent(1 - explanation['coverage'])} of them name no label."
        )
    cut = ((explanation.get("form") or {}).get("conditioned") or {}).get("cut_share")
    if cut is not None and cut >= NOTABLE_SHARE:
        yield f"Not for showing explanations unread: {say_percent(cut)} of them are cut before their end."
    swap = (explanation.get("faithfulness") or {}).get("swap_share")
    if swap is not None and swap < WEAK_SWAP_SHARE:
        yield (
            "Not where an explanation must hang on its verdict: the model finds it likelier under its own verdict than "
            f"under another in {say_percent(swap)} of the rows only (half would be chance)."
        )
    if loses_language(metrics["language"], explanation):
        yield ("Not as a language model for anything else: training cost it language, see \u201cLanguage kept\u201d.")
