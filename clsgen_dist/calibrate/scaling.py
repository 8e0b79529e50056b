"""Temperature: one number that makes head logits as sure as they deserve to be.

Shape legend: N rows, K labels.

A calibrator is fitted on rows that neither trained the model nor chose its step, and is applied to logits. It never
changes which label is the largest, and for two labels it leaves the AUROC as it is: it mends sharpness, not ranking.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from clsgen_dist.errors import BundleError, ConfigError, DataError, NumericsError
from clsgen_dist.records import UNLABELLED

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: The maps from logits to probabilities that a calibrator may be.
METHODS = ("temperature", "none")

#: Labelled rows below which a temperature is noise: at 25 it already costs a good model about 0.04 nats.
MIN_LABELLED_ROWS = 20


@dataclass(frozen=True)
class Calibrator:
    """The map from head logits to calibrated probabilities.

    Attributes:
        method: "temperature" or "none".
        temperature: what logits are divided by; above 1 makes probabilities less extreme. 1 where method is "none".
        num_rows: labelled rows that it was fitted on; 0 where nothing was fitted.
    """

    method: str
    temperature: float
    num_rows: int

    def apply(self, logits_NK: npt.ArrayLike) -> FloatArray:
        """Probabilities of K labels.

        Args:
            logits_NK: head logits, any real dtype, nats.

        Returns:
            softmax(logits / temperature), float64; each row sums to 1 within 1e-12.

        Raises:
            NumericsError: a logit is not finite.
        """
        logits_NK = np.asarray(logits_NK, dtype=np.float64)
        assert logits_NK.ndim == 2, f"logits must be rows by labels, found shape {logits_NK.shape}"
        if not np.isfinite(logits_NK).all():
            bad = int((~np.isfinite(logits_NK).all(axis=1)).sum())
            raise NumericsError(
                f"{bad} of {len(logits_NK)} rows have a logit that is NaN or infinite; see the training log"
            )
        with np.errstate(over="ignore"):  # a quotient of minus infinity is a probability of 0, as it should be
            weights_NK = np.exp(_shift(logits_NK) / self.temperature)
        probabilities_NK: FloatArray = weights_NK / weights_NK.sum(axis=1, keepdims=True)
        return probabilities_NK

    def to_json(self) -> dict[str, Any]:
        """What a bundle keeps of the calibrator."""
        return {"method": self.method, "temperature": self.temperature, "num_rows": self.num_rows}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibrator:
        """Read what `to_json` wrote.

        Raises:
            BundleError: a key is missing or unknown, a type is wrong, or the temperature is not a positive number.
        """
        where = "calibrator of the bundle"
        if not isinstance(content, Mapping) or set(content) != {"method", "temperature", "num_rows"}:
            found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise BundleError(
                f"{where}: found {found}, expected the keys method, temperature, num_rows; write it again"
            )
        method, temperature, num_rows = content["method"], content["temperature"], content["num_rows"]
        if method not in METHODS:
            raise BundleError(f"{where}: method is {method!r}, expected one of {', '.join(METHODS)}")
        # bool is an int in Python, but true is no temperature.
        if isinstance(temperature, bool) or not isinstance(temperature, int | float):
            raise BundleError(f"{where}: temperature is {temperature!r}, expected a number")
        if not math.isfinite(temperature) or temperature <= 0:
            raise BundleError(f"{where}: temperature is {temperature!r}, expected a finite number above 0")
        if method == "none" and temperature != 1:
            raise BundleError(f"{where}: temperature is {temperature!r}, expected 1 where the method is none")
        if isinstance(num_rows, bool) or not isinstance(num_rows, int) or num_rows < 0:
            raise BundleError(f"{where}: num_rows is {num_rows!r}, expected a count")
        return cls(method=method, temperature=float(temperature), num_rows=num_rows)


#: Plain softmax.
IDENTITY = Calibrator(method="none", temperature=1.0, num_rows=0)


def fit_calibrator(
    logits_NK: npt.ArrayLike, labels_N: npt.ArrayLike, *, method: str, max_temperature: float
) -> tuple[Calibrator, list[str]]:
    """Fit a calibrator on rows that the model has not learned from.

    The mean negative log-likelihood is convex in beta = 1 / temperature, so its slope at the two bounds says whether
    the optimum lies between them, and the search over log beta cannot stop at a wrong minimum.

    Args:
        logits_NK: head logits, any real dtype, nats.
        labels_N: number of the label, 0 to K - 1; -1 for rows without one, which are ignored.
        method: "temperature" or "none"; "none" needs no labels.
        max_temperature: bound of the temperature, above 1; the lower bound is its inverse.

    Returns:
        The calibrator, and warnings in plain English: empty unless a bound was met or the logits say nothing.

    Raises:
        ConfigError: an unknown method or a bound that is not above 1.
        DataError: NaN or infinite logits, a label out of range, fewer than 20 labelled rows, or one label only.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; arXiv 2410.06707 for verbalized probabilities.
    """
    if method not in METHODS:
        raise ConfigError(f"calibrate.method: found {method!r}, expected one of {', '.join(METHODS)}")
    if not math.isfinite(max_temperature) or max_temperature <= 1:
        raise ConfigError(f"calibrate.max_temperature: found {max_temperature!r}, expected a finite number above 1")
    every_logit_NK, every_label_N = _checked(logits_NK, labels_N)
    if method == "none":
        return IDENTITY, []
    known_N = every_label_N != UNLABELLED
    own_label_N = every_label_N[known_N]
    _check_enough(own_label_N)
    temperature, warnings = _best_temperature(_shift(every_logit_NK[known_N]), own_label_N, max_temperature)
    return Calibrator(method="temperature", temperature=temperature, num_rows=len(own_label_N)), warnings


def _best_temperature(logits_NK: FloatArray, labels_N: IntArray, max_temperature: float) -> tuple[float, list[str]]:
    num_rows = len(labels_N)
    if not logits_NK.any():
        return 1.0, [
            f"all logits of each of the {num_rows} calibration rows are equal: no temperature changes anything"
        ]
    if _slope(1 / max_temperature, logits_NK, labels_N) >= 0:
        return float(max_temperature), [
            f"the temperature stopped at its upper bound, {max_temperature:g}: on the {num_rows} calibration rows the "
            "logits carry no information about the label, or point away from it (are the labels in the right order?)"
        ]
    if _slope(max_temperature, logits_NK, labels_N) <= 0:
        return 1 / max_temperature, [
            f"the temperature stopped at its lower bound, {1 / max_temperature:g}: the model separates the {num_rows} "
            "calibration rows without an error, so they cannot say how sure it should be; use more rows, and check "
            "that none of them was trained on"
        ]
    found = minimize_scalar(
        lambda log_beta: _mean_nll(math.exp(log_beta), logits_NK, labels_N),
        bounds=(-math.log(max_temperature), math.log(max_temperature)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return math.exp(-float(found.x)), []


def _mean_nll(beta: float, logits_NK: FloatArray, labels_N: IntArray) -> float:
    """Mean negative log-likelihood at temperature 1 / beta, nats a row."""
    scaled_NK = beta * logits_NK
    return float(np.mean(logsumexp(scaled_NK, axis=1) - scaled_NK[np.arange(len(labels_N)), labels_N]))


def _slope(beta: float, logits_NK: FloatArray, labels_N: IntArray) -> float:
    """Derivative of the mean negative log-likelihood by beta: expected logit less the label's logit."""
    weights_NK = np.exp(beta * logits_NK)
    expected_N = (weights_NK * logits_NK).sum(axis=1) / weights_NK.sum(axis=1)
    return float(np.mean(expected_N - logits_NK[np.arange(len(labels_N)), labels_N]))


def _shift(logits_NK: FloatArray) -> FloatArray:
    """Logits less the largest of their row: the same softmax, and no exponential can overflow."""
    # Differences of huge logits may be infinite; the smallest float stands in for them and its exponential is 0.
    with np.errstate(over="ignore"):
        shifted_NK: FloatArray = logits_NK - logits_NK.max(axis=1, keepdims=True)
    return np.maximum(shifted_NK, -1e300, dtype=np.float64)


def _checked(logits_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    logits_NK, given_N = np.asarray(logits_NK, dtype=np.float64), np.asarray(labels_N)
    if logits_NK.ndim != 2 or logits_NK.shape[1] < 2:
        raise DataError(f"calibration logits: found shape {logits_NK.shape}, expected rows by two or more labels")
    if given_N.shape != logits_NK.shape[:1]:
        raise DataError(f"calibration: found {given_N.shape} labels for {len(logits_NK)} rows, expected one a row")
    bad = int((~np.isfinite(logits_NK).all(axis=1)).sum())
    if bad:
        raise DataError(f"calibration: {bad} of {len(logits_NK)} rows have a logit that is NaN or infinite")
    if given_N.size and given_N.dtype.kind not in "iu":
        raise DataError(f"calibration labels: found numbers of type {given_N.dtype}, expected integers")
    labels_N = given_N.astype(np.int64)
    outside_N = (labels_N < UNLABELLED) | (labels_N >= logits_NK.shape[1])
    if outside_N.any():
        raise DataError(
            f"calibration labels: found {int(labels_N[outside_N][0])}, expected 0 to {logits_NK.shape[1] - 1}, "
            f"or {UNLABELLED} for a row without a label"
        )
    return logits_NK, labels_N


def _check_enough(labels_N: IntArray) -> None:
    if len(labels_N) < MIN_LABELLED_ROWS:
        raise DataError(
            f"calibration: found {len(labels_N)} labelled rows, expected at least {MIN_LABELLED_ROWS}; give "
            "data.calibration more rows, or set calibrate.method to none"
        )
    if len(np.unique(labels_N)) < 2:
        raise DataError(
            f"calibration: all {len(labels_N)} labelled rows have label number {int(labels_N[0])}, expected at least "
            "two labels; give data.calibration rows of each, or set calibrate.method to none"
        )
