"""Maps of the log-odds of two labels: Platt, beta, isotonic.

Shape legend: N rows, P parameters.

They mend a bias as well as sharpness, which a temperature cannot. None of them turns the order of two rows around.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from clsgen_dist.calibrate.families import MOST_EXTREME, beta_features, log_odds
from clsgen_dist.calibrate.newton import minimise
from clsgen_dist.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Fit = tuple[dict[str, tuple[float, ...]], list[str]]


def platt_targets(labels_N: IntArray) -> FloatArray:
    """What a map of the log-odds is fitted to in place of 0 and 1: (n1 + 1) / (n1 + 2) and 1 / (n0 + 2).

    They stand for one imagined row of each label, and keep the optimum finite where the rows are separated.

    Args:
        labels_N: 0 or 1, of n0 and n1 rows.

    Source: Platt 1999, section 2.2.
    """
    positive_N = labels_N == 1
    num_positive = int(positive_N.sum())
    num_negative = len(labels_N) - num_positive
    target_N: FloatArray = np.where(positive_N, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    return target_N


def fit_platt(logits_N2: FloatArray, labels_N: IntArray, max_temperature: float) -> Fit:
    """Slope and intercept of the log-odds, to `platt_targets`.

    The slope lies between 1 / max_temperature and max_temperature.

    Returns:
        The parameters of the map, and warnings.

    Raises:
        DataError: log-odds beyond 1e6.

    Source: Platt 1999, section 2.2.
    """
    d_N, warnings = _examined(log_odds(logits_N2), labels_N)
    least = 1 / max_temperature
    if not np.ptp(d_N):
        # One value alone cannot tell slope from intercept.
        warnings.append(f"all log-odds of the {len(d_N)} calibration rows are equal: only their share was fitted")
        slope, intercept = _logistic([d_N], labels_N, (1.0,), (1.0,))
    else:
        slope, intercept = _logistic([d_N], labels_N, (least,), (max_temperature,))
        if slope <= least:
            warnings.append(f"the slope stopped at its lower bound, {least:g}: {_says_nothing(len(d_N))}")
        if slope >= max_temperature:
            warnings.append(f"the slope stopped at its upper bound, {max_temperature:g}: {_too_close(len(d_N))}")
    return {"slope": (slope,), "intercept": (intercept,)}, warnings


def fit_beta(logits_N2: FloatArray, labels_N: IntArray, max_temperature: float) -> Fit:
    """The beta map, to `platt_targets`, with 0 <= a, b <= max_temperature.

    Where both come out as 0, which would tie all rows, they are fitted again from 1 / max_temperature upwards.

    Returns:
        The parameters of the map, and warnings.

    Raises:
        DataError: log-odds beyond 1e6.

    Source: Kull, Silva Filho and Flach 2017, Beta calibration.
    """
    d_N, warnings = _examined(log_odds(logits_N2), labels_N)
    features, upper = beta_features(d_N), (max_temperature, max_temperature)
    a, b, c = _logistic(features, labels_N, (0.0, 0.0), upper)
    least = 1 / max_temperature
    if a == 0 and b == 0:
        a, b, c = _logistic(features, labels_N, (least, least), upper)
        warnings.append(f"a and b stopped at their lower bound, {least:g}: {_says_nothing(len(d_N))}")
    if max(a, b) >= max_temperature:
        warnings.append(f"a or b stopped at its upper bound, {max_temperature:g}: {_too_close(len(d_N))}")
    return {"a": (a,), "b": (b,), "c": (c,)}, warnings


def fit_isotonic(logits_N2: FloatArray, labels_N: IntArray, max_temperature: float) -> Fit:
    """The rising map of the least squared error, without 0 and 1: it lies between 1 / (n + 2) and 1 - 1 / (n + 2).

    Args:
        logits_N2: logits of two labels.
        labels_N: 0 or 1.
        max_temperature: not used; all fits take the same arguments.

    Returns:
        The parameters of the map, and warnings.
    """
    from sklearn.isotonic import IsotonicRegression  # takes a second, which whoever opens a bundle would wait for

    d_N = log_odds(logits_N2)
    warnings = _separation(d_N, labels_N)
    least = 1 / (len(d_N) + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(d_N, labels_N)
    probability = fitted.y_thresholds_
    if len(np.unique(probability)) == 1:
        warnings.append(f"the isotonic map is flat: {_says_nothing(len(d_N))}")
    return {"logit": tuple(fitted.X_thresholds_.tolist()), "probability": tuple(probability.tolist())}, warnings


def _logistic(
    features: list[FloatArray], labels_N: IntArray, lower: tuple[float, ...], upper: tuple[float, ...]
) -> list[float]:
    """Slopes, bounded, and intercept of a logistic regression on `platt_targets`."""
    # Features without their median: where they hardly vary, they would be told from the intercept by rounding alone.
    middle_P = [float(np.median(feature_N)) for feature_N in features]
    design_NP = np.stack(
        [*(feature_N - middle for feature_N, middle in zip(features, middle_P, strict=True)), np.ones(len(labels_N))],
        axis=1,
    )
    target_N = platt_targets(labels_N)

    def objective(at_P: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        odds_N = design_NP @ at_P
        p_N = expit(odds_N)
        value = float(np.mean(np.logaddexp(0.0, odds_N) - target_N * odds_N))
        gradient_P = design_NP.T @ (p_N - target_N) / len(p_N)
        hessian_PP = (design_NP * (p_N * expit(-odds_N))[:, None]).T @ design_NP / len(p_N)
        return value, gradient_P, hessian_PP

    # From the flattest map, where no row is saturated and the curvature is honest.
    num_positive = int((labels_N == 1).sum())
    start_P = np.array([*lower, np.log((num_positive + 1) / (len(labels_N) - num_positive + 1))])
    found_P = minimise(objective, start_P, np.array([*lower, -np.inf]), np.array([*upper, np.inf]))
    *slopes, intercept = (float(value) for value in found_P)
    return [*slopes, intercept - sum(slope * middle for slope, middle in zip(slopes, middle_P, strict=True))]


def _examined(d_N: FloatArray, labels_N: IntArray) -> tuple[FloatArray, list[str]]:
    most = float(np.abs(d_N).max())
    if most > MOST_EXTREME:
        raise DataError(
            f"calibration: found log-odds of {most:g}, expected none beyond {MOST_EXTREME:g}; mend the logits, or set "
            "calibrate.method to temperature"
        )
    return d_N, _separation(d_N, labels_N)


def _separation(d_N: FloatArray, labels_N: IntArray) -> list[str]:
    if d_N[labels_N == 1].min() <= d_N[labels_N == 0].max():
        return []
    return [
        f"the model separates the {len(d_N)} calibration rows without an error, so they cannot say how sure it should "
        "be; use more rows, and check that none of them was trained on"
    ]


def _says_nothing(num_rows: int) -> str:
    return (
        f"on the {num_rows} calibration rows the logits carry no information about the label, or point away from it "
        "(are the labels in the right order?)"
    )


def _too_close(num_rows: int) -> str:
    return f"the log-odds of the {num_rows} calibration rows hardly differ from each other"
