"""Of a long text the parts worth showing."""

from clsgen_dist.evaluate.excerpt import excerpt
from clsgen_dist.evaluate.highlight import Piece, shared_pieces

FILLER = "Nothing of note was written in this line of the text at all. " * 4


def joined(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_text_within_the_limit_stays_as_it_is() -> None:
    pieces = shared_pieces("A fever. A cough.", ["fever"])
    assert excerpt(pieces, 17) == pieces


def test_the_opening_and_what_is_shared_are_kept_and_the_gaps_counted() -> None:
    text = f"It opens. {FILLER}There is a high fever. {FILLER}"
    shown = excerpt(shared_pieces(text, ["high fever"]), 40)
    gap = f" \u2026 [{len(FILLER)} more characters] "
    assert joined(shown) == f"It opens. {gap}There is a high fever. {gap}"
    assert Piece("high fever", 0) in shown


def test_text_without_sentences_is_cut_at_the_limit() -> None:
    assert joined(excerpt([Piece("x" * 2000, None)], 900)) == "x" * 900 + " \u2026 [1,100 more characters] "


def test_a_long_sentence_is_parted_between_words() -> None:
    shown = joined(excerpt([Piece("words " * 200, None)], 700))
    assert shown == "words " * 100 + " \u2026 [600 more characters] "


def test_a_mark_across_a_cut_stays_a_mark() -> None:
    shown = excerpt([Piece("x" * 350, 0), Piece("y" * 700, None)], 600)
    assert [(piece.text, piece.source) for piece in shown[:3]] == [("x" * 300, 0), ("x" * 50, 0), ("y" * 250, None)]


def test_a_small_gap_is_shown_after_all() -> None:
    text = f"It opens. Short. A fever. {FILLER}"
    assert joined(excerpt(shared_pieces(text, ["fever"]), 26)).startswith("It opens. Short. A fever. ")
