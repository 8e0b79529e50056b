"""Numbers as a model says them, and a row of them: percentages, fractions, or plain numbers that the row decides."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from clsgen_dist.verbalize.names import MARKS

#: A comma is a decimal one where digits follow it and no colon: in "1: 70,2: 30" it parts two labels.
_NUMBER = r"(?:[0-9]++(?:\.[0-9]*+|,[0-9]++(?!\s{0,9}[:=]))?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
_PERCENT = r"(?:\s{0,4}(?:\\?[%\uff05\u066a]|(?:percent|per\scent|pct)\b))"
_OVER = r"(?:\s{0,4}(?:/|out\sof\s)\s{0,4})"
#: A number as it is said, sign and unit included; the rest of a number that goes on is never left behind.
NUMERAL = rf"(?>[+\-\u2212]?{_NUMBER}(?:{_PERCENT}|{_OVER}{_NUMBER})?)"
#: What a number that is no exact one is announced by.
ABOUT = r"(?:(?:approximately|approx\.?|about|around|roughly|circa|ca\.)\s{1,4}|[~\u2248]\s{0,4})"
_WHOLE = re.compile(
    rf"(?:{ABOUT})?(?P<sign>[+\-\u2212])?(?P<number>{_NUMBER})(?:(?P<percent>{_PERCENT})|{_OVER}(?P<over>{_NUMBER}))?",
    re.IGNORECASE,
)
_MAX_LETTERS = 500
#: Beyond it stands infinity, or what sums to it.
_LARGEST = 1e9
#: Plain numbers that sum to more are percentages: midway, by ratio, between 1 and 100.
_MIDDLE = 10.0


@dataclass(frozen=True)
class Numeral:
    """A number that was said.

    Attributes:
        value: finite; of "70%" it is 70, of "3/4" it is 0.75.
        unit: "percent" with a percent sign, "share" for a quotient, "plain" where only the row tells which it is.
    """

    value: float
    unit: str


@dataclass(frozen=True)
class Spoken:
    """One distribution, or a part of one, that was found in an answer.

    Attributes:
        form: "json", "dict", "lines" or "table".
        values: (number of the label, what was said of it or None where that is no number), as they came.
        has_unknown: whether a number was given to something that is no label.
    """

    form: str
    values: tuple[tuple[int, Numeral | None], ...]
    has_unknown: bool

    def names_all(self, num_labels: int) -> bool:
        """Whether each label stands in it, with a number or not."""
        return len({label for label, _ in self.values}) == num_labels


def read_numeral(words: str) -> Numeral | None:
    """The number that the words are, or None where they are none, or could be two.

    "0,7" is 0.7, as digits after a comma are decimals; "12,345" is None, as it may be twelve thousand.
    """
    if len(words) > _MAX_LETTERS:
        return None
    match = _WHOLE.fullmatch(words.strip(f" \t\r\n${MARKS}"))
    if match is None:
        return None
    value, over = _float(match["number"]), _float(match["over"] or "1")
    if value is None or not over:
        return None
    value = math.copysign(value / over, 1.0 if match["sign"] in (None, "+") else -1.0)
    if abs(value) > _LARGEST:
        return None
    return Numeral(value, "percent" if match["percent"] else "share" if match["over"] else "plain")


def to_fractions(numerals: Sequence[Numeral], sum_tolerance: float) -> list[float] | None:
    """The numbers of one row as fractions of 1.

    A percent sign makes a percentage and a quotient is a fraction. Plain numbers are alike within a row, and their sum
    decides: above 10 they are percentages, else fractions. So {a: 1, b: 0} is fractions, {a: 1, b: 99} and
    {a: 100, b: 0} are percentages. Where plain numbers stand beside others, the one reading counts that sums to 1.

    Returns:
        One number for each, or None where plain numbers beside others can be read in two ways, or in none.
    """
    plain = [numeral.value for numeral in numerals if numeral.unit == "plain"]
    if len(plain) == len(numerals):
        return _scaled(numerals, 100.0 if math.fsum(plain) > _MIDDLE else 1.0)
    readings = [_scaled(numerals, whole) for whole in (1.0, 100.0)]
    if not any(plain):
        return readings[0]
    near = [reading for reading in readings if is_near_one(math.fsum(reading), sum_tolerance)]
    return near[0] if len(near) == 1 else None


def is_near_one(total: float, sum_tolerance: float) -> bool:
    """Whether a sum is 1 within the tolerance, give or take the rounding of floats."""
    return abs(total - 1.0) <= sum_tolerance + 1e-9


def _scaled(numerals: Sequence[Numeral], plain_whole: float) -> list[float]:
    whole = {"percent": 100.0, "share": 1.0, "plain": plain_whole}
    return [numeral.value / whole[numeral.unit] for numeral in numerals]


def _float(number: str) -> float | None:
    before, comma, after = number.partition(",")
    if comma and len(after) - len(after.lstrip("0123456789")) == 3 and before.strip("0"):
        return None
    return float(number.replace(",", "."))
