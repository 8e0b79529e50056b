"""Calibrators: maps from logits to probabilities that mean what they say.

Shape legend: N rows, K labels.

A calibrator is fitted on rows that neither trained the model nor chose its step, and is applied to logits: those of a
head, or the logarithms of probabilities that were said in words. What the maps are is in `families.py`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate import families
from clsgen_dist.calibrate.families import METHODS
from clsgen_dist.calibrate.log_odds import fit_beta, fit_isotonic, fit_platt
from clsgen_dist.calibrate.simplex import softmax
from clsgen_dist.calibrate.temperature import fit_temperature
from clsgen_dist.calibrate.vector import fit_vector
from clsgen_dist.errors import BundleError, ConfigError, DataError, NumericsError
from clsgen_dist.records import UNLABELLED

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Labelled rows below which a calibrator is noise: at 25 a temperature already costs a good model about 0.04 nats.
MIN_LABELLED_ROWS = 20

#: Labelled rows from which the flexible maps, beta and isotonic, are worth trying.
MIN_FLEXIBLE_ROWS = 1000

#: Methods that are fitted alone; an average is what selection makes of several.
FITTED_METHODS = tuple(method for method in METHODS if method != "average")

#: Methods that need `MIN_FLEXIBLE_ROWS`.
FLEXIBLE_METHODS = ("beta", "isotonic")


@dataclass(frozen=True)
class Calibrator:
    """A map from logits to calibrated probabilities.

    Attributes:
        method: one of `METHODS`.
        parameters: numbers of the map by name, as `families.py` lists them.
        num_rows: labelled rows that it was fitted on; 0 where nothing was fitted.
        log_prior_shift: what is added to the log probability of each label before rows are normalised again, nats:
            the logarithm of its share where the model is used, over its share among the calibration rows. None
            where the two are taken to be the same.
    """

    method: str
    parameters: Mapping[str, tuple[float, ...]]
    num_rows: int
    log_prior_shift: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        fault = families.fault(self.method, self.parameters)
        assert fault is None, fault

    @property
    def is_identity(self) -> bool:
        """Whether probabilities stay those of the plain softmax."""
        return self.method == "none" and self.log_prior_shift is None

    @property
    def temperature(self) -> float | None:
        """What logits are divided by; 1 for the method none, None for maps that are more than a temperature."""
        if self.method == "temperature":
            return self.parameters["temperature"][0]
        return 1.0 if self.method == "none" else None

    @property
    def num_parameters(self) -> int:
        """Numbers that were fitted: 0, 1, 2 (Platt, average), twice the labels, 3 (beta), or the steps (isotonic)."""
        return families.num_parameters(self.method, self.parameters)

    @property
    def num_labels(self) -> int | None:
        """Labels that it can be applied to; None where any number will do."""
        own = families.num_labels(self.method, self.parameters)
        return own if self.log_prior_shift is None else len(self.log_prior_shift)

    def apply(self, logits_NK: npt.ArrayLike) -> FloatArray:
        """Probabilities of K labels.

        Args:
            logits_NK: logits of each label, any real dtype, nats.

        Returns:
            Probabilities, float64; each row sums to 1 within 1e-12.

        Raises:
            NumericsError: a logit is not finite.
            ConfigError: the calibrator was fitted on another number of labels.
        """
        logits_NK = np.asarray(logits_NK, dtype=np.float64)
        assert logits_NK.ndim == 2, f"logits must be rows by labels, found shape {logits_NK.shape}"
        if self.num_labels not in (None, logits_NK.shape[1]):
            raise ConfigError(
                f"calibrator ({self.method}): it is for {self.num_labels} labels, found logits of "
                f"{logits_NK.shape[1]}; fit it again on rows of this task"
            )
        bad = _num_not_finite(logits_NK)
        if bad:
            raise NumericsError(
                f"{bad} of {len(logits_NK)} rows have a logit that is NaN or infinite; see the training log"
            )
        scores_NK = families.scores(self.method, self.parameters, logits_NK)
        return softmax(scores_NK if self.log_prior_shift is None else scores_NK + np.array(self.log_prior_shift))

    def to_json(self) -> dict[str, Any]:
        """What a bundle keeps of the calibrator."""
        return {
            "method": self.method,
            "parameters": {name: list(values) for name, values in self.parameters.items()},
            "num_rows": self.num_rows,
            "log_prior_shift": None if self.log_prior_shift is None else list(self.log_prior_shift),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibrator:
        """Read what `to_json` wrote.

        Raises:
            BundleError: a key is missing or unknown, a type is wrong, or the numbers are no map of that method.
        """
        where, keys = "calibrator of the bundle", ("method", "parameters", "num_rows", "log_prior_shift")
        if not isinstance(content, Mapping) or set(content) != set(keys):
            found = sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
            raise BundleError(f"{where}: found {found}, expected the keys {', '.join(keys)}; calibrate again")
        given, num_rows, shift = content["parameters"], content["num_rows"], content["log_prior_shift"]
        if not isinstance(given, Mapping) or not all(_is_numbers(values) for values in given.values()):
            raise BundleError(f"{where}: parameters are not lists of finite numbers by name; calibrate again")
        parameters = {name: tuple(map(float, values)) for name, values in given.items()}
        fault = families.fault(content["method"], parameters)
        if fault is not None:
            raise BundleError(f"{where}: {fault}; calibrate again")
        # bool is an int in Python, but true is no count.
        if isinstance(num_rows, bool) or not isinstance(num_rows, int) or num_rows < 0:
            raise BundleError(f"{where}: num_rows is {num_rows!r}, expected a count")
        own = families.num_labels(content["method"], parameters)
        if shift is not None and (not _is_numbers(shift) or len(shift) < 2 or own not in (None, len(shift))):
            raise BundleError(
                f"{where}: log_prior_shift is {shift!r}, expected null or one finite number for each label"
            )
        shift = None if shift is None else tuple(map(float, shift))
        return cls(method=content["method"], parameters=parameters, num_rows=num_rows, log_prior_shift=shift)


#: Plain softmax.
IDENTITY = Calibrator(method="none", parameters={}, num_rows=0)


def candidate_methods(num_labels: int, num_rows: int) -> tuple[str, ...]:
    """The methods that are worth trying, those with the fewest parameters first.

    Args:
        num_labels: labels of the task.
        num_rows: labelled calibration rows.
    """
    if num_labels > 2:
        return ("none", "temperature", "vector")
    return ("none", "temperature", "platt", *(FLEXIBLE_METHODS if num_rows >= MIN_FLEXIBLE_ROWS else ()))


def fit_calibrator(
    logits_NK: npt.ArrayLike, labels_N: npt.ArrayLike, *, method: str, max_temperature: float
) -> tuple[Calibrator, list[str]]:
    """Fit a calibrator on rows that the model has not learned from.

    Args:
        logits_NK: logits of each label, any real dtype, nats.
        labels_N: number of the label, 0 to K - 1; -1 for rows without one, which are ignored.
        method: one of `FITTED_METHODS`; "none" needs no labels. Platt, beta and isotonic are for two labels, vector
            is for more.
        max_temperature: bound of the temperature, above 1; the lower bound is its inverse. Slopes and scales of the
            other maps are bounded by the same two numbers where nothing else bounds them.

    Returns:
        The calibrator, and warnings in plain English: empty unless a bound was met, the logits say nothing or too
        much, or the rows are few for the method.

    Raises:
        ConfigError: an unknown method, one that does not suit K labels, or a bound that is not above 1.
        DataError: NaN, infinite or (for Platt, beta and vector) enormous logits, a label out of range, fewer than 20
            labelled rows, or one label only.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2, for temperature and vector; Platt 1999; Kull et al. 2017
        for beta; Zadrozny and Elkan 2002 for isotonic; arXiv 2410.06707 for probabilities that were said in words.
    """
    if method not in FITTED_METHODS:
        raise ConfigError(f"calibrate.method: found {method!r}, expected one of {', '.join(FITTED_METHODS)}")
    if not math.isfinite(max_temperature) or max_temperature <= 1:
        raise ConfigError(f"calibrate.max_temperature: found {max_temperature!r}, expected a finite number above 1")
    every_logit_NK, every_label_N = _checked(logits_NK, labels_N)
    _check_suits(method, every_logit_NK.shape[1])
    if method == "none":
        return IDENTITY, []
    known_N = every_label_N != UNLABELLED
    known_logit_NK, known_label_N = every_logit_NK[known_N], every_label_N[known_N]
    _check_enough(known_label_N)
    fit = {
        "temperature": fit_temperature,
        "platt": fit_platt,
        "vector": fit_vector,
        "beta": fit_beta,
        "isotonic": fit_isotonic,
    }[method]
    parameters, warnings = fit(known_logit_NK, known_label_N, max_temperature)
    num_rows = len(known_label_N)
    if method in FLEXIBLE_METHODS and num_rows < MIN_FLEXIBLE_ROWS:
        warnings.append(
            f"{method} on {num_rows} rows follows their noise: it needs about {MIN_FLEXIBLE_ROWS}; use platt"
        )
    return Calibrator(method=method, parameters=parameters, num_rows=num_rows), warnings


def _checked(logits_NK: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    logits_NK, given_N = np.asarray(logits_NK, dtype=np.float64), np.asarray(labels_N)
    if logits_NK.ndim != 2 or logits_NK.shape[1] < 2:
        raise DataError(f"calibration logits: found shape {logits_NK.shape}, expected rows by two or more labels")
    if given_N.shape != logits_NK.shape[:1]:
        raise DataError(f"calibration: found {given_N.shape} labels for {len(logits_NK)} rows, expected one a row")
    bad = _num_not_finite(logits_NK)
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


def _num_not_finite(logits_NK: FloatArray) -> int:
    return int((~np.isfinite(logits_NK).all(axis=1)).sum())


def _check_suits(method: str, num_labels: int) -> None:
    if method in families.TWO_LABELS_ONLY and num_labels != 2:
        raise ConfigError(
            f"calibrate.method: {method} is for two labels, the task has {num_labels}; use temperature or vector"
        )
    if method == "vector" and num_labels == 2:
        raise ConfigError("calibrate.method: vector is for more than two labels, the task has 2; use platt")


def _check_enough(labels_N: IntArray) -> None:
    if len(labels_N) < MIN_LABELLED_ROWS:
        raise DataError(
            f"calibration: found {len(labels_N)} labelled rows, expected at least {MIN_LABELLED_ROWS}; give "
            "data.calibration more rows, or set calibrate.method to none"
        )
    if (labels_N == labels_N[0]).all():
        raise DataError(
            f"calibration: all {len(labels_N)} labelled rows have label number {labels_N[0]}, expected at least two "
            "labels; give data.calibration rows of each"
        )


def _is_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        for value in values
    )
