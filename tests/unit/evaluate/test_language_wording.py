"""What numbers of language mean."""

import pytest

from clsgen_dist.evaluate.language_wording import language_lines, loses_language, other_numbers, say_language


@pytest.mark.parametrize(
    ("change", "words", "loses"),
    [
        (-0.01, "General language is kept: ", False),
        (0.02, "General language is kept: ", False),
        (0.0928, "Some general language is lost: ", True),
        (0.11, "Much general language is lost: ", True),
    ],
)
def test_the_change_of_general_text_is_judged(change: float, words: str, loses: bool) -> None:
    (said,) = say_language({"general_text_change": change}, {})
    assert said.startswith(words)
    assert f"{abs(100 * change):.1f} % {'fewer' if change < 0 else 'more'} nats a token" in said
    assert loses_language({"general_text_change": change}, {}) is loses


def test_the_change_follows_from_both_models_where_it_is_not_given() -> None:
    (said,) = say_language({"general_text_nll": 3.3, "general_text_nll_base": 3.0}, {})
    assert "10.0 % more nats" in said


def test_loops_are_told_from_language_and_from_form() -> None:
    form = {"form": {"free": {"rep_4": 0.42}}}
    assert say_language({}, form) == say_language({"free_rep_4": 0.42}, {})
    assert "runs in loops: 42.0 %" in say_language({}, form)[0]
    assert "does not run in loops (1.0 %" in say_language({"free_rep_4": 0.01}, {})[0]
    assert loses_language({}, form)
    assert not loses_language({"free_rep_4": 0.01}, {})


@pytest.mark.parametrize(("own", "words"), [(0.9, "foresees"), (2.0, "neither set phrases"), (3.1, "unlikely")])
def test_explanations_are_held_against_reference_explanations_first(own: float, words: str) -> None:
    language = {"explanation_nll_under_base": own, "reference_explanation_nll_base": 2.0, "general_text_nll_base": 9.0}
    (said,) = say_language(language, {})
    assert words in said
    assert f"{own:.2f} nats a token, reference explanations 2.00" in said
    (said,) = say_language({"explanation_nll_under_base": 5.0, "general_text_nll_base": 9.0}, {})
    assert "general text 9.00" in said


def test_nothing_is_said_of_what_was_not_measured() -> None:
    assert say_language({"reference_explanation_nll": 1.2, "general_text_change": None}, {"form": None}) == []
    assert not loses_language({}, {})


def test_lines_stand_beside_the_base_and_what_is_unknown_is_listed() -> None:
    language = {"general_text_nll": 3.0, "general_text_nll_base": 2.5, "reference_explanation_nll": 1.0}
    assert language_lines(language) == [
        ("General text", 3.0, 2.5, pytest.approx(0.2)),
        ("Reference explanations", 1.0, None, None),
    ]
    assert other_numbers(language | {"distinct_2": 0.5, "base": "why", "free_rep_4": 0.1}) == [("distinct 2", 0.5)]
