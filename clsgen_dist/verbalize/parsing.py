"""Reads the distribution that a model states in words, or says why there is none.

Shape legend: K labels.

Nothing is mended in silence: a missing label is not 0, a label that comes twice is not the first of the two, and a row
that does not sum to 1 within the tolerance is not stretched until it does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clsgen_dist.chat.interface import SUM
from clsgen_dist.errors import ConfigError
from clsgen_dist.verbalize.lines import find_lines
from clsgen_dist.verbalize.names import Names
from clsgen_dist.verbalize.spoken import Spoken, is_near_one, to_fractions
from clsgen_dist.verbalize.structures import find_structures

#: Found by whoever asked: the model did not come to its words, or the text did not come to the model.
CUT_OFF, TOO_LONG = "cut_off", "too_long"

#: Why an answer holds no distribution, in words.
FAULTS = {
    TOO_LONG: "the text is too long for the model",
    CUT_OFF: "the answer was cut off before it held any words beside thinking",
    "no_answer": "there is no answer, or it holds no words",
    "refusal": "the model declines to answer",
    "no_distribution": "no label has a number in any form that is read",
    "missing_label": "a label has no number; it is not taken for 0",
    "duplicate_label": "a label comes twice in one distribution, with the same number or another one",
    "unknown_label": "a number is given to something that is no label",
    "not_a_number": "a label has a word, a range, NaN or infinity instead of a number",
    "negative": "a number is below 0",
    "above_one": "a number is above 1, or above 100 percent",
    "mixed_units": "percent signs or fractions stand beside plain numbers, and not exactly one reading sums to 1",
    "bad_sum": "the numbers do not sum to 1 within the tolerance",
}

#: The forms in which a distribution is read: strict JSON, other objects and lists, lines, tables.
FORMS = ("json", "dict", "lines", "table")

#: Letters of an answer that are read, its last ones: what counts stands at the end.
MAX_LETTERS = 100_000

_REFUSAL = re.compile(
    r"[\s\"'*_`]*(?:(?:i['\u2019]?m|i am|we['\u2019]?re|we are)?\s*(?:very |so |really |truly )?sorry\b"
    r"|(?:i|we) apologi[sz]e\b|(?:my )?apologies\b|unfortunately,? (?:i|we)\b|as an? (?:ai|(?:large )?language model)\b"
    r"|(?:i|we) (?:can['\u2019]?t|cannot|can not|won['\u2019]?t|will not|do not|don['\u2019]?t|am not|am unable)\b"
    r"|(?:i|we) (?:must )?decline\b"
    r"|i['\u2019]?m (?:unable|not able|not comfortable|just an? (?:ai|language model)|an? (?:ai|language model))\b"
    r"|it (?:is|would be) (?:not possible|impossible|inappropriate)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Said:
    """What a model said of one row: a distribution or a fault, never both.

    Attributes:
        probabilities: K fractions in label order that sum to 1, renormalised within the tolerance; None at a fault.
        raw_sum: sum of the fractions before that; None where not every label has one number, or units are mixed.
        fault: why there are none, a key of FAULTS; None where there are.
        form: in which form they were said, one of FORMS; None where nothing of that kind was found.
    """

    probabilities: tuple[float, ...] | None
    raw_sum: float | None
    fault: str | None
    form: str | None


def parse_distribution(answer: str, labels: Sequence[str], *, sum_tolerance: float) -> Said:
    """Read the distribution over K labels that an answer states.

    Read are JSON objects and Python dicts, nested or not, lists of {"label": ..., "probability": ...}, lines such as
    "label: 70%", "- **label** - 0.7" and "P(label) = 3/4", and tables; in code fences or without, amid other words.
    Numbers after their labels only: "70% yes" is not read.

    The last distribution that names all labels counts, as the incremental prompt ends with it: one with a fault too,
    so that no earlier draft is taken for the answer. Where none names all, the last part says what is at fault.

    Percentages are decided for the row (`spoken.to_fractions`): a percent sign makes a percentage, plain numbers are
    percentages where they sum to more than 10, and mixed ones must have exactly one reading that sums to 1.

    Args:
        answer: the model's words, without its thinking; of a longer one the last 100,000 letters are read.
        labels: names of the K labels in the order of their numbers.
        sum_tolerance: how far from 1 the sum may be, 0 to below 0.5.

    Returns:
        The distribution, or the fault. Answers of any kind are read in time that grows with their length.

    Raises:
        ConfigError: labels that cannot be told apart, or a tolerance out of range.
    """
    if not 0 <= sum_tolerance < 0.5:
        raise ConfigError(f"verbalize.sum_tolerance: found {sum_tolerance!r}, expected a number from 0 to below 0.5")
    names = _names(tuple(labels))
    if not answer.strip():
        return Said(None, None, "no_answer", None)
    if len(answer) > MAX_LETTERS:
        # The first line may be half a line.
        answer = answer[-MAX_LETTERS:].partition("\n")[2]
    found = list(_find(answer, names))
    if not found:
        return Said(None, None, "refusal" if _REFUSAL.match(answer) else "no_distribution", None)
    whole = [spoken for spoken in found if spoken.names_all(names.num_labels)]
    return _weigh((whole or found)[-1], names.num_labels, sum_tolerance)


def distribution_schema(labels: Sequence[str], *, in_whole_percents: bool = False) -> dict[str, Any]:
    """JSON schema of the constrained form, for guided decoding: every label, percentages, nothing else.

    A JSON schema cannot demand that the percentages sum to 100; the parser sees to that. A model on this machine can be
    held to it (`chat.interface.SUM`), with whole numbers: a small model that has begun to write decimals never ends.

    Args:
        labels: names of the labels, in the order in which the model is to write them.
        in_whole_percents: whole numbers that sum to 100.
    """
    percentage = {"type": "integer" if in_whole_percents else "number", "minimum": 0, "maximum": 100}
    return {
        "type": "object",
        "properties": dict.fromkeys(labels, percentage),
        "required": list(labels),
        "additionalProperties": False,
        **({SUM: 100} if in_whole_percents else {}),
    }


@lru_cache(maxsize=32)
def _names(labels: tuple[str, ...]) -> Names:
    return Names(labels)


def _find(answer: str, names: Names) -> Iterator[Spoken]:
    """All distributions and parts of one, in the order in which they stand."""
    place = 0
    for start, end, found in find_structures(answer, names):
        yield from find_lines(answer[place:start], names)
        yield from found
        place = end
    yield from find_lines(answer[place:], names)


def _weigh(spoken: Spoken, num_labels: int, sum_tolerance: float) -> Said:
    def fault(cause: str, raw_sum: float | None = None) -> Said:
        return Said(None, raw_sum, cause, spoken.form)

    said = dict(spoken.values)
    if len(said) < len(spoken.values):
        return fault("duplicate_label")
    if spoken.has_unknown:
        return fault("unknown_label")
    if len(said) < num_labels:
        return fault("missing_label")
    numerals = [numeral for _, numeral in sorted(said.items()) if numeral is not None]
    if len(numerals) < num_labels:
        return fault("not_a_number")
    if any(numeral.value < 0 for numeral in numerals):
        return fault("negative")
    fractions = to_fractions(numerals, sum_tolerance)
    if fractions is None:
        return fault("mixed_units")
    raw_sum = math.fsum(fractions)
    if max(fractions) > 1:
        return fault("above_one", raw_sum)
    if not is_near_one(raw_sum, sum_tolerance):
        return fault("bad_sum", raw_sum)
    # The sum of fractions may miss 1 by a rounding; minus zero is a zero. Rounded, "3%" and "0.03" are one number:
    # apart in the last digit, they would be tied or not depending on the temperature.
    weighed = tuple(round(abs(fraction) / raw_sum, 12) for fraction in fractions)
    return Said(weighed, raw_sum, None, spoken.form)
