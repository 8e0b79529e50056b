"""What a study says to do, in one sentence, and what speaks against relying on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clsgen_dist.calibrate.selection import NUM_STANDARD_ERRORS
from clsgen_dist.verbalize.titles import title_of

#: Share of answers that hold no distribution above which that is the first thing to mend.
MAX_FAILURES = 0.05

#: Test rows below which a calibration error is mostly noise: a perfect model shows about 0.07 at 200.
MIN_TEST_ROWS = 200

#: Distinct values below which few thresholds exist.
MIN_DISTINCT = 12

_KINDS = {
    "base_rate": "ignores what the model says and gives every row the share of each label",
    "raw_floored": "takes what the model says, with no 0 in it",
}


def say_verdict(metrics: Mapping[str, Any]) -> str:
    """Which method to use, and why: chosen by negative log-likelihood, never by a calibration error.

    Args:
        metrics: content of verbalized/metrics.json.
    """
    chosen = metrics["chosen"]
    if chosen is None:
        return (
            "There are too few rows to choose a method by cross-validation. A temperature on the inverted softmax is "
            "the one to start with; fit on more rows before relying on any of these numbers."
        )
    candidates = {candidate["name"]: candidate for candidate in metrics["choice"]}
    best, own = metrics["choice"][0], candidates[chosen]
    words = f"Use \u201c{title_of(chosen)}\u201d"
    words += f", which {_KINDS[chosen]}" if chosen in _KINDS else _temperature(metrics, chosen)
    if best["name"] == chosen:
        words += (
            f": on rows held out of the fit it has the least negative log-likelihood of all methods, "
            f"{own['mean_nll']:.3f} nats a row"
        )
    else:
        words += (
            f": on rows held out of the fit its negative log-likelihood, {own['mean_nll']:.3f} nats a row, lies within "
            f"{NUM_STANDARD_ERRORS:g} standard errors of the least, {best['mean_nll']:.3f} of "
            f"\u201c{title_of(best['name'])}\u201d, and no method so close fits fewer numbers"
        )
    return f"{words}. {_on_test(metrics, chosen)}"


def find_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """What speaks against relying on these numbers, a sentence or two each; empty where nothing does."""
    warnings = []
    failed = metrics["num_rows"] - metrics["num_parsed_rows"]
    if failed > MAX_FAILURES * metrics["num_rows"]:
        warnings.append(
            f"{failed:,} of {metrics['num_rows']:,} answers hold no distribution. Such rows are seldom like the "
            "others, so look at the numbers of all rows, and ask in a form that the model can keep."
        )
    if metrics["chosen"] == "base_rate":
        warnings.append(
            "No method beats the base rate beyond what chance explains: these answers are not shown to hold anything "
            "about the labels."
        )
    if metrics["num_labelled_rows"] < MIN_TEST_ROWS:
        warnings.append(
            f"Only {metrics['num_labelled_rows']:,} labelled rows were measured on: read the intervals, not the "
            "numbers."
        )
    distinct = metrics["num_distinct_values"]
    if 0 < distinct < MIN_DISTINCT:
        warnings.append(
            f"Only {distinct} distinct values were said, so only so many thresholds exist, and most rows are ties."
        )
    fates: dict[tuple[str, str], list[str]] = {}
    for name, reason in metrics["unavailable"].items():
        fate = "Shown with the base rate filled in only" if name in metrics["all_rows"] else "Left out"
        fates.setdefault((fate, reason), []).append(f"\u201c{title_of(name)}\u201d")
    warnings += [f"{fate}: {', '.join(names)}; {reason}." for (fate, reason), names in fates.items()]
    for warning in metrics["warnings"]:
        name, _, words = warning.partition(": ")
        warnings.append(f"{title_of(name)}: {words}.")
    return warnings


def _temperature(metrics: Mapping[str, Any], chosen: str) -> str:
    entry = metrics["all_rows"][chosen]
    return f" (T = {entry['temperature']:.2f})" if "temperature" in entry else ""


def _on_test(metrics: Mapping[str, Any], chosen: str) -> str:
    """How the choice did on the test rows, all of them, beside what it started from and the base rate."""
    everywhere, source = metrics["all_rows"], metrics["sources"][chosen]
    start = "raw_floored" if source == "said" else source
    others = [name for name in (start, "base_rate") if name in everywhere and name != chosen]
    beside = " and ".join(f"{everywhere[name]['nll']:.3f} for \u201c{title_of(name)}\u201d" for name in others)
    words = f"On all test rows it scores {everywhere[chosen]['nll']:.3f}" + (f", against {beside}" if beside else "")
    return f"{words}. Calibration errors had no part in the choice: they are too noisy to choose by."
