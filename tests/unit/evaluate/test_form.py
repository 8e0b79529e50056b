"""The form of explanations: every number worked out by hand, and the collapse that readability does not show."""

from __future__ import annotations

import itertools

import pytest

from clsgen_dist.evaluate.form import DISTINCT_DRAWN, distinct_share, form_metrics, repeated_share, words_of

#: 17 words, 2 sentences, 32 syllables.
KNOWN = (
    "The doctor carefully examined the anxious patient this morning. Nobody had expected such a terrible bad answer."
)
SHARES = ("empty_share", "cut_share", "duplicate_share")


def form(*texts: str) -> dict[str, float | int | None]:
    return form_metrics(texts, [False] * len(texts))


def test_readability_is_the_formula_and_a_mean_over_the_texts_with_words() -> None:
    found = form(KNOWN, "", KNOWN, " - ")
    assert found["flesch_reading_ease"] == pytest.approx(38.9604, abs=5e-5)
    assert found["flesch_kincaid_grade"] == pytest.approx(9.9368, abs=5e-5)
    assert found["mean_words"] == 34 / 4
    other = form(KNOWN, "The cat sat on the mat and the dog ran off.")  # 11 words, 1 sentence, 11 syllables
    assert other["flesch_reading_ease"] == pytest.approx((38.96044 + 206.835 - 1.015 * 11 - 84.6) / 2, abs=5e-5)


def test_one_word_again_and_again_reads_easily_and_repetition_shows_it() -> None:
    found = form("no " * 50)
    assert found["flesch_reading_ease"] == pytest.approx(71.5, abs=0.1)
    assert found["rep_2"] == pytest.approx(1 - 1 / 49)
    assert found["rep_3"] == pytest.approx(1 - 1 / 48)
    assert found["rep_4"] == pytest.approx(1 - 1 / 47)


def test_repeated_runs_are_counted_within_a_text() -> None:
    words = words_of("the cat saw the cat saw the dog")  # 7 pairs, 4 distinct; 6 runs of three, 4; 5 of four, 4
    assert repeated_share(words, 2) == pytest.approx(3 / 7)
    assert repeated_share(words, 3) == pytest.approx(2 / 6)
    assert repeated_share(words, 4) == pytest.approx(1 / 5)
    assert repeated_share(words[:3], 2) == 0.0
    assert repeated_share(words[:3], 4) is None
    found = form("The cat saw, the CAT saw: the dog.", "Short, though.")
    assert found["rep_2"] == pytest.approx((3 / 7 + 0) / 2)
    assert found["rep_4"] == pytest.approx(1 / 5), "a text of two words has no run of four"


def test_shares_of_cut_empty_and_doubled_texts() -> None:
    texts = ["All is fine.", "all  is\nfine.", "All is well.", "", "..."]
    found = form_metrics(texts, [True, False, False, True, False])
    assert {name: found[name] for name in SHARES} == {
        "empty_share": 2 / 5,
        "cut_share": 2 / 5,
        "duplicate_share": 2 / 3,
    }
    assert form("a b", "a b", "a b", "c d")["duplicate_share"] == 3 / 4, "every text that is not alone"


def test_nothing_is_said_of_no_texts() -> None:
    found = form()
    assert found.pop("num_rows") == 0
    assert set(found.values()) == {None}
    wordless = form("", " ")
    assert (wordless["num_rows"], wordless["empty_share"], wordless["mean_words"]) == (2, 1.0, 0.0)
    others = set(wordless) - {"num_rows", "empty_share", "cut_share", "mean_words"}
    assert {wordless[name] for name in others} == {None}


def test_distinct_runs_are_those_of_the_mean_draw() -> None:
    texts = [["a", "a"], ["b"]]  # of the three pairs of words one holds one kind, two hold two
    assert distinct_share(texts, 1, drawn=2) == pytest.approx((1 + 2 + 2) / 3 / 2)
    assert distinct_share(texts, 1, drawn=3) == pytest.approx(2 / 3), "all are drawn: distinct-n itself"
    assert distinct_share(texts, 1, drawn=4) is None
    words = list("abacbad")
    draws = [len(set(draw)) for draw in itertools.combinations(words, 3)]
    assert distinct_share([words], 1, drawn=3) == pytest.approx(sum(draws) / len(draws) / 3)


def test_runs_do_not_reach_into_the_next_text() -> None:
    assert distinct_share([["a", "b"], ["c", "d"]], 2, drawn=2) == 1.0
    assert distinct_share([["a", "b"], ["c", "d"]], 2, drawn=3) is None


def test_variety_does_not_depend_on_how_much_is_said() -> None:
    words = [f"w{n}" for n in range(50)]
    few = distinct_share([words] * 20, 1)  # 1,000 words
    many = distinct_share([words] * 400, 1)  # 20,000 words; distinct-n itself falls from 0.05 to 0.0025
    assert few == pytest.approx(50 / DISTINCT_DRAWN, rel=1e-3)
    assert many == pytest.approx(few, rel=1e-3)


def test_a_loop_has_no_variety() -> None:
    found = form(*["no " * 50] * 20)
    assert found["distinct_1"] == found["distinct_3"] == pytest.approx(1 / DISTINCT_DRAWN)
    assert form("no " * 50)["distinct_1"] is None, "fewer words than are drawn"
    varied = form(" ".join(f"w{n}" for n in range(600)))
    assert varied["distinct_1"] == pytest.approx(1.0)


def test_words_are_without_case_and_outer_marks() -> None:
    assert words_of('The "X-ray", (it\'s) 3.5 -- FINE.') == ["the", "x-ray", "it's", "3.5", "fine"]
