"""Of a long text the parts worth showing: its opening, and what an explanation takes up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clsgen_dist.evaluate.highlight import Piece

#: Characters of a text or an explanation that an example shows.
MAX_EXAMPLE_CHARACTERS = 900

#: A gap of no more characters is shown after all: saying that it is there takes as much room.
_SMALL_GAP_CHARACTERS = 60

#: Characters of a passage at most: where sentences are longer, they are cut.
_PASSAGE_CHARACTERS = 300

#: A sentence with the spaces behind it; a line counts as one, and a long one is parted between words.
_PASSAGE = re.compile(
    rf"(?s).{{1,{_PASSAGE_CHARACTERS}}}?(?:[.!?](?=\s)|\n|\Z)\s*"
    rf"|.{{1,{_PASSAGE_CHARACTERS}}}(?<=\s)|.{{1,{_PASSAGE_CHARACTERS}}}"
)


def excerpt(pieces: Sequence[Piece], limit: int = MAX_EXAMPLE_CHARACTERS) -> list[Piece]:
    """Shorten pieces of a text to about `limit` characters, saying how many were left out and where.

    The first passage always stays; then those with most shared characters, the earlier of equals first; all in their
    order.

    Args:
        pieces: a text, as `shared_pieces` cuts it.
        limit: characters to show; a text with no more stays whole.
    """
    text = "".join(piece.text for piece in pieces)
    if len(text) <= limit:
        return list(pieces)
    spans = [found.span() for found in _PASSAGE.finditer(text)]
    shared = _shared_characters(pieces, spans)
    order = sorted(range(len(spans)), key=lambda n: (n > 0, -shared[n], n))
    kept, num_kept = set[int](), 0
    for n in order:
        length = spans[n][1] - spans[n][0]
        if num_kept + length > limit:
            break
        kept.add(n)
        num_kept += length
    shown: list[Piece] = []
    left_out = 0
    for n, (start, end) in enumerate(spans):
        if n not in kept:
            left_out += end - start
            continue
        shown += [*_gap(pieces, start - left_out, start), *_between(pieces, start, end)]
        left_out = 0
    return [*shown, *_gap(pieces, len(text) - left_out, len(text))]


def _gap(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """What stands for a stretch that was left out."""
    if end - start <= _SMALL_GAP_CHARACTERS:
        return _between(pieces, start, end)
    return [Piece(f" \u2026 [{end - start:,} more characters] ", None)]


def _shared_characters(pieces: Sequence[Piece], spans: Sequence[tuple[int, int]]) -> list[int]:
    return [sum(len(piece.text) for piece in _between(pieces, *span) if piece.source is not None) for span in spans]


def _between(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """The pieces of a stretch of the text, those at its ends cut."""
    found, at = [], 0
    for piece in pieces:
        low, high = max(start - at, 0), min(end - at, len(piece.text))
        if low < high:
            found.append(Piece(piece.text[low:high], piece.source))
        at += len(piece.text)
    return found
