"""One study: every method fitted on some answers, measured on others, and what that says.

Shape legend: N rows, K labels.

Measured twice. On the rows that a method has something for, which says how good it is there; and on all rows, with the
base rate of the fit where it has nothing, which is what its user gets. Failures are no random part of the rows, so the
first alone would flatter a model that is silent where it is hard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.simplex import SMALLEST_FLOOR, default_floor, num_distinct
from clsgen_dist.errors import DataError
from clsgen_dist.evaluate.subgroups import subgroup_calibration
from clsgen_dist.evaluate.traits import region_of, traits_of
from clsgen_dist.records import UNLABELLED
from clsgen_dist.verbalize.answers import Answers, check_apart
from clsgen_dist.verbalize.choice import Choice, choose_method, fill
from clsgen_dist.verbalize.learned import FEATURE_NAMES, text_features
from clsgen_dist.verbalize.methods import (
    SAID,
    UNSCALED,
    Evidence,
    Fitted,
    Settings,
    base_rate,
    fit_method,
    list_methods,
    say_too_few,
)
from clsgen_dist.verbalize.parsing import FAULTS
from clsgen_dist.verbalize.table import measure, tabulate_floors, tabulate_thresholds

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """What a study found.

    Attributes:
        metrics: content of verbalized/metrics.json.
        fits: content of verbalized/fits.json: every fitted method, with the floor and the rows that it rests on.
        test: the rows that were measured on.
        probabilities: method -> N x K on the rows of `test`; NaN where the method has nothing for a row.
        base_rate: what stands in there; shape (K,).
    """

    metrics: dict[str, Any]
    fits: dict[str, Any]
    test: Answers
    probabilities: dict[str, FloatArray]
    base_rate: FloatArray


def study(
    fit: Answers,
    test: Answers,
    *,
    floor: float | None,
    constant: Literal["zero", "centred"],
    max_temperature: float,
    num_bins: int,
    num_bootstrap: int,
    seed: int,
    is_floor_default: bool | None = None,
    origin: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    allow_shared_groups: bool = False,
) -> Study:
    """Compare all ways from what a model said to probabilities.

    Args:
        fit: answers to fit on.
        test: answers to measure on; no row, group or text of `fit`.
        floor: least said probability before a logarithm is taken; None takes `default_floor` of the answers of `fit`.
        constant: what is added to the logarithms of a row; see `invert_softmax`.
        max_temperature: bound of temperatures.
        num_bins: bins of the calibration errors.
        num_bootstrap: resamples of groups behind each interval.
        seed: seed of folds, resamples and draws.
        is_floor_default: whether nobody set `floor`, though it may be given; None: where it is None.
        origin: what a fit depends on besides its rows, name -> hash or name: model, prompt. Kept with the fits.
        warnings: further ones, as "NAME: words".
        allow_shared_groups: whether the two may share groups.

    Raises:
        DataError: the two share rows; nothing can be fitted or measured, because too few answers were understood or
            they are of one label; says the parse rate and the most frequent failure.
    """
    check_apart(fit, test, allow_shared_groups=allow_shared_groups)
    said_NK = fit.said_NK[fit.parsed_N]
    chosen_floor = floor if floor is not None else default_floor(said_NK) if len(said_NK) else SMALLEST_FLOOR
    settings = Settings(floor=chosen_floor, constant=constant, max_temperature=max_temperature, seed=seed)
    fit_rows, test_rows = _evidence(fit, test), _evidence(test, fit)
    for answers, rows in ((fit, fit_rows), (test, test_rows)):
        _refuse_unusable(answers, rows, to_fit=answers is fit)

    methods, unavailable = list_methods(fit_rows, len(fit.labels))
    fitted = {method.name: fit_method(method, fit_rows, settings) for method in methods}
    choice = choose_method(methods, [one.num_parameters for one in fitted.values()], fit_rows, settings)
    probabilities = {name: one.predict(test_rows) for name, one in fitted.items()}
    rate_K = base_rate(fit_rows.labels_N, len(fit.labels))
    known_N = test.labels_N != UNLABELLED
    measured = partial(measure, num_bins=num_bins, num_bootstrap=num_bootstrap, seed=seed)

    own: dict[str, dict[str, Any]] = {}
    everywhere: dict[str, dict[str, Any]] = {}
    for name, one in fitted.items():
        extra = {"num_parameters": one.num_parameters} | (
            {} if one.temperature is None or one.num_parameters != 1 else {"temperature": one.temperature}
        )
        usable_N = test_rows.usable_N(one.method.source)
        fault = _say_unmeasurable(test_rows, usable_N)
        if fault is None:
            own_NK = probabilities[name][usable_N]
            own[name] = extra | measured(own_NK, test.labels_N[usable_N], test.groups_N[usable_N])
        else:
            unavailable[name] = fault
        if fault is None and usable_N.sum() == known_N.sum():
            everywhere[name] = own[name]
        else:
            all_NK = fill(probabilities[name], rate_K)[known_N]
            everywhere[name] = extra | measured(all_NK, test.labels_N[known_N], test.groups_N[known_N])

    before, after = _before_and_after(choice, fitted, own)
    parts = partial(_describe_parts, test, num_bins=num_bins, num_bootstrap=num_bootstrap, seed=seed)
    has_said = "invert_softmax_temperature" in fitted
    metrics: dict[str, Any] = {
        "labels": list(test.labels),
        "num_rows": len(test),
        "num_labelled_rows": int(known_N.sum()),
        "num_parsed_rows": int(test.parsed_N.sum()),
        "num_groups": len(np.unique(test.groups_N[known_N])),
        "parse_rate": test.parse_rate,
        "failures": test.count_failures(),
        "num_fit_rows": len(fit),
        "num_fit_rows_used": int(fit_rows.usable_N(SAID).sum()),
        "parse_rate_fit": fit.parse_rate,
        "failures_fit": fit.count_failures(),
        "num_distinct_values": num_distinct(test.said_NK[test.parsed_N]),
        "floor": chosen_floor if len(said_NK) else None,
        "is_floor_default": floor is None if is_floor_default is None else is_floor_default,
        "constant": constant,
        "num_bins": num_bins,
        "label_shares": rate_K.tolist(),
        "chosen": choice.name,
        "choice": [asdict(candidate) for candidate in choice.candidates],
        "before": before,
        "after": after,
        "sources": {name: one.method.source for name, one in fitted.items()},
        "unavailable": unavailable,
        "warnings": [*warnings, *(f"{name}: {said}" for name, one in fitted.items() for said in one.warnings)],
        "all_rows": everywhere,
        "floors": tabulate_floors(fit_rows, test_rows, settings) if has_said else [],
        "thresholds": _thresholds(probabilities, test_rows, fitted, [n for n in (before, after) if n]),
        "parts": {} if before is None or after is None else parts(probabilities, before, after),
    }
    assert not set(metrics) & set(own), "a column of token probabilities has the name of something else"
    fits = {
        "labels": list(fit.labels),
        "floor": metrics["floor"],
        "constant": constant,
        "max_temperature": max_temperature,
        "seed": seed,
        "label_shares": rate_K.tolist(),
        "chosen": choice.name,
        "rows_sha256": fit.fingerprint(),
        "origin": dict(origin or {}),
        "methods": {
            name: {"source": one.method.source, "kind": one.method.kind, "num_parameters": one.num_parameters}
            | one.content
            for name, one in fitted.items()
        },
    }
    return Study(metrics=metrics | own, fits=fits, test=test, probabilities=probabilities, base_rate=rate_K)


def _evidence(answers: Answers, other: Answers) -> Evidence:
    """What methods may see of answers; texts count where both the rows to fit on and the rows to test on have them."""
    assert set(answers.token_probabilities) == set(other.token_probabilities), "the same columns on both sides"
    readable = answers.texts is not None and other.texts is not None
    return Evidence(
        sources={SAID: answers.said_NK, **answers.token_probabilities},
        features_NF=text_features(answers.texts) if readable and answers.texts is not None else None,
        feature_names=FEATURE_NAMES if readable else (),
        labels_N=answers.labels_N,
        groups_N=answers.groups_N,
    )


def _refuse_unusable(answers: Answers, rows: Evidence, *, to_fit: bool) -> None:
    """Raise where no source has enough rows; what was said may fail if the tokens of all answers speak."""
    faults = {}
    for source in rows.sources:
        usable_N = rows.usable_N(source)
        faults[source] = say_too_few(rows.labels_N[usable_N]) if to_fit else _say_unmeasurable(rows, usable_N)
    if None in faults.values():
        return
    failures = answers.count_failures()
    causes = ""
    if failures:
        cause, count = next(iter(failures.items()))
        causes = f", the most frequent failure is {cause} ({count} answers: {FAULTS.get(cause, cause)})"
    raise DataError(
        f"{answers.source}: of {len(answers)} answers ({int((answers.labels_N != UNLABELLED).sum())} labelled), "
        f"{100 * answers.parse_rate:.1f} % hold a distribution{causes}: {faults[SAID]}; give more labelled answers, or "
        "ask in a form that the model can keep (guided decoding, the direct prompt)"
    )


def _say_unmeasurable(rows: Evidence, usable_N: npt.NDArray[np.bool_]) -> str | None:
    """Why no metric can be taken of some rows; None where it can."""
    labels_N = rows.labels_N[usable_N]
    if not len(labels_N) or (labels_N == labels_N[0]).all():
        return f"{len(labels_N)} labelled rows can be measured, expected rows of at least two labels"
    if len(np.unique(rows.groups_N[usable_N])) < 2:
        return f"all {len(labels_N)} labelled rows that can be measured are of one group, expected at least two"
    return None


def _before_and_after(
    choice: Choice, fitted: Mapping[str, Fitted], own: Mapping[str, Any]
) -> tuple[str | None, str | None]:
    """The pair that pictures show: a source as it is, and the method of the choice, or else the temperature, on it."""
    candidates = [choice.name, *(c.name for c in choice.candidates), "invert_softmax_temperature", *own]
    scaled = [n for n in candidates if n is not None and n in own and fitted[n].method.kind not in UNSCALED]
    chosen = fitted.get(choice.name or "")
    if chosen is not None and chosen.method.kind in UNSCALED:
        # What was chosen scales nothing: show what scaling would have done to the same source.
        same = [n for n in scaled if fitted[n].method.source == chosen.method.source]
        scaled = [n for n in same if fitted[n].method.kind == "temperature"] or same or scaled
    if not scaled:
        return None, None
    source = fitted[scaled[0]].method.source
    return ("raw" if source == SAID else source), scaled[0]


def _thresholds(
    probabilities: Mapping[str, FloatArray], rows: Evidence, fitted: Mapping[str, Fitted], names: list[str]
) -> dict[str, list[dict[str, float | None]]]:
    tables = {}
    for name in names:
        usable_N = rows.usable_N(fitted[name].method.source)
        tables[name] = tabulate_thresholds(probabilities[name][usable_N], rows.labels_N[usable_N])
    return tables


def _describe_parts(
    test: Answers,
    probabilities: Mapping[str, FloatArray],
    before: str,
    after: str,
    *,
    num_bins: int,
    num_bootstrap: int,
    seed: int,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Calibration of parts of the rows before and after: trait -> method -> parts.

    The region of confidence is that of what was said, so that both columns look at the same rows.
    """
    # With the floor: of a said 0 or 1 no intercept could be taken.
    before = "raw_floored" if before == "raw" else before
    rows_N = (test.labels_N != UNLABELLED) & ~np.isnan(probabilities[before]).any(axis=1)
    traits = {"region": region_of(probabilities[before][rows_N])}
    if test.texts is not None:
        traits |= traits_of([text for text, kept in zip(test.texts, rows_N, strict=True) if kept])
    return {
        trait: {
            name: [
                asdict(part)
                for part in subgroup_calibration(
                    probabilities[name][rows_N],
                    test.labels_N[rows_N],
                    values,
                    test.groups_N[rows_N],
                    num_bins=num_bins,
                    num_bootstrap=num_bootstrap,
                    seed=seed,
                    event="top_label" if trait == "region" else None,
                )
            ]
            for name in (before, after)
        }
        for trait, values in traits.items()
    }
