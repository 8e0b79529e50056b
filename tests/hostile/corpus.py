"""The corpus of bad inputs: what stands in cases/*.yaml, as objects.

A file holds `door`, the entry that its inputs go through, `error`, the class that it raises, and `cases`. Each case has

    id         name, unique in the corpus
    text       the input as text, $NAME standing for a piece of `pieces`; or
    bytes      the input as text with Python's escapes (\\xff), one letter a byte; or
    make       name of a function of makers.py that makes the input
    expected   part of the message, or a list of parts; all must stand in it
    file       name of the input's file, where the door reads one
    more       whatever else the door understands
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "cases"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad input and what a user is told of it."""

    id: str
    door: str
    error: str
    expected: tuple[str, ...]
    content: bytes | None
    make: str | None
    file: str
    more: dict[str, Any] = field(default_factory=dict)


def read_corpus() -> list[Case]:
    """All cases, in the order of their files."""
    return [case for path in sorted(FOLDER.glob("*.yaml")) for case in _read(path)]


def _read(path: Path) -> list[Case]:
    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    pieces: dict[str, str] = whole.get("pieces", {})
    return [_case(entry, whole, pieces) for entry in whole["cases"]]


def _case(entry: dict[str, Any], whole: dict[str, Any], pieces: dict[str, str]) -> Case:
    known = {"id", "text", "bytes", "make", "expected", "file", "error", "door"}
    expected = entry["expected"]
    content = None
    if "text" in entry:
        content = _filled(str(entry["text"]), pieces).encode("utf-8", "surrogatepass")
    elif "bytes" in entry:
        content = _filled(entry["bytes"], pieces).encode("latin-1").decode("unicode_escape").encode("latin-1")
    return Case(
        id=entry["id"],
        door=entry.get("door", whole["door"]),
        error=entry.get("error", whole["error"]),
        expected=tuple([expected] if isinstance(expected, str) else expected),
        content=content,
        make=entry.get("make"),
        file=entry.get("file", whole.get("file", "input")),
        more={key: value for key, value in entry.items() if key not in known},
    )


def _filled(text: str, pieces: dict[str, str]) -> str:
    for name, piece in pieces.items():
        text = text.replace(f"${name}", piece.rstrip("\n"))
    return text
