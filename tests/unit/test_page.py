"""Pages: what numbers look like to people."""

import math

import pytest

from clsgen_dist.page import say_number, say_percent, say_span


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.12345, "0.123"), (-0.0004, "0.000"), (-0.0006, "-0.001"), (12, "12"), (None, "undefined"), (math.inf, "inf")],
)
def test_numbers_have_three_digits_and_zero_has_no_sign(value: float | None, words: str) -> None:
    assert say_number(value) == words


def test_an_interval_that_is_none_is_nothing() -> None:
    assert say_span([-0.0001, 0.5]) == "0.000 to 0.500"
    assert say_span(None) == ""


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0.0 %"), (0.0004, "< 0.1 %"), (0.25, "25.0 %"), (0.9996, "> 99.9 %"), (1.0, "100.0 %")],
)
def test_rounding_never_makes_a_share_look_like_none_or_all(share: float, words: str) -> None:
    assert say_percent(share) == words
