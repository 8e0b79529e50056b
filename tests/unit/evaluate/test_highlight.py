"""Words that a text shares with its explanation."""

import pytest

from clsgen_dist.evaluate.highlight import Piece, shared_pieces


def marked(text: str, *explanations: str) -> list[tuple[str, int]]:
    pieces = shared_pieces(text, explanations)
    assert "".join(piece.text for piece in pieces) == text
    assert all(piece.text for piece in pieces)
    return [(piece.text, piece.source) for piece in pieces if piece.source is not None]


def test_content_words_are_shared_and_function_words_are_not() -> None:
    assert marked("The man is in the garden.", "He is the man.") == [("man", 0)]


@pytest.mark.parametrize("said", ["dog", "DOGS", "dog's", "the dogs\u2019 bowl", "Dog!"])
def test_case_plural_and_marks_do_not_matter(said: str) -> None:
    assert marked("Two Dogs run", said) == [("Dogs", 0)]


def test_a_singular_that_ends_in_s_keeps_it() -> None:
    assert marked("glass gas", "glas") == []


def test_a_negation_is_content() -> None:
    assert marked("There is no fever", "no sign") == [("no", 0)]


def test_neighbours_are_one_piece_and_a_comma_parts_them() -> None:
    assert marked("a red hat, cold", "The cold red hat") == [("red hat", 0), ("cold", 0)]


def test_function_words_inside_a_run_are_marked_where_the_explanation_has_the_same_run() -> None:
    text = "a dog and a cow eat"
    assert marked(text, "A dog and a cow.") == [("dog and a cow", 0)]
    assert marked(text, "A cow beside a dog.") == [("dog", 0), ("cow", 0)]


def test_the_first_explanation_that_has_a_word_claims_it() -> None:
    assert marked("snow and sand", "snow", "snow, sand") == [("snow", 0), ("sand", 1)]


def test_a_single_digit_is_content_and_a_single_letter_is_not() -> None:
    assert marked("x 5", "x 5") == [("5", 0)]


def test_without_explanations_nothing_is_marked() -> None:
    assert shared_pieces("some text", ["", ""]) == [Piece("some text", None)]
    assert shared_pieces("", ["word"]) == []
