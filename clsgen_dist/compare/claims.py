"""What the CLSGen paper claims, and what we want beyond it, against the numbers of a comparison.

Each claim ends as `holds`, `does not hold` or `cannot tell`, with the numbers that say so. Source of the claims:
arXiv 2604.11801; bounds that are ours are named so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from clsgen_dist.compare.columns import COLUMN

Content = Mapping[str, Any]

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot tell"

#: How much AUROC another arm may be above and still count as equal.
EQUAL_AUROC = 0.01

#: What the paper reports of kappa and of AUROC-alignment, at least, and what ours should reach.
PAPER_ALIGNMENT, OUR_ALIGNMENT = (0.61, 0.95), (0.85, 0.98)

#: Share of explanations whose label must be read before agreement says anything of all of them.
LEAST_COVERAGE = 0.9

#: Signs that a model has lost its language: kappa below; repeated 4-grams above; NLL of reference explanations, over
#: that of the base model, above.
LOST_KAPPA, LOST_REPETITION, LOST_NLL_RATIO = 0.2, 0.2, 1.0

#: Change of the NLL of general text that is as good as none, in percent.
KEPT_CHANGE = 2.0

#: Arms that are held to the base model by a divergence: on general text, and on the explanations.
HELD_ARMS = ("joint_general", "joint_kl")


def judge_claims(content: Content) -> list[dict[str, str]]:
    """Judges all claims.

    Args:
        content: of comparison.json, without claims.

    Returns:
        `claim`, `verdict` and `words` of each; `of` says whose claim it is: paper, or ours.
    """
    claims: tuple[tuple[str, str, Callable[[Content], tuple[str, str]]], ...] = (
        ("paper", "Joint training is above prompting in AUROC and F1.", _above_prompting),
        ("paper", "Joint training loses no AUROC against a classifier alone.", _keeps_auroc),
        ("paper", "The language of a classifier alone collapses, that of joint training does not.", _keeps_language),
        (
            "paper",
            f"Free explanations of joint training agree with the head: kappa {PAPER_ALIGNMENT[0]} and AUROC-alignment "
            f"{PAPER_ALIGNMENT[1]} or more.",
            lambda c: _aligned(c, "joint", *PAPER_ALIGNMENT),
        ),
        (
            "ours",
            f"Better than the paper: kappa {OUR_ALIGNMENT[0]} and AUROC-alignment {OUR_ALIGNMENT[1]} or more.",
            lambda c: _aligned(c, "joint", *OUR_ALIGNMENT),
        ),
        (
            "ours",
            f"With KL to the base, the NLL of general text stays within {KEPT_CHANGE:g} % of the base model, without "
            "loss of AUROC or alignment.",
            _keeps_general_text,
        ),
        ("ours", "Joint training is above word counts under a linear model in AUROC.", _above_floor),
    )
    return [
        {"of": of, "claim": claim, "verdict": verdict, "words": words}
        for of, claim, judge in claims
        for verdict, words in [judge(content)]
    ]


def _together(verdicts: list[str]) -> str:
    """Of parts that must all hold."""
    if FAILS in verdicts:
        return FAILS
    return UNKNOWN if UNKNOWN in verdicts or not verdicts else HOLDS


def _mean(content: Content, name: str, key: str) -> float | None:
    row = next((row for row in content["rows"] if row["name"] == name), None)
    numbers = None if row is None else row["numbers"][key]
    return None if numbers is None else float(numbers["mean"])


def _difference(content: Content, first: str, second: str, key: str) -> tuple[float, list[float] | None] | None:
    for found in content["differences"]:
        if (found["first"], found["second"]) == (first, second):
            return found["numbers"][key]["mean"], found["numbers"][key]["ci"]
    return None


def _say(mean: float, span: list[float] | None) -> str:
    return f"{mean:+.3f}" + ("" if span is None else f" [{span[0]:+.3f}, {span[1]:+.3f}]")


def _absent(*names: str) -> tuple[str, str]:
    return UNKNOWN, f"{' or '.join(names)} is not in the comparison, or has no finished run"


def _is_above(mean: float, span: list[float] | None) -> str:
    """Whether a difference is above 0 beyond what other test rows would give."""
    if span is not None and span[0] > 0:
        return HOLDS
    return FAILS if mean <= 0 and span is not None and span[1] < 0 else UNKNOWN


def _above(content: Content, second: str, keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
    verdicts, words = [], []
    for key in keys:
        found = _difference(content, "joint", second, key)
        if found is not None:
            verdicts.append(_is_above(*found))
            words.append(f"{COLUMN[key].title} {_say(*found)} over {second}")
    return verdicts, words


def _above_prompting(content: Content) -> tuple[str, str]:
    verdicts: list[str] = []
    words: list[str] = []
    for second in ("zero_shot_label_tokens", "zero_shot_verbalised"):
        own = _above(content, second, ("auroc", "f1"))
        verdicts, words = verdicts + own[0], words + own[1]
    return (_together(verdicts), "; ".join(words)) if words else _absent("joint", "a zero-shot arm")


def _above_floor(content: Content) -> tuple[str, str]:
    verdicts, words = _above(content, "bag_of_words", ("auroc",))
    return (_together(verdicts), "; ".join(words)) if words else _absent("joint", "bag_of_words")


def _no_loss(mean: float, span: list[float] | None) -> str:
    """Whether AUROC is kept: within `EQUAL_AUROC`, or no further from 0 than chance explains."""
    if mean >= -EQUAL_AUROC:
        return HOLDS
    return UNKNOWN if span is None or span[1] >= 0 else FAILS


def _keeps_auroc(content: Content) -> tuple[str, str]:
    found = _difference(content, "joint", "discriminative", "auroc")
    if found is None:
        return _absent("joint", "discriminative")
    words = f"AUROC {_say(*found)} over discriminative; {-EQUAL_AUROC:+.2f} still counts as equal"
    if found[1] is not None and found[0] >= -EQUAL_AUROC > found[1][0]:
        words += ", though the interval reaches below that"
    return _no_loss(*found), words


def _signs(content: Content, name: str) -> tuple[dict[str, bool], list[str]]:
    """Signs of lost language that could be looked for, and the numbers behind them."""
    signs: dict[str, bool] = {}
    words = []
    kappa, coverage = _mean(content, name, "kappa"), _mean(content, name, "coverage")
    if kappa is not None:
        signs["alignment"] = kappa < LOST_KAPPA
        words.append(f"kappa {kappa:.3f}")
    elif coverage is not None:
        signs["alignment"] = coverage < 0.5  # no kappa, since hardly any explanation opens with a label
        words.append(f"coverage {coverage:.3f}")
    repetition = _mean(content, name, "rep_4")
    if repetition is not None:
        signs["repetition"] = repetition > LOST_REPETITION
        words.append(f"rep-4 {repetition:.3f}")
    nll, base = _mean(content, name, "reference_nll"), _mean(content, name, "reference_nll_base")
    if nll is not None and base is not None:
        signs["reference NLL"] = nll > LOST_NLL_RATIO * base
        words.append(f"reference NLL {nll:.3f} (base {base:.3f})")
    return signs, words


def _keeps_language(content: Content) -> tuple[str, str]:
    alone, alone_words = _signs(content, "discriminative")
    joint, joint_words = _signs(content, "joint")
    words = f"discriminative: {', '.join(alone_words) or 'nothing measured'}; joint: " + (
        ", ".join(joint_words) or "nothing measured"
    )
    if not alone or not joint:
        return UNKNOWN, words
    collapsed, kept = sum(alone.values()) >= min(2, len(alone)), not any(joint.values())
    words += f". Signs of collapse: {sum(alone.values())} of {len(alone)}, and {sum(joint.values())} of {len(joint)}"
    if collapsed and kept:
        return HOLDS, words
    return (FAILS if not any(alone.values()) or sum(joint.values()) >= min(2, len(joint)) else UNKNOWN), words


def _aligned(content: Content, name: str, least_kappa: float, least_auroc: float) -> tuple[str, str]:
    kappa, auroc = _mean(content, name, "kappa"), _mean(content, name, "auroc_alignment")
    if kappa is None or auroc is None:
        return UNKNOWN, f"{name} has no free explanations whose label could be read"
    words = f"{name}: kappa {kappa:.3f}, AUROC-alignment {auroc:.3f}"
    coverage = _mean(content, name, "coverage")
    if coverage is not None:
        words += f", a label read in {100 * coverage:.1f} % of explanations"
        if coverage < LEAST_COVERAGE:
            return UNKNOWN, words
    return (HOLDS if kappa >= least_kappa and auroc >= least_auroc else FAILS), words


def _keeps_general_text(content: Content) -> tuple[str, str]:
    """Whether any of the ways to hold a model to its base does it."""
    judged = [found for name in HELD_ARMS if (found := _is_held(content, name)) is not None]
    if not judged:
        return _absent("joint", *HELD_ARMS)
    verdicts = [verdict for verdict, _ in judged]
    verdict = next(verdict for verdict in (HOLDS, UNKNOWN, FAILS) if verdict in verdicts)
    return verdict, ". ".join(words for _, words in judged)


def _is_held(content: Content, name: str) -> tuple[str, str] | None:
    change = _mean(content, name, "general_text_change")
    found = _difference(content, name, "joint", "auroc")
    if change is None or found is None:
        return None
    aligned, words = _aligned(content, name, *OUR_ALIGNMENT)
    verdict = _together([HOLDS if change <= KEPT_CHANGE else FAILS, _no_loss(*found), aligned])
    return verdict, f"{words}, general text {change:+.1f} %, AUROC {_say(*found)} over joint"
