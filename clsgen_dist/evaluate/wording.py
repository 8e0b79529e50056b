"""Sentences of the report: what an evaluation comes to, and how the model came to decide as it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Method of a calibrator -> what it does to log-odds.
METHODS = {
    "none": "none: the softmax of the head as it is",
    "temperature": "temperature: all logits divided by one number",
    "platt": "Platt: slope and intercept on the log-odds",
    "vector": "vector: a scale and a bias for each label",
    "beta": "beta: slopes on the logarithms of both probabilities, and an intercept",
    "isotonic": "isotonic: rising steps",
    "average": "average: the mean probability over slopes and intercepts on the log-odds, by what the rows say of each",
}

#: Rule of the operating threshold -> what it asks for.
RULES = {
    "best_f1": "the largest F1",
    "precision": "the lowest threshold with a precision of at least {value:g}",
    "recall": "the highest threshold with a recall of at least {value:g}",
    "cost": "the least expected cost, where a false alarm costs {value:g} times as much as a miss",
    "top_share": "at most a share of {value:g} of the rows flagged",
}

#: Numbers of a calibrator that are listed; isotonic steps are many.
MAX_NUMBERS = 12

#: Standard errors beyond which the shares of labels are not those of the prior.
CLEAR_DIFFERENCE_ERRORS = 3


def say_verdict(metrics: Mapping[str, Any]) -> str:
    """What the calibration comes to, in one or two sentences: error against noise, then slope and intercept."""
    own = metrics["calibrated"]
    low, high = own["ece_null_ci"]
    of_size = f"a perfectly calibrated model shows {own['ece_null']:.3f} on as many rows ({low:.3f} to {high:.3f})"
    name = "calibrated" if metrics["is_calibrated"] else "uncalibrated"
    if own["ece"] > high:
        verdict = f"The {name} probabilities are off by more than chance: an ECE of {own['ece']:.3f}, while {of_size}."
    else:
        verdict = (
            f"The {name} probabilities show no calibration error beyond chance: an ECE of {own['ece']:.3f}; {of_size}."
        )
    slope, span = own["calibration_slope"], own["calibration_slope_ci"]
    if slope is None or span is None or span[0] <= 1 <= span[1]:
        return verdict
    leaning = "too extreme" if slope < 1 else "too cautious"
    turn = "They are" if own["ece"] > high else "Yet all in all they are a little"
    return f"{verdict} {turn} {leaning}: the slope is {slope:.2f} ({span[0]:.2f} to {span[1]:.2f}), not 1."


def say_calibrator(calibrator: Mapping[str, Any]) -> str:
    """A calibrator, as `Calibrator.to_json` has it, in words and numbers."""
    parameters = calibrator["parameters"]
    words = METHODS[calibrator["method"]]
    if sum(len(values) for values in parameters.values()) > MAX_NUMBERS:
        return f"{words} ({max(len(values) for values in parameters.values())} of them)"
    numbers = [f"{name} {', '.join(f'{value:.4g}' for value in values)}" for name, values in parameters.items()]
    return f"{words} ({'; '.join(numbers)})" if numbers else words


def say_rule(decision: Mapping[str, Any]) -> str:
    """What the operating threshold was chosen for."""
    return RULES[decision["threshold_rule"]].format(value=decision["threshold_value"])


def shares_differ(prior: Mapping[str, float], labels: Sequence[str], shares: Sequence[float], num_rows: int) -> bool:
    """Whether rows have other shares of labels than a prior says, beyond what drawing so many rows explains.

    Args:
        prior: share of each label where the model will be used.
        labels: names of the labels in the order of their numbers.
        shares: share of each label among the rows.
        num_rows: how many rows.
    """
    return any(
        abs(prior[name] - share) > CLEAR_DIFFERENCE_ERRORS * math.sqrt(prior[name] * (1 - prior[name]) / num_rows)
        for name, share in zip(labels, shares, strict=True)
    )


def say_prior(prior: Mapping[str, float], labels: Sequence[str], shares: Sequence[float]) -> str:
    """Why rows with other shares of labels cannot judge calibration.

    Args:
        prior: share of each label where the model will be used.
        labels: names of the labels in the order of their numbers.
        shares: share of each label among the labelled rows of the split.
    """
    asked, found = (
        ", ".join(f"{name} {share:.3g}" for name, share in zip(labels, each, strict=True))
        for each in ([prior[name] for name in labels], shares)
    )
    return (
        f"The probabilities are made for a population with other shares of labels ({asked}) than these rows have "
        f"({found}). Against these rows they are expected to be off: read ECE, slope, intercept, NLL, Brier score, "
        "accuracy, F1, precision, net benefit and costs here as those of this split, not of that population. Ranking "
        "(AUROC) and recall stay."
    )
