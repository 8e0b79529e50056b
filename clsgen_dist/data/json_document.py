"""The objects of one JSON document, `[{...}, ...]` or `{"data": [{...}, ...]}`, one at a time.

The document is never held whole: it is read piece by piece, and an object is let go before the next one is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from clsgen_dist.errors import DataError

#: Characters that are read at one time, at first.
PIECE_CHARACTERS = 1 << 20

_OPENING = re.compile(r'\s*(\{\s*"data"\s*:\s*)?\[')
_SPACE = re.compile(r"[ \t\r\n]*")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, as `object_pairs_hook`; of a key that stands twice, Python would take the last one unseen.

    Raises:
        ValueError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:40]!r} stands twice in one object")
    return found


def opens_document(path: Path) -> bool:
    """Whether a file begins as such a document; otherwise it holds JSON lines, or no JSON."""
    with path.open("rb") as file:
        return _OPENING.match(file.read(4096).decode("utf-8-sig", "replace")) is not None


def document_objects(path: Path, *, max_characters: int) -> Iterator[tuple[int, str, object]]:
    """Parses the elements of the document's array.

    Args:
        path: a file that `opens_document`.
        max_characters: of one element, at most; a longer one is a broken document.

    Yields:
        Line at which the element begins, its JSON text, and what it says.

    Raises:
        DataError: the file is not UTF-8, or not JSON from some line on.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        window = _Window(path, file)
        opening = _OPENING.match(window.text)
        assert opening is not None, f"{path} is no document of objects"
        window.drop(opening.end())
        is_first = True
        while (mark := window.next_mark()) != "]":
            if not is_first:
                if mark != ",":
                    raise window.fault("expected a comma between two objects")
                window.drop(1)
                window.next_mark()
            element, end = window.parse(max_characters)
            yield window.line, window.text[:end], element
            window.drop(end)
            is_first = False
        window.drop(1)
        if window.next_mark() not in (("}", ",") if opening[1] else ("",)):
            raise window.fault("something stands behind the array")


class _Window:
    """The part of a file that is looked at.

    Attributes:
        text: from the place reached on.
        line: number of the line of that place.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self.text = ""
        self.line = 1
        self._read(PIECE_CHARACTERS)

    def _read(self, num_characters: int) -> bool:
        try:
            more = self._file.read(num_characters)
        except UnicodeDecodeError:
            raise DataError(f"{self._path}:{self.line}: not UTF-8, from this line on or later") from None
        self.text += more
        return bool(more)

    def drop(self, num_characters: int) -> None:
        self.line += self.text.count("\n", 0, num_characters)
        self.text = self.text[num_characters:]

    def next_mark(self) -> str:
        """Goes to the next character that is no space, and returns it; empty at the end of the file."""
        while True:
            space = _SPACE.match(self.text)
            assert space is not None, "the pattern matches nothing, too"
            self.drop(space.end())
            if self.text:
                return self.text[0]
            if not self._read(PIECE_CHARACTERS):
                return ""

    def parse(self, max_characters: int) -> tuple[object, int]:
        """The element that begins here, and where it ends; reads on until it is whole."""
        decoder = json.JSONDecoder(object_pairs_hook=unique_keys)
        while True:
            try:
                return decoder.raw_decode(self.text)
            except RecursionError:
                raise self.fault("nested too deeply") from None
            except json.JSONDecodeError as error:
                # Twice as much at a time, so that a long element is parsed few times.
                if len(self.text) > 2 * max_characters or not self._read(max(len(self.text), PIECE_CHARACTERS)):
                    raise self.fault(error.msg) from None
            except ValueError as error:  # an integer of thousands of digits, or a key twice
                raise self.fault(str(error)) from None

    def fault(self, reason: str) -> DataError:
        return DataError(f"{self._path}:{self.line}: not JSON ({reason}); expected an array of JSON objects")
