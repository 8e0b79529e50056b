"""The mean of many maps of the log-odds: what few rows can say of slope and intercept.

Shape legend: N rows, M maps, G slopes.

With 50 rows the differences between calibrators drown in the noise of the rows, and whoever picks one of them picks
the noise. So none is picked: before the rows are seen, the log-odds are right, or off by a slope, by an intercept or by
both, each with some probability; the rows turn that into a posterior, and a probability is the mean over it. That
mean is nearer to 1/2 than the one of any middle map, as it should be where little is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit, logsumexp, stdtr

from clsgen_dist.calibrate.families import HUGE, LINEAR_METHODS, log_odds
from clsgen_dist.calibrate.log_odds import platt_targets
from clsgen_dist.calibrate.scaling import Calibrator

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Prior probabilities of what is wrong about the log-odds: nothing (slope 1, intercept 0), the slope alone, the
#: intercept alone, both. A head that only has the base rate wrong is a case of its own.
NOTHING, SLOPE_ALONE, INTERCEPT_ALONE, BOTH = 0.24, 0.36, 0.22, 0.18

#: What is wrong is Student-t, the logarithm of the slope and the intercept, with this scale (nats) and degrees of
#: freedom. Normal tails cost 0.02 to 0.04 nats where 50 rows have a base rate that is off by a factor of 20.
SPREAD, DEGREES = 0.7, 4

#: Slopes that are looked at first, then those that are kept; intercepts for each, in standard errors.
NUM_FIRST_SLOPES, NUM_SLOPES = 41, 15
INTERCEPT_ERRORS = np.linspace(-4.5, 4.5, 13)

#: Log-likelihood ratio to the best slope beyond which a slope is left out, nats.
NEGLIGIBLE_NATS = 9.0

#: Posterior mass below which a map is left out.
NEGLIGIBLE_MASS = 1e-4

#: Widest standard error that intercepts are spaced by, nats: the prior's curvature where the rows have none.
WIDEST_ERROR = 2.0


def fit_average(
    logits_N2: FloatArray, labels_N: IntArray, *, methods: Collection[str], max_temperature: float, evidence: float
) -> tuple[Calibrator, dict[str, float]]:
    """The posterior over slopes and intercepts, as a calibrator that averages over it.

    Args:
        logits_N2: finite logits of two labels.
        labels_N: 0 or 1, both among them.
        methods: of `LINEAR_METHODS`: "none" allows slope 1 and intercept 0, "temperature" other slopes, "platt" any
            intercept with any slope.
        max_temperature: bound of the slope, above 1; the lower bound is its inverse.
        evidence: what the log-likelihood of a row counts, above 0; below 1 where rows repeat each other.

    Returns:
        The calibrator, and the posterior probability of each method.

    Source: Hoeting, Madigan, Raftery and Volinsky 1999, "Bayesian model averaging", equation 1.
    """
    assert methods
    assert set(methods) <= set(LINEAR_METHODS)
    posterior = _Posterior(log_odds(logits_N2), labels_N, math.log(max_temperature), evidence)
    cases = {
        "none": [(NOTHING, posterior.identity)],
        "temperature": [(SLOPE_ALONE, posterior.slopes)],
        "platt": [(INTERCEPT_ALONE, posterior.intercepts), (BOTH, posterior.slopes_and_intercepts)],
    }
    owner_M: list[str] = []
    parts: list[FloatArray] = []
    for method in methods:
        for prior, maps in cases[method]:
            part_3M = np.stack(maps())
            part_3M[0] += math.log(prior)
            parts.append(part_3M)
            owner_M += [method] * part_3M.shape[1]
    log_mass_M, slope_M, intercept_M = np.concatenate(parts, axis=1)
    mass_M = np.exp(log_mass_M - logsumexp(log_mass_M))
    weight = {method: float(mass_M[np.array(owner_M) == method].sum()) for method in methods}
    kept_M = mass_M >= NEGLIGIBLE_MASS
    weight_M = mass_M[kept_M] / mass_M[kept_M].sum()
    parameters = {
        name: tuple(values.tolist())
        for name, values in (("weight", weight_M), ("slope", slope_M[kept_M]), ("intercept", intercept_M[kept_M]))
    }
    return Calibrator(method="average", parameters=parameters, num_rows=len(labels_N)), weight


Maps = tuple[FloatArray, FloatArray, FloatArray]


class _Posterior:
    """Maps of each case: logarithm of prior density, cell and likelihood (M), slopes (M), intercepts (M)."""

    def __init__(self, d_N: FloatArray, labels_N: IntArray, log_bound: float, evidence: float) -> None:
        self._d_N, self._sign_N = d_N, np.where(labels_N == 1, 1.0, -1.0)
        self._target_N = platt_targets(labels_N)
        self._log_bound, self._evidence = log_bound, evidence

    def identity(self) -> Maps:
        one_M, zero_M = np.ones(1), np.zeros(1)
        return self._log_likelihood(one_M, zero_M), one_M, zero_M

    def slopes(self) -> Maps:
        def log_density(log_slope_G: FloatArray) -> FloatArray:
            slope_G = np.exp(log_slope_G)
            return self._log_slope_prior(log_slope_G) + self._log_likelihood(slope_G, np.zeros_like(slope_G))

        log_slope_G, log_cell_G = self._where(log_density)
        return log_density(log_slope_G) + log_cell_G, np.exp(log_slope_G), np.zeros_like(log_slope_G)

    def intercepts(self) -> Maps:
        return self._given_slopes(np.zeros(1), np.zeros(1))

    def slopes_and_intercepts(self) -> Maps:
        def log_density(log_slope_G: FloatArray) -> FloatArray:
            # Laplace's approximation over intercepts: good enough to see which slopes matter.
            slope_G = np.exp(log_slope_G)
            middle_G, error_G = self._likeliest_intercepts(slope_G)
            value_G = self._log_slope_prior(log_slope_G) + _log_student(middle_G) + np.log(error_G)
            return np.asarray(value_G + self._log_likelihood(slope_G, middle_G))

        log_slope_G, log_cell_G = self._where(log_density)
        return self._given_slopes(log_slope_G, self._log_slope_prior(log_slope_G) + log_cell_G)

    def _given_slopes(self, log_slope_G: FloatArray, log_prior_G: FloatArray) -> Maps:
        """Intercepts around the likeliest one of each slope."""
        slope_G = np.exp(log_slope_G)
        middle_G, error_G = self._likeliest_intercepts(slope_G)
        intercept_GI = middle_G[:, None] + error_G[:, None] * INTERCEPT_ERRORS
        log_cell_G = np.log(error_G * (INTERCEPT_ERRORS[1] - INTERCEPT_ERRORS[0]))
        slope_GI = np.broadcast_to(slope_G[:, None], intercept_GI.shape)
        log_mass_GI = (log_prior_G + log_cell_G)[:, None] + _log_student(intercept_GI)
        log_mass_GI = log_mass_GI + self._log_likelihood(slope_GI, intercept_GI)
        return log_mass_GI.ravel(), slope_GI.ravel(), intercept_GI.ravel()

    def _where(self, log_density: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Logarithms of the slopes that matter, evenly spaced, and of the cells around them (trapezoidal rule)."""
        first_G = np.linspace(-self._log_bound, self._log_bound, NUM_FIRST_SLOPES)
        value_G = log_density(first_G)
        near_G = np.flatnonzero(value_G >= value_G.max() - NEGLIGIBLE_NATS)
        low, high = first_G[max(near_G[0] - 1, 0)], first_G[min(near_G[-1] + 1, NUM_FIRST_SLOPES - 1)]
        log_slope_G = np.linspace(low, high, NUM_SLOPES)
        cell_G = np.full(NUM_SLOPES, (high - low) / (NUM_SLOPES - 1))
        cell_G[[0, -1]] /= 2
        return log_slope_G, np.log(cell_G)

    def _likeliest_intercepts(self, slope_G: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The best intercept for each slope, to `platt_targets` so that it is finite, and its standard error."""
        scaled_GN = slope_G[:, None] * self._d_N
        # At the bounds all rows are surer of one label than any target.
        margin = math.log(len(self._d_N) + 1) + 1
        low_G, high_G = -scaled_GN.max(axis=1) - margin, -scaled_GN.min(axis=1) + margin
        for _ in range(math.ceil(math.log2(float((high_G - low_G).max()) / 0.01))):
            middle_G = (low_G + high_G) / 2
            above_G = expit(scaled_GN + middle_G[:, None]).sum(axis=1) > self._target_N.sum()
            low_G, high_G = np.where(above_G, low_G, middle_G), np.where(above_G, middle_G, high_G)
        middle_G = (low_G + high_G) / 2
        p_GN = expit(scaled_GN + middle_G[:, None])
        precision_G = self._evidence * (p_GN * (1 - p_GN)).sum(axis=1)
        return middle_G, 1 / np.sqrt(precision_G + 1 / WIDEST_ERROR**2)

    def _log_likelihood(self, slope: FloatArray, intercept: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):
            odds = np.clip(slope[..., None] * self._d_N + intercept[..., None], -HUGE, HUGE)
        return np.asarray(self._evidence * log_expit(self._sign_N * odds).sum(axis=-1), dtype=np.float64)

    def _log_slope_prior(self, log_slope_G: FloatArray) -> FloatArray:
        inside = 2 * stdtr(DEGREES, self._log_bound / SPREAD) - 1
        return _log_student(log_slope_G) - math.log(inside)


def _log_student(value: FloatArray) -> FloatArray:
    """Logarithm of the prior density."""
    half = (DEGREES + 1) / 2
    constant = math.lgamma(half) - math.lgamma(DEGREES / 2) - 0.5 * math.log(DEGREES * math.pi) - math.log(SPREAD)
    return np.asarray(constant - half * np.log1p((value / SPREAD) ** 2 / DEGREES), dtype=np.float64)
