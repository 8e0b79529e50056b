"""Distributions in lines and tables: "label: 70%", "- **label** - 0.7", "P(label) = .7", "| label | 3/4 |".

A label counts only where an entry may begin: at the start of a line, after a bullet, after a comma, a colon, a bracket
or a word such as "is". So "positive: 30%" is not read out of "very positive: 30%", nor a number out of "I am 90% sure".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from clsgen_dist.verbalize.names import MARKS, Names, is_annotation
from clsgen_dist.verbalize.spoken import ABOUT, NUMERAL, Numeral, Spoken, read_numeral

_LINE = re.compile(r"[^\r\n]+")
_BULLET = re.compile(r"(?:>\s)?\s*(?:[-*+\u2022\u2013]\s+|\(?(?:[0-9]{1,3}|[A-Za-z])[.)]\s+|#{1,6}\s+)?")
_START = re.compile(r"[:,;({\[|/]|\b(?:are|is|be|and|or|of|with|as|vs\.?)(?!\w)", re.IGNORECASE)
_CELLS = re.compile(r"(?<!\\)\|")
_INTRO = "..."
_FENCE = re.compile(r"\s*(?:```|~~~)\w*\s*$")
_COMMA = re.compile(r"\s{0,9}[,;]\s{0,9}(?:and\s+)?")
#: What follows a whole number in an entry; another word makes "yes: 3 reasons" prose.
_AFTER_WHOLE_NUMBER = re.compile(
    rf"[{MARKS})\]]*(?:$|[^\w\s]|\s+(?:$|[^\w\s]|(?:and|or|because|since|as|due|with|while|but)\b))", re.IGNORECASE
)
_S = r"\s{0,40}"
_SEPARATOR = (
    rf"(?:{_S}(?::=|=>|->|\u2192|[:=\u2248|\uff1a\uff1d]|\.{{2,}}|\u2026){_S}|[ ]{{0,20}}\t{_S}|{_S}[\u2013\u2014]{_S}"
    rf"|{_S}-\s{{1,40}}|{_S}[(\[]|\s{{1,9}}(?:is|at|has|gets)(?:\s(?:a|the))?(?:\s(?:probability|likelihood)\sof)?\s|\s{{1,40}})"
)
#: A number that goes on in a way which leaves more than one reading: "60-70%", "1:30", "1,000,000", "1/2/2020".
_GOES_ON = (
    r"\.[0-9]|,[0-9]++(?!\s{0,9}[:=])"
    r"|\s{0,4}(?:[\^\u00b1]\s?\.?[0-9]|[/:~\u2013\u2014-]\s{0,4}\.?[0-9]|(?:to|or)\s\.?[0-9])"
)
_NO_NUMBER = (
    r"[<>\u2264\u2265\u00b1]=?\s?\.?[0-9]|[+\-\u2212]?(?:nan|inf(?:inity)?|n/a|null|none|undefined|unknown)(?![^\W_])"
    r"|[+\-\u2212]?[\u221e?]"
)
_AMOUNT = (
    rf"(?P<separator>{_SEPARATOR})[{MARKS}(\[\s$]{{0,8}}(?:{ABOUT})?"
    rf"(?:(?P<numeral>{NUMERAL})(?![^\W_])(?:(?P<goes_on>(?={_GOES_ON}))|)|(?P<no_number>{_NO_NUMBER}))"
)
_BAD_CELL = re.compile(rf"(?:{_NO_NUMBER}|{NUMERAL}(?:{_GOES_ON}))", re.IGNORECASE)
#: "maybe: 10%" with nothing behind it.
_UNKNOWN = re.compile(
    rf"[{MARKS}\s]{{0,8}}(?P<key>[^\W\d][^:=|(\n]{{0,59}}?)[{MARKS}]{{0,4}}{_AMOUNT}[{MARKS})\s]*(?:$|[.,;])"
)


@dataclass(frozen=True)
class _Entry:
    """A label, or None for a name that is none, with its number; entries of one block stand together and look alike."""

    label: int | None
    numeral: Numeral | None
    form: str
    block: int


def find_lines(text: str, names: Names) -> list[Spoken]:
    """The distributions that stand in lines and tables, whole ones and parts, in the order in which they end.

    Entries that stand together and look alike make a block. Within a block a label may come again only where all
    labels came before; else it is a duplicate. Blocks whose labels differ are taken together, as models explain one
    label before they come to the next; a block that begins anew replaces a part before it.

    Args:
        text: an answer, or a piece of one.
        names: of the labels.
    """
    found: list[Spoken] = []
    part: list[_Entry] = []
    for _, block in groupby(_entries(text, names), key=lambda entry: entry.block):
        rows = _split(list(block), names.num_labels)
        if len(rows) > 1 and not _has_all(rows[-1], names.num_labels):
            rows = [[entry for row in rows for entry in row]]
        for row in rows:
            if part and not _labels(part) & _labels(row):
                part += row
            else:
                found += [_spoken(part)] if part else []
                part = row
            if _has_all(part, names.num_labels):
                found.append(_spoken(part))
                part = []
    return found + ([_spoken(part)] if part else [])


def _split(block: list[_Entry], num_labels: int) -> list[list[_Entry]]:
    """The rows of a block. A whole number that comes before all labels, as in "Age: 45", is none of them."""
    rows: list[list[_Entry]] = []
    seen: set[int] = set()
    for entry in block:
        if entry.label is None:
            if not rows and not _is_whole(entry.numeral):
                rows.append([])
            if rows:
                rows[-1].append(entry)
            continue
        if not rows or (entry.label in seen and len(seen) == num_labels):
            rows.append([])
            seen.clear()
        rows[-1].append(entry)
        seen.add(entry.label)
    return rows if seen else []


def _is_whole(numeral: Numeral | None) -> bool:
    return numeral is not None and numeral.unit == "plain" and numeral.value.is_integer()


def _labels(row: list[_Entry]) -> set[int]:
    return {entry.label for entry in row if entry.label is not None}


def _has_all(row: list[_Entry], num_labels: int) -> bool:
    return len(row) >= num_labels and len(_labels(row)) == num_labels


def _spoken(row: list[_Entry]) -> Spoken:
    values = tuple((entry.label, entry.numeral) for entry in row if entry.label is not None)
    units = {numeral.unit for _, numeral in values if numeral is not None}
    # Amid percentages, "heart rate: 88" speaks of something else.
    has_unknown = any(e.label is None and (e.numeral is None or e.numeral.unit in units) for e in row)
    return Spoken(row[0].form, values, has_unknown)


def _entries(text: str, names: Names) -> Iterator[_Entry]:
    block, shape = 0, ""
    for line in _LINE.finditer(text):
        words = line[0]
        if not words.strip() or _FENCE.match(words):
            continue
        found = 0
        entries = _of_table(words, names) if words.lstrip().startswith("|") else _of_line(words, names)
        for label, numeral, look in entries:
            # A line that begins with other words begins anew.
            block += look != shape or (not found and look.startswith(_INTRO))
            shape = look
            found += 1
            yield _Entry(label, numeral, "table" if look == "|" else "lines", block)
        # Other words part two blocks.
        block += not found


def _of_table(words: str, names: Names) -> Iterator[tuple[int | None, Numeral | None, str]]:
    """The entries of "| label | ... | 70% |": the one number between a label's cell and the next label's."""
    key, label = "", None
    numerals: list[Numeral | None] = []
    for cell in [*(cell.strip() for cell in _CELLS.split(words)[1:]), None]:
        numeral, number = (None, None) if cell is None else (read_numeral(cell), names.find(cell.replace("\\|", "|")))
        if cell is None or not key or (number is not None and (numerals or numeral is None)):
            # The number of a row of a table is no name.
            if numerals and (label is not None or not (is_annotation(key) or read_numeral(key))):
                yield label, numerals[0] if len(numerals) == 1 else None, "|"
            key, label, numerals = cell or "", number, []
        elif numeral is not None or _BAD_CELL.match(cell):
            numerals.append(numeral)


def _of_line(words: str, names: Names) -> Iterator[tuple[int | None, Numeral | None, str]]:
    """The entries of a line: label, number, and the separator between them, marked where words came before."""
    bullet = _BULLET.match(words)
    place = bullet.end() if bullet else 0
    # A label may look like a bullet.
    entry = _read(words, len(words) - len(words.lstrip()), names) or _read(words, place, names)
    unknown = None if entry else _read_unknown(words, place, names)
    intro, follows = "", False
    while True:
        if unknown is not None:
            yield unknown
            follows = True
        if entry is not None:
            label, numeral, separator, place = entry
            yield label, numeral, f"{intro}{separator}"
            follows, unknown = True, None
            entry = _read(words, place, names)
            comma = None if entry else _COMMA.match(words, place)
            if comma is not None and _read(words, comma.end(), names) is None:
                unknown = _read_unknown(words, comma.end(), names)
            if entry or unknown:
                continue
        begin = _START.search(words, place)
        if begin is None:
            return
        intro, place, unknown = intro if follows else _INTRO, begin.end(), None
        entry = _read(words, place, names)


def _read(words: str, place: int, names: Names) -> tuple[int, Numeral | None, str, int] | None:
    """Label, number, separator and end of the entry at a place; None where there is none, or prose that looks so."""
    match = _entry_pattern(names).match(words, place)
    if match is None:
        return None
    label = names.find(match["label"].replace("\\", ""))
    label = names.find(match["label"]) if label is None else label
    said, separator = match["numeral"], match["separator"].strip(" ")
    if label is None:
        return None
    if said is None:
        is_entry = separator != "" and names.find(match["no_number"]) is None
        return (label, None, separator, match.end()) if is_entry else None
    if match["goes_on"] is not None:
        return label, None, separator, match.end()
    if said.lstrip("+-\u2212").isdigit():
        ends = _AFTER_WHOLE_NUMBER.match(words, match.end()) or _next_label(names).match(words, match.end())
        if not ends or not separator:
            return None
    return label, read_numeral(said), separator, match.end()


def _read_unknown(words: str, place: int, names: Names) -> tuple[None, Numeral | None, str] | None:
    """A number with a name that is no label, where an entry could stand."""
    match = _UNKNOWN.match(words, place)
    if match is None or is_annotation(match["key"]) or not match["separator"].strip() or match["numeral"] is None:
        return None
    # "The odds are no: 30%" names a label.
    if any(_read(words, begin.end(), names) for begin in _START.finditer(words, place, match.start("separator"))):
        return None
    return None, read_numeral(match["numeral"]), match["separator"].strip()


@lru_cache(maxsize=32)
def _entry_pattern(names: Names) -> re.Pattern[str]:
    return re.compile(
        rf"[{MARKS}(\[\s$]{{0,8}}?(?:(?:p|pr|prob)\s?\(\s?(?:\w{{1,20}}\s?=\s?)?[{MARKS}]{{0,3}}?"
        rf"|(?:the\s)?(?:probability|likelihood)\s(?:of\s|\()[{MARKS}]{{0,3}}?)?"
        rf"(?P<label>{names.pattern})(?:\s?\|[^()|]{{1,200}}\))?[{MARKS})\]]{{0,8}}?"
        rf"(?:\s(?:probability|likelihood))?{_AMOUNT}",
        re.IGNORECASE,
    )


@lru_cache(maxsize=32)
def _next_label(names: Names) -> re.Pattern[str]:
    return re.compile(rf"\s{{1,9}}(?:{names.pattern})", re.IGNORECASE)
