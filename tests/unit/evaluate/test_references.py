"""How near explanations come to people's: chrF by hand, the nearest of several, and the two figures beside it."""

from __future__ import annotations

import json
import socket

import pytest

from clsgen_dist.evaluate.references import reference_similarity, references_of
from clsgen_dist.records import Row

#: "abcd" and "abce": 3 of 4 characters, 2 of 3 pairs, 1 of 2 runs of three, 0 of 1 run of four; no longer run exists.
NEAR = 100 * (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4


def test_similarity_is_the_share_of_common_runs_of_characters() -> None:
    found = reference_similarity([["abcd"]], free=["abce"], conditioned=["AB CD"])
    assert found is not None
    assert found["chrf_free"] == pytest.approx(NEAR)
    assert found["chrf_conditioned"] == pytest.approx(100.0), "case and spaces do not count"
    assert (found["num_rows"], found["chrf_other_rows"]) == (1, None)
    assert (found["num_rows_with_several"], found["chrf_references"]) == (0, None)


def test_recall_counts_twice_as_much_as_precision() -> None:
    # One character, one of two of the reference: precision 1, recall 1/2, F2 = 5 P R / (4 P + R).
    found = reference_similarity([["ab"]], free=["a"], conditioned=[None])
    assert found is not None
    assert found["chrf_free"] == pytest.approx(100 * 5 * 0.5 / 4.5)


def test_the_nearest_reference_counts() -> None:
    found = reference_similarity([["wxyz", "abcd", "klmn"]], free=["abce"], conditioned=[None])
    assert found is not None
    assert found["chrf_free"] == pytest.approx(NEAR)
    assert found["chrf_conditioned"] is None


def test_people_are_compared_with_the_nearest_of_each_other() -> None:
    found = reference_similarity(
        [["abcd", "abce", "wxyz"], ["abcd"]], free=["abcd", "abcd"], conditioned=["abcd", "abcd"]
    )
    assert found is not None
    assert found["num_rows_with_several"] == 1
    assert found["chrf_references"] == pytest.approx((NEAR + NEAR + 0) / 3)


def test_people_s_words_about_other_rows_stand_beside_it() -> None:
    references = [["abcd"], ["abce"], ["wxyz"], ["klmn"]]
    found = reference_similarity(references, free=[None] * 4, conditioned=["wxyz", "klmn", "abcd", "zzzz"])
    assert found is not None
    assert found["chrf_other_rows"] == pytest.approx(100 * 3 / 4), "rows 0 and 2 change places, and 1 and 3"
    assert found["chrf_conditioned"] == 0.0


def test_rows_without_reference_or_explanation_are_passed_over() -> None:
    found = reference_similarity(
        [[], ["abcd"], ["abcd"], ["abcd"]], free=["abcd", None, "abce", ""], conditioned=["abcd", None, None, None]
    )
    assert found is not None
    assert (found["num_rows"], found["chrf_free"]) == (2, pytest.approx(NEAR / 2))
    assert reference_similarity([[], ["abcd"]], free=["abcd", None], conditioned=["abcd", None]) is None
    assert reference_similarity([], free=[], conditioned=[]) is None


def test_references_of_a_row_are_all_that_people_wrote() -> None:
    assert references_of(Row(id="a", text="t")) == ()
    assert references_of(Row(id="a", text="t", explanation="one", references=("two", "one", "three"))) == (
        "one",
        "two",
        "three",
    )
    assert references_of(Row(id="a", text="t", references=("two",))) == ("two",)


def test_no_network_is_asked_and_the_answer_is_plain_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = reference_similarity([["so it is"]] * 3, free=["it is so"] * 3, conditioned=["so"] * 3)
    assert json.loads(json.dumps(found)) == found
