"""Calibration of the parts of a split: by the columns that rows bring along, by confidence, by traits of the text.

Shape legend: N rows.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from clsgen_dist.evaluate.columns import Columns
from clsgen_dist.evaluate.subgroups import subgroup_calibration
from clsgen_dist.evaluate.traits import region_of, traits_of
from clsgen_dist.records import UNLABELLED

#: Parts that are made here and no column of the rows -> what they are of.
TRAITS = {
    "region": "Confidence: the largest probability",
    "length": "Length of the text",
    "readability": "Readability of the text (Flesch reading ease, for English)",
    "negation": "Negation in the text (English)",
    "hedging": "Hedging in the text (English)",
}

#: First words of the parts of a trait, in the order to show them; the others follow, that with the most rows first.
ORDER = ("high", "short", "hard", "middle", "low", "long", "easy")

#: Characters of text whose traits are measured, in about a minute and a half. Of more text, rows are drawn.
MAX_TRAIT_CHARACTERS = 20_000_000


def describe_parts(
    columns: Columns, *, num_bins: int, num_bootstrap: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Calibration of each part of the labelled rows, after calibration.

    Args:
        columns: predictions and rows.
        num_bins, num_bootstrap, seed: as `subgroup_calibration`; rows for traits are drawn with the seed, too.

    Returns:
        Column, or key of `TRAITS`, -> `Subgroup`s as dictionaries. A column that is called like a trait gets
        " (column)" behind its name. Of regions of confidence, the event is that the answer is right; else it is the
        last label of two, and a right answer with more labels.

    Raises:
        DataError, NumericsError: as `subgroup_calibration`.
    """
    known_N = np.flatnonzero(columns.label_N != UNLABELLED)
    measure = partial(_measure, columns, num_bins=num_bins, num_bootstrap=num_bootstrap, seed=seed)
    found = {
        f"{column} (column)" if column in TRAITS else column: measure(known_N, [values[row] for row in known_N])
        for column, values in columns.subgroups.items()
    }
    found["region"] = _in_order(measure(known_N, region_of(columns.probability_NK[known_N]), event="top_label"))
    num_characters = sum(len(columns.texts[row]) for row in known_N)
    if num_characters > MAX_TRAIT_CHARACTERS:
        num_read = max(1, len(known_N) * MAX_TRAIT_CHARACTERS // num_characters)
        known_N = np.sort(np.random.default_rng(seed).choice(known_N, num_read, replace=False))
    if (columns.label_N[known_N] == columns.label_N[known_N[0]]).all():  # a handful of rows, each as long as a book
        return found
    traits = traits_of([columns.texts[row] for row in known_N])
    return found | {trait: _in_order(measure(known_N, values)) for trait, values in traits.items()}


def _measure(columns: Columns, rows_M: np.ndarray, names: list[str], **options: Any) -> list[dict[str, Any]]:
    return [
        asdict(part)
        for part in subgroup_calibration(
            columns.probability_NK[rows_M], columns.label_N[rows_M], names, columns.group_N[rows_M], **options
        )
    ]


def _in_order(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def place(part: dict[str, Any]) -> int:
        first = part["name"].split()[0]
        return ORDER.index(first) if first in ORDER else len(ORDER)

    return sorted(parts, key=place)
