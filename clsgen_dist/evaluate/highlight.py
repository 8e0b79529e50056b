"""Words of a text that an explanation takes up, so that a reader sees what it leans on.

Content words are compared in lower case and without a plural s; a run of them is one piece. Nothing here knows markup:
pieces are plain text, and whoever shows them escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")

#: English words that say nothing by themselves. Negations are none of them: "no fever" leans on the no.
_FUNCTION_WORDS = frozenset(
    _WORD.findall("""
    a about after all also am an and any are as at be because been before being between both but by can could
    did do does doing down during each few for from further had has have having he her here hers him his how i
    if in into is it its itself just may me might more most must my of off on once one only or other our out
    over own per same shall she should so some such than that the their them then there therefore these they
    this those through thus to too under until up upon very was we were what when where which while who whom
    whose why will with would yes you your
    """)
)

#: Function words that may stand inside a run, where the explanation has the same run.
_MAX_GAP_WORDS = 2


@dataclass(frozen=True)
class Piece:
    """A stretch of a text.

    Attributes:
        text: its characters, as they stand in the text.
        source: number of the first explanation that shares it; None where none does.
    """

    text: str
    source: int | None


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    form: str


def shared_pieces(text: str, explanations: Sequence[str]) -> list[Piece]:
    """Cut a text into pieces that an explanation shares and pieces that none does.

    Args:
        text: what is looked at.
        explanations: the first one that has a word claims it.

    Returns:
        Pieces that joined give the text, unshared and shared ones; none is empty.
    """
    words = _words_of(text)
    said = [_words_of(explanation) for explanation in explanations]
    source_of = _sources(words, said)
    runs_of = [_runs(of_one) for of_one in said]
    spans: list[tuple[int, int, int]] = []
    before: int | None = None
    for n, source in source_of.items():
        word = words[n]
        joined = (
            before is not None and source == source_of[before] and _joins(text, words[before : n + 1], runs_of[source])
        )
        if joined:
            spans[-1] = (spans[-1][0], word.end, source)
        else:
            spans.append((word.start, word.end, source))
        before = n
    return _cut(text, spans)


def _words_of(text: str) -> list[_Word]:
    return [_Word(found.start(), found.end(), _form(found.group())) for found in _WORD.finditer(text)]


def _form(word: str) -> str:
    """What a word is compared by."""
    form = re.sub(r"['\u2019]s$", "", word.casefold())
    # Words that end so in the singular, too, are short or end in ss, us or is.
    if len(form) > 3 and form.endswith("s") and not form.endswith(("ss", "us", "is")):
        return form[:-1]
    return form


def _sources(words: list[_Word], said: list[list[_Word]]) -> dict[int, int]:
    """Number of each shared content word -> number of the explanation, in the order of the text."""
    forms = [{word.form for word in of_one if _has_content(word)} for of_one in said]
    found = {}
    for n, word in enumerate(words):
        source = next((s for s, known in enumerate(forms) if word.form in known), None)
        if source is not None:
            found[n] = source
    return found


def _has_content(word: _Word) -> bool:
    return word.form not in _FUNCTION_WORDS and (len(word.form) > 1 or word.form.isdigit())


def _runs(words: list[_Word]) -> set[tuple[str, ...]]:
    """Runs of words with room for a gap, as an explanation has them."""
    lengths = range(3, _MAX_GAP_WORDS + 3)
    return {
        tuple(word.form for word in words[n : n + length]) for length in lengths for n in range(len(words) - length + 1)
    }


def _joins(text: str, words: list[_Word], runs: set[tuple[str, ...]]) -> bool:
    """Whether two shared words, and what stands between them, are one run: nothing but spaces, or the same words."""
    apart = (text[left.end : right.start] for left, right in pairwise(words))
    if any(between.strip(" ") for between in apart):
        return False
    return len(words) == 2 or tuple(word.form for word in words) in runs


def _cut(text: str, spans: list[tuple[int, int, int]]) -> list[Piece]:
    pieces, at = [], 0
    for start, end, source in spans:
        pieces += [Piece(text[at:start], None), Piece(text[start:end], source)]
        at = end
    return [piece for piece in (*pieces, Piece(text[at:], None)) if piece.text]
