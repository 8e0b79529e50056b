"""Claims against numbers: what holds, what does not, and what nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from clsgen_dist.compare.claims import FAILS, HELD_ARMS, HOLDS, UNKNOWN, judge_claims
from clsgen_dist.compare.columns import COLUMNS
from clsgen_dist.compare.results import PAIRS
from clsgen_dist.config.compare import DEFAULT_ARMS

PROMPTING, AUROC, LANGUAGE, PAPER_ALIGNMENT, OUR_ALIGNMENT, GENERAL_TEXT, FLOOR = range(7)

Span = tuple[float, float, float]


def content(
    rows: dict[str, dict[str, float]] | None = None, differences: dict[tuple[str, str], dict[str, Span]] | None = None
) -> dict[str, Any]:
    """A comparison with these means, and these differences as (mean, low, high)."""
    return {
        "rows": [
            {"name": name, "numbers": {c.key: {"mean": own[c.key]} if c.key in own else None for c in COLUMNS}}
            for name, own in (rows or {}).items()
        ],
        "differences": [
            {
                "first": first,
                "second": second,
                "numbers": {key: {"mean": mean, "ci": [low, high]} for key, (mean, low, high) in own.items()},
            }
            for (first, second), own in (differences or {}).items()
        ],
    }


def verdict(number: int, of: dict[str, Any]) -> str:
    return judge_claims(of)[number]["verdict"]


def test_of_an_empty_comparison_nobody_can_tell_anything() -> None:
    claims = judge_claims(content())
    assert [claim["verdict"] for claim in claims] == [UNKNOWN] * 7
    assert [claim["of"] for claim in claims] == ["paper"] * 4 + ["ours"] * 3
    assert all(claim["words"] for claim in claims)


@pytest.mark.parametrize(
    ("auroc", "f1", "expected"),
    [
        ((0.20, 0.15, 0.25), (0.10, 0.05, 0.15), HOLDS),
        ((0.20, 0.15, 0.25), (0.02, -0.01, 0.05), UNKNOWN),
        ((0.20, 0.15, 0.25), (-0.10, -0.15, -0.05), FAILS),
    ],
)
def test_above_prompting_means_both_numbers_beyond_chance(auroc: Span, f1: Span, expected: str) -> None:
    found = content(differences={("joint", "zero_shot_label_tokens"): {"auroc": auroc, "f1": f1}})
    assert verdict(PROMPTING, found) == expected


def test_above_prompting_means_above_every_kind_of_it() -> None:
    above, equal = (0.2, 0.1, 0.3), (0.0, -0.1, 0.1)
    pairs = {
        ("joint", "zero_shot_label_tokens"): {"auroc": above, "f1": above},
        ("joint", "zero_shot_verbalised"): {"auroc": equal, "f1": above},
    }
    assert verdict(PROMPTING, content(differences=pairs)) == UNKNOWN


@pytest.mark.parametrize(
    ("auroc", "expected"),
    [
        ((0.004, -0.003, 0.011), HOLDS),
        ((-0.009, -0.016, -0.002), HOLDS),  # below, beyond chance, by less than 0.01
        ((-0.015, -0.031, 0.001), UNKNOWN),
        ((-0.015, -0.024, -0.006), FAILS),
    ],
)
def test_auroc_is_kept_within_a_hundredth_or_what_chance_explains(auroc: Span, expected: str) -> None:
    assert verdict(AUROC, content(differences={("joint", "discriminative"): {"auroc": auroc}})) == expected


JOINT = {"kappa": 0.89, "rep_4": 0.02, "reference_nll": 1.9, "reference_nll_base": 2.8}
COLLAPSED = {"kappa": 0.07, "rep_4": 0.61, "reference_nll": 3.1, "reference_nll_base": 2.8}


@pytest.mark.parametrize(
    ("alone", "joint", "expected"),
    [
        (COLLAPSED, JOINT, HOLDS),
        (COLLAPSED | {"rep_4": 0.05}, JOINT, HOLDS),  # two signs of three
        (COLLAPSED | {"rep_4": 0.05, "kappa": 0.5}, JOINT, UNKNOWN),
        (JOINT, JOINT, FAILS),
        (COLLAPSED, COLLAPSED, FAILS),
        (COLLAPSED, JOINT | {"rep_4": 0.4}, UNKNOWN),
        ({"coverage": 0.1, "rep_4": 0.6}, JOINT, HOLDS),  # no kappa, as hardly a label is read
        ({}, JOINT, UNKNOWN),
    ],
)
def test_collapse_is_told_by_its_signs_together(
    alone: dict[str, float], joint: dict[str, float], expected: str
) -> None:
    found = content({"discriminative": alone, "joint": joint})
    assert verdict(LANGUAGE, found) == expected


@pytest.mark.parametrize(
    ("kappa", "auroc", "paper", "ours"),
    [(0.89, 0.994, HOLDS, HOLDS), (0.84, 0.994, HOLDS, FAILS), (0.89, 0.97, HOLDS, FAILS), (0.6, 0.994, FAILS, FAILS)],
)
def test_alignment_has_the_papers_bounds_and_ours(kappa: float, auroc: float, paper: str, ours: str) -> None:
    found = content({"joint": {"kappa": kappa, "auroc_alignment": auroc}})
    assert (verdict(PAPER_ALIGNMENT, found), verdict(OUR_ALIGNMENT, found)) == (paper, ours)


def test_agreement_of_the_few_explanations_that_could_be_read_says_nothing() -> None:
    found = content({"joint": {"kappa": 0.95, "auroc_alignment": 0.99, "coverage": 0.4}})
    assert verdict(PAPER_ALIGNMENT, found) == UNKNOWN
    assert "a label read in 40.0 % of explanations" in judge_claims(found)[PAPER_ALIGNMENT]["words"]


@pytest.mark.parametrize(
    ("change", "auroc", "kappa", "expected"),
    [
        (1.9, (0.0, -0.01, 0.01), 0.9, HOLDS),
        (2.1, (0.0, -0.01, 0.01), 0.9, FAILS),
        (1.9, (-0.02, -0.03, -0.01), 0.9, FAILS),
        (1.9, (0.0, -0.01, 0.01), 0.8, FAILS),
    ],
)
def test_general_text_is_kept_only_where_nothing_else_is_lost(
    change: float, auroc: Span, kappa: float, expected: str
) -> None:
    own = {"general_text_change": change, "kappa": kappa, "auroc_alignment": 0.99}
    for arm in HELD_ARMS:
        found = content({arm: own}, {(arm, "joint"): {"auroc": auroc}})
        assert verdict(GENERAL_TEXT, found) == expected


def test_one_way_to_keep_general_text_is_enough() -> None:
    kept = {"general_text_change": 1.0, "kappa": 0.9, "auroc_alignment": 0.99}
    equal = {"auroc": (0.0, -0.01, 0.01)}
    differences = {("joint_general", "joint"): equal, ("joint_kl", "joint"): equal}
    found = content({"joint_general": kept, "joint_kl": kept | {"general_text_change": 5.0}}, differences)
    claim = judge_claims(found)[GENERAL_TEXT]
    assert claim["verdict"] == HOLDS
    assert "general text +1.0 %" in claim["words"]
    assert "general text +5.0 %" in claim["words"]
    assert verdict(GENERAL_TEXT, content()) == UNKNOWN


def test_what_the_claims_need_is_in_every_comparison() -> None:
    assert {(arm, "joint") for arm in HELD_ARMS} <= set(PAIRS)
    assert {arm.name for arm in DEFAULT_ARMS} >= {name for pair in PAIRS for name in pair}


def test_the_floor_is_word_counts() -> None:
    below = content(differences={("joint", "bag_of_words"): {"auroc": (-0.05, -0.08, -0.02)}})
    claim = judge_claims(below)[FLOOR]
    assert claim["verdict"] == FAILS
    assert claim["words"] == "AUROC -0.050 [-0.080, -0.020] over bag_of_words"
