"""The numbers of the language kept, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clsgen_dist.evaluate.language import language_kept, nats_a_token
from clsgen_dist.records import LanguageScores, TextScore

WHY = "no base"


def text(id: str, num_tokens: int, tuned: float | None, base: float | None, kl: float | None = None) -> TextScore:
    return TextScore(id=id, num_tokens=num_tokens, tuned=tuned, base=base, kl=kl)


SCORES = LanguageScores(
    swaps=[],
    references=[text("r1", 4, 6.0, 10.0), text("r2", 6, 9.0, 30.0)],
    free=[text("r1", 5, None, 2.0), text("r3", 3, None, 4.0)],
    general=[text("p2", 30, 93.0, 90.0, 3.0), text("p1", 10, 33.0, 30.0, 1.8)],
    no_base=None,
)


def test_every_number_is_summed_over_texts_and_divided_by_their_tokens() -> None:
    found = language_kept(SCORES, free_rep_4=0.25, num_bootstrap=200, seed=1)
    low, high = found.pop("general_text_change_ci")
    assert found == {
        "reference_explanation_nll": pytest.approx(1.5),
        "reference_explanation_nll_base": pytest.approx(4.0),
        "num_reference_rows": 2,
        "general_text_nll": pytest.approx(3.15),
        "general_text_nll_base": pytest.approx(3.0),
        "general_text_change": pytest.approx(0.05),
        "general_text_kl": pytest.approx(0.12),
        "num_general_tokens": 40,
        "explanation_nll_under_base": pytest.approx(0.75),
        "num_free_rows": 2,
        "free_rep_4": 0.25,
        "base": None,
    }
    # One passage of 3.3 % and one of 10 %: a resample holds the first twice, both, or the second twice.
    assert (low, high) == (pytest.approx(1 / 30), pytest.approx(0.1))


def test_the_order_of_the_texts_changes_nothing() -> None:
    backwards = replace(SCORES, **{n: getattr(SCORES, n)[::-1] for n in ("references", "free", "general")})
    one, other = (language_kept(s, free_rep_4=None, num_bootstrap=100, seed=1) for s in (SCORES, backwards))
    assert one == other


def test_without_a_base_only_the_tuned_model_has_numbers_and_the_reason_stands_there() -> None:
    alone = LanguageScores(
        swaps=[],
        references=[text("r1", 4, 6.0, None)],
        free=[],
        general=[text("p1", 10, 33.0, None)],
        no_base=WHY,
    )
    found = language_kept(alone, free_rep_4=None, num_bootstrap=100, seed=1)
    assert found["reference_explanation_nll"] == 1.5
    assert found["general_text_nll"] == pytest.approx(3.3)
    assert found["base"] == WHY
    empty = {name for name, value in found.items() if value is None}
    assert empty == {
        *("reference_explanation_nll_base", "general_text_nll_base", "general_text_change", "general_text_change_ci"),
        *("general_text_kl", "explanation_nll_under_base", "free_rep_4"),
    }


def test_nothing_scored_is_nothing_said() -> None:
    nothing = LanguageScores(swaps=[], references=[], free=[], general=[], no_base=None)
    found = language_kept(nothing, free_rep_4=None, num_bootstrap=100, seed=1)
    assert {value for value in found.values() if value} == set()


def test_one_passage_has_no_interval() -> None:
    single = replace(SCORES, general=SCORES.general[:1])
    found = language_kept(single, free_rep_4=None, num_bootstrap=100, seed=1)
    assert found["general_text_change"] == pytest.approx(93 / 90 - 1)
    assert found["general_text_change_ci"] is None


def test_a_cost_of_some_texts_only_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="some texts"):
        nats_a_token([text("a", 1, 1.0, None), text("b", 1, 1.0, 2.0)], "base")
