"""Distributions in JSON objects and Python dicts, wherever they stand in an answer.

The reader is our own because models mix the two, leave quotes out, write `70%` without quotes and repeat keys, which
`json.loads` forgets; and because it evaluates nothing, goes only so deep, and works only so long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from clsgen_dist.verbalize.names import Names, is_annotation
from clsgen_dist.verbalize.spoken import NUMERAL, Numeral, Spoken, read_numeral

_MAX_DEPTH = 8
#: Letters that may be read for each letter of an answer: starts within what was read in vain are read again.
_WORK = 12
#: What one more step costs, in letters.
_STEP = 6

_SPACE = re.compile(r"(?:\s|//[^\n]*+)*+")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"|\'((?:[^\'\\]|\\.)*+)\'', re.DOTALL)
_BARE_KEY = re.compile(r"[^\s\"'{}\[\](),:=][^\"{}\[\]:=,\n]{0,200}")
_LINK = re.compile(r"=>|[:=]")
_BARE_NUMERAL = re.compile(rf"{NUMERAL}(?=\s*+(?:[,;}}\]\)\"']|//|\n|$|[^\W\d]))", re.IGNORECASE)
_BARE_POINT = re.compile(r"[+-]?[0-9.]++(?:[eE][+-]?[0-9]++)?\s{0,4}(?:%|/\s?[0-9.]++)?")
#: "<1%" is a value that is no number; "<percent>" and "..." stand for a value in an example.
_BARE_WORD = re.compile(r"(?:<(?=[=\s]{0,2}\.?[0-9])|(?!\.\.)[^\s,;{}\[\]()\"'<])[^,;{}\[\]()\"'\n]{0,80}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", **{mark: mark for mark in "\"'\\/"}}
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_NAME_KEYS = {"label", "name", "class", "category", "option", "answer", "choice", "outcome", "emotion", "sentiment"}
#: Names of a label's number; the first sort counts where both stand.
_PROBABILITY_KEYS = {"probability", "prob", "p", "percentage", "percent", "likelihood", "chance"}
_SCORE_KEYS = {"confidence", "score", "value", "weight"}


@dataclass(frozen=True)
class _Object:
    """Keys and values in the order in which they came; a key may come twice."""

    pairs: tuple[tuple[str, _Tree], ...]


_Tree = str | _Object | list["_Tree"]


class _SpentError(Exception):
    """The reader has worked for as long as it may."""


def find_structures(text: str, names: Names) -> Iterator[tuple[int, int, list[Spoken]]]:
    """Where objects and lists with distributions stand, and what they say.

    Args:
        text: an answer.
        names: of the labels.

    Yields:
        Start, end and the distributions, in the order in which they stand. Places do not overlap, and a place without
        a label in it is left out.
    """
    reader = _Reader(text)
    end = 0
    for opening in re.finditer(r"[{\[]", text):
        start = opening.start()
        if start < end:
            continue
        try:
            read = reader.read(start, 0)
        except _SpentError:
            return
        if read is None:
            continue
        tree, stop = read
        found = list(_rows(tree, names, "json" if _is_json(text[start:stop]) else "dict"))
        if found:
            end = stop
            yield start, stop, found


class _Reader:
    """Reads the value that begins at a place: None where none does that ends."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._work_left = _WORK * len(text) + 1000

    def read(self, place: int, depth: int, *, in_list: bool = False) -> tuple[_Tree, int] | None:
        opening = self._text[place : place + 1]
        if opening in ("{", "[", "(") and depth == _MAX_DEPTH:
            return None
        if opening == "{":
            return self._object(place + 1, depth + 1)
        if opening in ("[", "("):
            return self._list(place + 1, depth + 1, "]" if opening == "[" else ")")
        quoted = self._string(place)
        if quoted is not None:
            return quoted
        # In a list "0,7" is two numbers.
        number = (_BARE_POINT if in_list else _BARE_NUMERAL).match(self._text, place)
        match = number or _BARE_WORD.match(self._text, place)
        if match is None:
            return None
        self._spend(match.end() - place)
        return match[0], match.end()

    def _object(self, place: int, depth: int) -> tuple[_Tree, int] | None:
        pairs: list[tuple[str, _Tree]] = []
        while True:
            place = self._skip(place)
            if self._text.startswith("}", place):
                return _Object(tuple(pairs)), place + 1
            key = self._string(place) or self._bare_key(place)
            link = _LINK.match(self._text, self._skip(key[1])) if key else None
            value = self.read(self._skip(link.end()), depth) if link else None
            if key is None or value is None:
                return None
            pairs.append((key[0], value[0]))
            place = self._after(value[1])

    def _list(self, place: int, depth: int, closing: str) -> tuple[_Tree, int] | None:
        items: list[_Tree] = []
        while True:
            place = self._skip(place)
            if self._text.startswith(closing, place):
                return items, place + 1
            value = self.read(place, depth, in_list=True)
            if value is None:
                return None
            items.append(value[0])
            place = self._after(value[1])

    def _after(self, place: int) -> int:
        """Where the next item begins; models forget the comma at the end of a line."""
        place = self._skip(place)
        return place + (self._text[place : place + 1] in (",", ";"))

    def _string(self, place: int) -> tuple[str, int] | None:
        if self._text[place : place + 1] not in ("'", '"'):
            return None
        match = _STRING.match(self._text, place)
        self._spend((match.end() if match else len(self._text)) - place)
        return (_unescaped(match[1] if match[1] is not None else match[2]), match.end()) if match else None

    def _bare_key(self, place: int) -> tuple[str, int] | None:
        match = _BARE_KEY.match(self._text, place)
        self._spend(match.end() - place if match else 1)
        return (match[0].strip(), match.end()) if match else None

    def _skip(self, place: int) -> int:
        end = _SPACE.match(self._text, place).end()  # type: ignore[union-attr]
        self._spend(end - place + _STEP)
        return end

    def _spend(self, letters: int) -> None:
        self._work_left -= letters
        if self._work_left < 0:
            raise _SpentError


def _unescaped(words: str) -> str:
    def letter(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code is None:
            return _PLAIN_ESCAPES.get(match[4], match[0])
        number = int(code, 16)
        return chr(number) if number <= 0x10FFFF else match[0]

    if "\\" not in words:
        return words
    # JSON writes a letter beyond 16 bits as two halves.
    return _SURROGATES.sub(
        lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), _ESCAPE.sub(letter, words)
    )


def _is_json(words: str) -> bool:
    try:
        json.loads(words)
    except ValueError:
        return False
    return True


def _rows(tree: _Tree, names: Names, form: str) -> Iterator[Spoken]:
    """The distributions of a tree, inner ones before the one that holds them."""
    if isinstance(tree, str):
        return
    if isinstance(tree, list):
        pairs = [_pair(item, names) for item in tree]
        if any(pair is not None and pair[0] is not None for pair in pairs):
            yield _spoken([pair for pair in pairs if pair is not None], form)
        else:
            for item in tree:
                yield from _rows(item, names, form)
        return
    for _, value in tree.pairs:
        yield from _rows(value, names, form)
    keyed = [(names.find(key), key, value) for key, value in tree.pairs]
    if any(label is not None and (isinstance(value, str) or _numeral(value)) for label, _, value in keyed):
        own: list[tuple[int | None, Numeral | None]] = []
        for label, key, value in keyed:
            numeral = _numeral(value)
            if label is not None or (numeral is not None and not is_annotation(key)):
                own.append((label, numeral))
        yield _spoken(own, form)
    elif (columns := _columns(tree)) is not None and any(names.find(name) is not None for name, _ in columns):
        yield _spoken([(names.find(name), numeral) for name, numeral in columns], form)
    elif (pair := _pair(tree, names)) is not None and pair[0] is not None:
        yield _spoken([pair], form)


def _spoken(values: list[tuple[int | None, Numeral | None]], form: str) -> Spoken:
    known = tuple((label, numeral) for label, numeral in values if label is not None)
    return Spoken(form, known, len(known) < len(values))


def _numeral(tree: _Tree) -> Numeral | None:
    """The number of a label: by itself, or as the only one of an object such as {"probability": 0.7}."""
    if isinstance(tree, str):
        return read_numeral(tree)
    if isinstance(tree, list):
        return None
    found = _under(tree, _PROBABILITY_KEYS) or _under(tree, _SCORE_KEYS)
    return read_numeral(found[0]) if len(found) == 1 and isinstance(found[0], str) else None


def _pair(tree: _Tree, names: Names) -> tuple[int | None, Numeral | None] | None:
    """A label and its number, as {"label": "yes", "probability": 0.7}, {"yes": 0.7} or ["yes", 0.7] say them."""
    if isinstance(tree, list):
        if len(tree) != 2 or not isinstance(tree[0], str) or not isinstance(tree[1], str):
            return None
        label, numeral = names.find(tree[0]), read_numeral(tree[1])
        # Of a list of numbers none is a name, even where labels are digits.
        is_pair = label is not None or (numeral is not None and read_numeral(tree[0]) is None)
        return (label, numeral) if is_pair else None
    if isinstance(tree, str):
        return None
    if len(tree.pairs) == 1:
        key, value = tree.pairs[0]
        return (label, _numeral(value)) if (label := names.find(key)) is not None else None
    named = _under(tree, _NAME_KEYS)
    has_number = _under(tree, _PROBABILITY_KEYS | _SCORE_KEYS)
    return (
        (names.find(named[0]), _numeral(tree)) if has_number and len(named) == 1 and isinstance(named[0], str) else None
    )


def _columns(tree: _Object) -> list[tuple[str, Numeral | None]] | None:
    """Names and numbers in two lists of one length, as {"labels": [...], "scores": [...]}."""
    lists = [[item for item in value if isinstance(item, str)] for _, value in tree.pairs if isinstance(value, list)]
    if len(lists) != 2 or len(lists[0]) != len(lists[1]):
        return None
    return [(name, read_numeral(number)) for name, number in zip(*lists, strict=True)]


def _under(tree: _Object, keys: set[str]) -> list[_Tree]:
    return [value for key, value in tree.pairs if key.strip().casefold() in keys]
