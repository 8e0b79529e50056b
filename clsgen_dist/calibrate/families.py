"""The maps that a calibrator may be: what their numbers are called, and how they act on logits.

Shape legend: N rows, K labels, M points of a map, or maps of an average.

    none         softmax(z)
    temperature  softmax(z / temperature)
    vector       softmax(scale * centred z + bias), K > 2; centred: less the mean of the row
    platt        sigmoid(slope * d + intercept), K = 2, where d = z_1 - z_0 is the log-odds
    beta         sigmoid(a * log p - b * log(1 - p) + c), K = 2, where p = sigmoid(d)
    isotonic     probability of d, linear between M points and constant outside, K = 2
    average      sum of M weights times sigmoid(slope * d + intercept), K = 2

Every map for two labels rises with d, so that it never turns the order of two rows around.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit, logsumexp

from clsgen_dist.calibrate.simplex import shifted

FloatArray = npt.NDArray[np.float64]
Parameters = Mapping[str, tuple[float, ...]]

#: Names of the numbers of each map.
NAMES: dict[str, tuple[str, ...]] = {
    "none": (),
    "temperature": ("temperature",),
    "platt": ("slope", "intercept"),
    "vector": ("scale", "bias"),
    "beta": ("a", "b", "c"),
    "isotonic": ("logit", "probability"),
    "average": ("weight", "slope", "intercept"),
}

#: The maps, by name.
METHODS = tuple(NAMES)

#: Maps of the log-odds.
TWO_LABELS_ONLY = ("platt", "beta", "isotonic", "average")

#: Maps that are one slope and one intercept of the log-odds of two labels.
LINEAR_METHODS = ("none", "temperature", "platt")

#: Largest log-odds that is told from infinity; sums of a few stay finite.
HUGE = 1e300

#: Rows of an average at once: a hundred maps of each.
BLOCK_ROWS = 10_000

#: Distance of a row's logits from each other beyond which rounding spoils a fit of more than a temperature.
MOST_EXTREME = 1e6


def scores(method: str, parameters: Parameters, logits_NK: FloatArray) -> FloatArray:
    """Logarithms of the map's probabilities, up to one constant a row.

    Args:
        method: one of `METHODS`.
        parameters: its numbers, without a fault.
        logits_NK: finite logits; K suits the method.
    """
    # A product that overflows to minus infinity is a probability of 0, as it should be.
    with np.errstate(over="ignore"):
        if method == "none":
            return shifted(logits_NK)
        if method == "temperature":
            return np.asarray(shifted(logits_NK) / parameters["temperature"][0], dtype=np.float64)
        if method == "vector":
            scaled_NK = np.array(parameters["scale"]) * centred(logits_NK) + np.array(parameters["bias"])
            return np.asarray(np.clip(scaled_NK, -HUGE, HUGE), dtype=np.float64)
        d_N = log_odds(logits_NK)
        if method == "isotonic":
            p_N = np.interp(d_N, parameters["logit"], parameters["probability"])
            return np.stack([np.log1p(-p_N), np.log(p_N)], axis=1)
        if method == "average":
            blocks = [_average(parameters, d_N[at : at + BLOCK_ROWS]) for at in range(0, len(d_N), BLOCK_ROWS)]
            return np.concatenate([np.empty((0, 2)), *blocks])
        design_NP = np.stack([d_N] if method == "platt" else beta_features(d_N), axis=1)
        *slopes, intercept = (parameters[name][0] for name in NAMES[method])
        odds_N = np.clip(design_NP @ np.array(slopes) + intercept, -HUGE, HUGE)
    return np.stack([np.zeros_like(odds_N), odds_N], axis=1)


def _average(parameters: Parameters, d_N: FloatArray) -> FloatArray:
    weight_M, slope_M, intercept_M = (np.array(parameters[name]) for name in NAMES["average"])
    odds_NM = np.clip(d_N[:, None] * slope_M + intercept_M, -HUGE, HUGE)
    # Sums of logarithms, so that the probability of the unlikely label is exact however small it is.
    both = [logsumexp(np.log(weight_M) + log_expit(sign * odds_NM), axis=1) for sign in (-1, 1)]
    return np.stack(both, axis=1)


def log_odds(logits_NK: FloatArray) -> FloatArray:
    """Log-odds of the second of two labels."""
    assert logits_NK.shape[1] == 2
    with np.errstate(over="ignore"):
        return np.clip(logits_NK[:, 1] - logits_NK[:, 0], -HUGE, HUGE)


def beta_features(d_N: FloatArray) -> list[FloatArray]:
    """The logarithms of p and of 1 / (1 - p), p = sigmoid(d); exact where p rounds to 0 or 1."""
    return [-np.logaddexp(0.0, -d_N), np.logaddexp(0.0, d_N)]


def centred(logits_NK: FloatArray) -> FloatArray:
    """Logits less the mean of their row, which fixes the constant that a softmax does not know."""
    below_NK = shifted(logits_NK)
    centred_NK: FloatArray = below_NK - below_NK.mean(axis=1, keepdims=True)
    return centred_NK


def slope_and_intercept(method: str, parameters: Parameters) -> tuple[float, float]:
    """What a map of `LINEAR_METHODS` does to the log-odds."""
    assert method in LINEAR_METHODS
    if method == "platt":
        return parameters["slope"][0], parameters["intercept"][0]
    return (1 / parameters["temperature"][0] if method == "temperature" else 1.0), 0.0


def num_parameters(method: str, parameters: Parameters) -> int:
    """Numbers that were fitted.

    Of an isotonic map, its distinct probabilities: the points between follow. Of an average, slope and intercept: its
    many maps only say how sure either is.
    """
    if method == "average":
        return 2
    if method == "isotonic":
        return len(set(parameters["probability"]))
    return sum(map(len, parameters.values()))


def num_labels(method: str, parameters: Parameters) -> int | None:
    """Labels that the map is for; None for any number of them."""
    if method == "vector":
        return len(parameters["scale"])
    return 2 if method in TWO_LABELS_ONLY else None


def fault(method: object, parameters: Parameters) -> str | None:
    """Why these numbers are no map of this method, or None where they are."""
    if not isinstance(method, str) or method not in NAMES:
        return f"method is {method!r}, expected one of {', '.join(METHODS)}"
    if set(parameters) != set(NAMES[method]):
        found, expected = ", ".join(sorted(map(str, parameters))), ", ".join(NAMES[method])
        return f"parameters of {method} are {found or 'none'}, expected {expected or 'none'}"
    if not all(math.isfinite(value) for values in parameters.values() for value in values):
        return f"parameters of {method} hold a number that is NaN or infinite"
    lengths = {name: len(parameters[name]) for name in NAMES[method]}
    if method in ("vector", "isotonic", "average"):
        least = 3 if method == "vector" else 1
        if len(set(lengths.values())) != 1 or min(lengths.values()) < least:
            return f"parameters of {method} have lengths {lengths}, expected the same, at least {least}"
    elif set(lengths.values()) - {1}:
        return f"parameters of {method} have lengths {lengths}, expected 1 each"
    return _fault_of_numbers(method, parameters)


def _fault_of_numbers(method: str, parameters: Parameters) -> str | None:
    if method in ("temperature", "platt"):
        name = NAMES[method][0]
        if parameters[name][0] <= 0:
            return f"{name} is {parameters[name][0]!r}, expected a finite number above 0"
    if method == "beta":
        a, b = parameters["a"][0], parameters["b"][0]
        if a < 0 or b < 0 or a + b == 0:
            return f"a and b are {a!r} and {b!r}, expected neither below 0, and one above it"
    if method == "average":
        if min(parameters["weight"]) <= 0 or abs(sum(parameters["weight"]) - 1) > 1e-9:
            return "weight of average is not a list of numbers above 0 that sum to 1"
        if min(parameters["slope"]) <= 0:
            return f"slope is {min(parameters['slope'])!r}, expected finite numbers above 0"
    if method == "isotonic":
        if (np.diff(parameters["logit"]) <= 0).any():
            return "logit of isotonic is not a list of rising numbers"
        probability = parameters["probability"]
        if (np.diff(probability) < 0).any() or not 0 < probability[0] <= probability[-1] < 1:
            return "probability of isotonic is not a list of numbers between 0 and 1 that never fall"
    return None
