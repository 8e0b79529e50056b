"""The columns of a comparison: where each number stands in what a run left, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A number of an arm.

    Attributes:
        key: its name in comparison.json.
        title: its head in the table.
        meaning: what it is, which direction is good.
        paths: dotted places in metrics.json, the first that holds a number; `probability` is the part that the row is
            of, `resources` what training took.
        factor: unit in the file -> unit in the table.
        digits: behind the point.
        is_better: "up", "down" or "" where neither is.
        is_resampled: whether it comes from probabilities and labels alone.
    """

    key: str
    title: str
    meaning: str
    paths: tuple[str, ...]
    factor: float = 1.0
    digits: int = 3
    is_better: str = ""
    is_resampled: bool = False


_FREE = "explanation.readers.{reader}.free.{name}"


def _read(reader: str, name: str) -> tuple[str, ...]:
    """Places of a number of a reader on explanations that were written freely."""
    old = (f"explanation.{name}",) if reader == "verdict" else ()
    return (_FREE.format(reader=reader, name=name), *old)


COLUMNS = (
    Column("auroc", "AUROC", "ranking of the test rows; 0.5 is chance", ("probability.auroc",), 1, 3, "up", True),
    Column("f1", "F1", "decisions at the operating threshold", ("probability.f1",), 1, 3, "up", True),
    Column("nll", "NLL", "negative log-likelihood, nats a row", ("probability.nll",), 1, 3, "down", True),
    Column("ece", "ECE", "calibration error", ("probability.ece",), 1, 3, "down", True),
    Column(
        "kappa", "kappa", "Cohen's kappa of free explanation and head, by the verdict in words",
        _read("verdict", "kappa"), 1, 3, "up",
    ),
    Column(
        "auroc_alignment", "AUROC-align.", "AUROC of the head against the verdict in words, free explanations",
        _read("verdict", "auroc_alignment"), 1, 3, "up",
    ),
    Column(
        "kappa_text", "kappa (text)", "the same kappa, the label read from the words after the verdict",
        _read("text", "kappa"), 1, 3, "up",
    ),
    Column(
        "auroc_alignment_text", "AUROC-align. (text)", "the same, the label read from the words after the verdict",
        _read("text", "auroc_alignment"), 1, 3, "up",
    ),
    Column(
        "coverage", "coverage", "share of free explanations that open with a label",
        _read("verdict", "coverage"), 1, 3, "up",
    ),
    Column(
        "general_text_change", "general text, %", "NLL of general text, change from the base model",
        ("language.general_text_change",), 100, 1, "down",
    ),
    Column(
        "reference_nll", "reference NLL", "NLL of reference explanations, nats a token",
        ("language.reference_explanation_nll",), 1, 3, "down",
    ),
    Column(
        "reference_nll_base", "reference NLL, base", "the same under the base model",
        ("language.reference_explanation_nll_base",), 1, 3,
    ),
    Column(
        "rep_4", "rep-4", "share of 4-grams of free explanations that stood there before",
        ("explanation.form.free.rep_4", "language.free_rep_4"), 1, 3, "down",
    ),
    Column(
        "own_nll_base", "own NLL, base", "NLL of free explanations under the base model: far below reference NLL, "
        "base: loops or templates; far above: no sentences",
        ("language.explanation_nll_under_base",), 1, 3,
    ),
    Column(
        "swap_share", "label swap", "share of rows whose explanation is likelier under its own verdict",
        ("explanation.faithfulness.swap_share",), 1, 3, "up",
    ),
    Column(
        "train_minutes", "train, min", "time in training, killed attempts not counted",
        ("resources.train_seconds",), 1 / 60, 1, "down",
    ),
    Column(
        "peak_memory", "memory, GiB", "most memory of the first worker while training: of its GPU, else of its process",
        ("resources.peak_memory_mib",), 1 / 1024, 1, "down",
    ),
)  # fmt: skip

COLUMN = {column.key: column for column in COLUMNS}


def dig(content: Mapping[str, Any], path: str) -> Any:
    """What stands at a dotted place; None where there is no such place."""
    found: Any = content
    for key in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def of_conditioned(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same run, as an arm whose explanations follow the head: only the columns of explanations are its own.

    A verdict that was forced agrees by construction and says nothing, so only readers of the words after it count.
    """
    readers = dig(content, "explanation.readers") or {}
    conditioned = {
        name: {"free": of["conditioned"]}
        for name, of in readers.items()
        if name != "verdict" and isinstance(of, Mapping) and of.get("conditioned") is not None
    }
    form = {"free": dig(content, "explanation.form.conditioned")}
    return {"explanation": {"readers": conditioned, "form": form}, "probability": content["probability"]}
