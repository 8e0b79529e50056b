"""From probabilities to decisions.

Shape legend: N rows, K labels, J distinct probabilities, G groups.

A threshold is chosen on the calibration rows, after calibration, and then left alone: chosen on the rows that are
reported, the best F1 is several points too good. What a threshold brings on rows that did not choose it is an estimate
of the evaluation, not of this module.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from clsgen_dist.calibrate.cuts import RULES, Cuts
from clsgen_dist.calibrate.families import LINEAR_METHODS, slope_and_intercept
from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def choose_threshold(
    probability_N: npt.ArrayLike,
    positive_N: npt.ArrayLike,
    *,
    rule: str,
    value: float | None,
    weight_N: npt.ArrayLike | None = None,
) -> float:
    """The threshold that a rule asks for on these rows.

    Thresholds lie midway between two neighbouring distinct probabilities (the lowest one midway to 0), so rows with
    equal probabilities are always on the same side.

    Args:
        probability_N: calibrated probability of the positive label, 0 to 1.
        positive_N: whether the row has the positive label; "cost" and "top_share" do not look at it.
        rule: one of `RULES`.
            best_f1: the largest F1; of equal ones the threshold nearest to 0.5, then the lower. No value.
            precision: the lowest threshold, so the largest recall, whose precision is at least `value`, 0 to 1.
            recall: the highest threshold whose recall is at least `value`, 0 to 1.
            cost: least expected cost, c_FP / (c_FP + c_FN), where `value` is c_FP / c_FN, above 0: 0.1 where a missed
                positive costs ten false alarms. It looks at no rows, and is right for calibrated probabilities only.
            top_share: the lowest threshold that flags at most the share `value` of the rows, above 0 to 1. Where a
                tie stands across that share all its rows are left out, so fewer rows may be flagged.
        value: what the rule asks for; None for "best_f1".
        weight_N: how many rows each stands for, 0 or above, as where labels have other shares in use; None: one each.

    Returns:
        Threshold, 0 to 1; a row is positive where its probability is at least that.

    Raises:
        ConfigError: an unknown rule, or a value that does not suit it.
        DataError: no rows, a probability outside 0 to 1 (or NaN), rows of one label only (where labels count), a
            precision that no threshold reaches, or a share that is smaller than the rows tied at the top.
    """
    _check_rule(rule, value)
    if rule == "cost":
        assert value is not None
        return value / (1 + value)
    probability_N, positive_N, rows_N = _checked(probability_N, positive_N, weight_N, needs_both=rule != "top_share")
    distinct_J, where_N = np.unique(probability_N, return_inverse=True)
    cuts = Cuts.of(distinct_J, np.bincount(where_N, weights=rows_N), np.bincount(where_N, weights=rows_N * positive_N))
    threshold = cuts.choose(rule, value)
    if threshold is not None:
        return threshold
    if rule == "precision":
        best = float((cuts.num_found_J / cuts.num_flagged_J).max())
        raise DataError(
            f"threshold: no threshold has a precision of {value}: the best on {len(probability_N)} calibration rows is "
            f"{best:.4f}; ask for less, or give data.calibration more rows"
        )
    raise DataError(
        f"threshold: the largest probability alone is that of a share of {cuts.share_at_top:.4g} of the calibration "
        f"rows, more than {value}; ask for a larger share (ties are not broken)"
    )


def threshold_interval(
    probability_N: npt.ArrayLike,
    positive_N: npt.ArrayLike,
    groups_N: npt.ArrayLike | None,
    *,
    rule: str,
    value: float | None,
    num_bootstrap: int,
    seed: int,
    weight_N: npt.ArrayLike | None = None,
) -> tuple[float, float]:
    """95 % percentile interval of a chosen threshold, from resampled groups.

    It says how much the threshold depends on which rows calibration happened to have. A resample on which the rule
    asks for the impossible (a precision that is not reached, a share smaller than a tie) counts as threshold 1.

    Args:
        probability_N, positive_N, rule, value, weight_N: as `choose_threshold`.
        groups_N: number or name of each row's group; None makes each row a group of its own.
        num_bootstrap: resamples, 1 or more.
        seed: seed of the resamples.

    Returns:
        Low and high end, 0 to 1; both the threshold itself for "cost", which depends on no rows.

    Raises:
        ConfigError, DataError: as `choose_threshold`; or fewer than two groups.
    """
    threshold = choose_threshold(probability_N, positive_N, rule=rule, value=value, weight_N=weight_N)
    if rule == "cost":
        return threshold, threshold
    assert num_bootstrap >= 1
    probability_N, positive_N, rows_N = _checked(probability_N, positive_N, weight_N, needs_both=rule != "top_share")
    given_N = np.arange(len(probability_N)) if groups_N is None else np.asarray(groups_N)
    if given_N.shape != probability_N.shape:
        raise DataError(f"threshold: found {given_N.shape} groups for {len(probability_N)} rows, expected one a row")
    group_N = np.unique(given_N, return_inverse=True)[1]
    num_groups = int(group_N.max()) + 1
    if num_groups < 2:
        raise DataError(
            f"threshold: all {len(group_N)} calibration rows are of one group, so nothing can be resampled; expected "
            "at least two groups; set data.group_column to null where rows are independent"
        )
    distinct_J, where_N = np.unique(probability_N, return_inverse=True)
    generator = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < num_bootstrap:
        times_G = np.bincount(generator.integers(0, num_groups, size=num_groups), minlength=num_groups)
        times_N = times_G[group_N] * rows_N
        num_rows_J = np.bincount(where_N, weights=times_N)
        num_positive_J = np.bincount(where_N, weights=times_N * positive_N)
        # Of one label at worst every second resample: of two groups or more, each label in one of them at least.
        if rule != "top_share" and not 0 < num_positive_J.sum() < num_rows_J.sum():
            continue
        threshold_or_none = Cuts.of(distinct_J, num_rows_J, num_positive_J).choose(rule, value)
        found.append(1.0 if threshold_or_none is None else threshold_or_none)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def map_threshold(
    threshold: float, calibrator: Calibrator, *, to: Literal["calibrated", "raw"] = "calibrated"
) -> float:
    """The threshold that decides the same after calibration as the given one before, or the other way round.

    p >= t exactly where sigma(a logit p + b) >= sigma(a logit t + b), with a > 0: a = 1 / T, b = 0 for a temperature,
    slope and intercept for Platt, and a prior shift added to b. A temperature keeps 0.5, an intercept moves it.

    Args:
        threshold: on the probability of the positive label of two, 0 to 1.
        calibrator: of two labels; method "none", "temperature" or "platt". The others have no such map: isotonic is
            flat in places, an average has many slopes, and vector scaling is for more labels.
        to: "calibrated" takes a raw threshold, "raw" a calibrated one.

    Raises:
        ConfigError: another method, a prior shift of more labels, or a threshold outside 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: found {threshold!r}, expected a number from 0 to 1")
    if calibrator.method not in LINEAR_METHODS:
        raise ConfigError(
            f"threshold: the calibrator is {calibrator.method!r}, expected one of {', '.join(LINEAR_METHODS)}; choose "
            "the threshold on calibrated probabilities instead of mapping it"
        )
    slope, intercept = slope_and_intercept(calibrator.method, calibrator.parameters)
    if calibrator.log_prior_shift is not None:
        if len(calibrator.log_prior_shift) != 2:
            raise ConfigError(
                f"threshold: the calibrator is of {len(calibrator.log_prior_shift)} labels, expected 2; one number "
                "cannot choose among more"
            )
        intercept += calibrator.log_prior_shift[1] - calibrator.log_prior_shift[0]
    odds = float(logit(threshold))
    return float(expit(slope * odds + intercept if to == "calibrated" else (odds - intercept) / slope))


def _check_rule(rule: str, value: float | None) -> None:
    if rule not in RULES:
        raise ConfigError(f"threshold rule: found {rule!r}, expected one of {', '.join(RULES)}")
    if rule == "best_f1":
        if value is not None:
            raise ConfigError(f"threshold rule best_f1: found the value {value!r}, expected none")
        return
    if value is None or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"threshold rule {rule}: found the value {value!r}, expected a number above 0")
    if rule != "cost" and value > 1:
        raise ConfigError(f"threshold rule {rule}: found the value {value!r}, expected a share, at most 1")


def _checked(
    probability_N: npt.ArrayLike, positive_N: npt.ArrayLike, weight_N: npt.ArrayLike | None, *, needs_both: bool
) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray]:
    """Probabilities, labels, and how many rows each row stands for."""
    probability_N = np.asarray(probability_N, dtype=np.float64)
    positive_N = np.asarray(positive_N, dtype=bool)
    if probability_N.ndim != 1 or probability_N.shape != positive_N.shape or not len(probability_N):
        raise DataError(
            f"threshold: found shapes {probability_N.shape} and {positive_N.shape}, expected one probability and one "
            "label for each of at least two rows"
        )
    if not ((probability_N >= 0) & (probability_N <= 1)).all():
        raise DataError("threshold: found a probability that is NaN or outside 0 to 1")
    rows_N = np.ones(len(probability_N)) if weight_N is None else np.asarray(weight_N, dtype=np.float64)
    assert rows_N.shape == probability_N.shape
    assert (rows_N >= 0).all()
    counted_N = positive_N[rows_N > 0]
    if needs_both and (counted_N.all() or not counted_N.any()):
        raise DataError(
            f"threshold: all {len(counted_N)} calibration rows have the same label, expected both; give "
            "data.calibration rows of each"
        )
    return probability_N, positive_N, rows_N


def decide(probabilities_NK: npt.ArrayLike, threshold: float | None) -> IntArray:
    """The label that is predicted.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        threshold: operating threshold of the last label where there are two. One number cannot choose among more
            labels: there, and where it is None, the label with the largest probability is taken, of equal ones the
            first.

    Returns:
        Number of the predicted label. With a threshold the last label wins a tie (p >= threshold).
    """
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    assert probabilities_NK.ndim == 2, f"expected rows by labels, found shape {probabilities_NK.shape}"
    if threshold is not None and probabilities_NK.shape[1] == 2:
        return np.asarray(probabilities_NK[:, 1] >= threshold, dtype=np.int64)
    return np.asarray(probabilities_NK.argmax(axis=1), dtype=np.int64)


def near_threshold(probabilities_NK: npt.ArrayLike, threshold: float | None, margin: float) -> npt.NDArray[np.bool_]:
    """Whether a little more or less probability would have decided otherwise.

    Args:
        probabilities_NK: probability of each label; rows sum to 1.
        threshold: as `decide` takes it; None of two labels is 0.5.
        margin: of two labels the distance of the last one's probability from the threshold, of more labels that of the
            two largest probabilities from each other; 0 to 1, and rows at just that distance are near.

    Returns:
        Shape (N,).
    """
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    if probabilities_NK.shape[1] == 2:
        distance_N = np.abs(probabilities_NK[:, 1] - (0.5 if threshold is None else threshold))
    else:
        second_N, first_N = np.sort(probabilities_NK, axis=1)[:, -2:].T
        distance_N = first_N - second_N
    return np.asarray(distance_N <= margin)
