"""What training left of a model's language, in lines of a table and in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clsgen_dist.page import say_percent

#: Rise of the negative log-likelihood of general text up to which language counts as kept.
KEPT_CHANGE = 0.02

#: Rise beyond which much of it counts as lost.
LOST_CHANGE = 0.1

#: Share of repeated runs of four words within an explanation from which it counts as looping.
LOOPING_SHARE = 0.1

#: Explanations this much likelier than the yardstick (ratio of nats a token) are set phrases or loops.
PREDICTABLE_RATIO = 0.5

#: Explanations this much less likely are hardly language.
BROKEN_RATIO = 1.5

#: Lines of the table: name, key of the tuned model, key of the base model.
PAIRS = (
    ("General text", "general_text_nll", "general_text_nll_base"),
    ("Reference explanations", "reference_explanation_nll", "reference_explanation_nll_base"),
)

#: Keys that have a place on the page; others are listed as they are.
_SHOWN = {key for _, *keys in PAIRS for key in keys} | {
    *("general_text_change", "general_text_kl", "num_general_tokens"),
    *("general_text_change_ci", "num_reference_rows", "explanation_nll_under_base", "num_free_rows", "free_rep_4"),
    "base",
}


def language_lines(language: Mapping[str, Any]) -> list[tuple[str, float | None, float | None, float | None]]:
    """(text, nats a token of the tuned model, of the base model, change as a share) of each that was measured."""
    lines = []
    for name, tuned_key, base_key in PAIRS:
        tuned, base = language.get(tuned_key), language.get(base_key)
        if tuned is not None or base is not None:
            lines.append((name, tuned, base, tuned / base - 1 if tuned is not None and base else None))
    return lines


def other_numbers(language: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(name, value) of numbers without a place of their own."""
    numbers = ((key, value) for key, value in language.items() if key not in _SHOWN)
    return [(key.replace("_", " "), value) for key, value in numbers if isinstance(value, int | float)]


def say_change(change: float) -> str:
    """A change as a signed percentage."""
    return f"{100 * change:+.1f} %"


def say_language(language: Mapping[str, Any], explanation: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, a sentence each; nothing of what was not measured."""
    sentences = []
    change = _general_change(language)
    if change is not None:
        kept = (
            "General language is kept"
            if change <= KEPT_CHANGE
            else "Some general language is lost"
            if change <= LOST_CHANGE
            else "Much general language is lost"
        )
        sentences.append(
            f"{kept}: text that has nothing to do with the task costs the tuned model "
            f"{abs(100 * change):.1f} % {'more' if change > 0 else 'fewer'} nats a token than its base (up to "
            f"{100 * KEPT_CHANGE:.0f} % more counts as kept)."
        )
    repeated = _repeated(language, explanation)
    if repeated is not None:
        sentences.append(
            f"Left alone, the model runs in loops: {say_percent(repeated)} of the runs of four words in an explanation "
            "stood in it before."
            if repeated >= LOOPING_SHARE
            else f"Left alone, the model does not run in loops ({say_percent(repeated)} of the runs of four words in "
            "an explanation stood in it before)."
        )
    return sentences + _say_own(language)


def loses_language(language: Mapping[str, Any], explanation: Mapping[str, Any]) -> bool:
    """Whether general text became harder for the model, or its explanations loop."""
    change, repeated = _general_change(language), _repeated(language, explanation)
    return (change is not None and change > KEPT_CHANGE) or (repeated is not None and repeated >= LOOPING_SHARE)


def _general_change(language: Mapping[str, Any]) -> float | None:
    change: float | None = language.get("general_text_change")
    if change is None and language.get("general_text_nll") and language.get("general_text_nll_base"):
        return float(language["general_text_nll"] / language["general_text_nll_base"] - 1)
    return change


def _repeated(language: Mapping[str, Any], explanation: Mapping[str, Any]) -> float | None:
    form = (explanation.get("form") or {}).get("free") or {}
    repeated: float | None = language.get("free_rep_4", form.get("rep_4"))
    return repeated


def _say_own(language: Mapping[str, Any]) -> list[str]:
    """How likely the base model finds what the tuned one writes; people's own explanations are the best yardstick."""
    own = language.get("explanation_nll_under_base")
    yardsticks = (
        ("reference explanations", "reference_explanation_nll_base"),
        ("general text", "general_text_nll_base"),
    )
    for name, key in yardsticks:
        if own is None or not language.get(key):
            continue
        held = f"{own:.2f} nats a token, {name} {language[key]:.2f}"
        if own < PREDICTABLE_RATIO * language[key]:
            return [f"The base model foresees the explanations ({held}): set phrases, or loops where they also repeat."]
        if own > BROKEN_RATIO * language[key]:
            return [f"The base model finds the explanations unlikely ({held}): they may hardly be language."]
        return [f"The base model finds the explanations neither set phrases nor word salad ({held})."]
    return []
