"""What `metrics.json` says of explanations, put in order for the page; what was not measured is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Reader -> how the label that an explanation argues for was found.
READERS = {
    "verdict": "Opening: the label that it opens with",
    "text": "Text classifier: fitted on training explanations with label words masked",
    "judge": "Judge: a language model that sees explanation and label names, not the text",
}

#: How explanations were written.
WRITTEN = {"free": "left alone", "conditioned": "following the decision"}

#: Rows of the table of form: key, name, whether it is a share, meaning.
FORM = (
    ("mean_words", "Words", False, "mean of an explanation"),
    ("flesch_reading_ease", "Flesch reading ease", False, "higher is easier; 60 to 70 is plain English"),
    ("flesch_kincaid_grade", "Flesch-Kincaid grade", False, "years of school (US) that it takes"),
    ("empty_share", "Empty", True, "nothing was written"),
    ("cut_share", "Cut", True, "met the limit of tokens before its end"),
    ("duplicate_share", "Duplicates", True, "word for word as that of another row"),
    ("rep_2", "Repeated pairs of words", True, "within an explanation; loops drive it up"),
    ("rep_3", "Repeated runs of three", True, "the same of three words"),
    ("rep_4", "Repeated runs of four", True, "the same of four words; near 0 in prose"),
    ("distinct_1", "Distinct words", True, "over all explanations; set phrases drive it down"),
    ("distinct_2", "Distinct pairs of words", True, "the same of two words"),
    ("distinct_3", "Distinct runs of three", True, "the same of three words"),
)


@dataclass(frozen=True)
class AlignmentLine:
    """Agreement of explanations with the head, by one reader.

    Attributes:
        reader: how the label was found, in words; empty where the line above says it.
        written: how the explanations were written, in words.
        numbers: the measures.
    """

    reader: str
    written: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class ConfidenceTable:
    """Contradictions of free explanations by how sure the head is.

    Attributes:
        readers: names of the columns.
        lines: (range of confidence, [(share or None, rows) of each reader]).
    """

    readers: list[str]
    lines: list[tuple[str, list[tuple[float | None, int]]]]


def alignment_lines(explanation: Mapping[str, Any]) -> list[AlignmentLine]:
    """One line a reader and way of writing; of metrics without readers, the verdict's alone."""
    readers = explanation.get("readers") or {"verdict": {"free": explanation}}
    lines: list[AlignmentLine] = []
    for reader, of_reader in readers.items():
        said = READERS.get(reader, reader)
        for written, name in WRITTEN.items():
            if (of_reader.get(written) or {}).get("num_rows"):
                lines.append(AlignmentLine(said, name, of_reader[written]))
                said = ""
    return lines


def contradictions_by_confidence(explanation: Mapping[str, Any]) -> ConfidenceTable | None:
    """Contradictions of free explanations by confidence; None where nobody measured them."""
    found: dict[str, dict[tuple[float, float], tuple[float | None, int]]] = {}
    for reader, of_reader in (explanation.get("readers") or {}).items():
        parts = (of_reader.get("free") or {}).get("by_confidence") or ()
        if parts:
            name = READERS.get(reader, reader).split(":")[0]
            found[name] = {(p["low"], p["high"]): (p["contradiction_rate"], p["num_rows"]) for p in parts}
    if not found:
        return None
    ranges = sorted({span for of_reader in found.values() for span in of_reader}, reverse=True)
    lines = [(say_range(*span), [of_reader.get(span, (None, 0)) for of_reader in found.values()]) for span in ranges]
    return ConfidenceTable(list(found), lines)


def say_range(low: float, high: float) -> str:
    """A range of confidence, 0 to 1."""
    return f"{low:g} to {high:g}"


def form_lines(explanation: Mapping[str, Any]) -> list[tuple[str, bool, str, list[float | None]]]:
    """(name, whether a share, meaning, [value by way of writing]) of each measure of form that there is."""
    form = explanation.get("form") or {}
    columns: Sequence[Mapping[str, Any]] = [form.get(written) or {} for written in WRITTEN]
    return [
        (name, is_share, meaning, [column.get(key) for column in columns])
        for key, name, is_share, meaning in FORM
        if any(column.get(key) is not None for column in columns)
    ]
