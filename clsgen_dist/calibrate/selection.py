"""Which calibrator: the one that does best on rows that it was not fitted on.

Shape legend: N rows, K labels, M methods, G groups.

Candidates are compared by cross-validated negative log-likelihood inside the calibration rows, never by a calibration
error, which is biased and does not punish a map that ties all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.averaging import fit_average
from clsgen_dist.calibrate.families import LINEAR_METHODS
from clsgen_dist.calibrate.folds import deal_folds
from clsgen_dist.calibrate.scaling import (
    IDENTITY,
    MIN_LABELLED_ROWS,
    Calibrator,
    candidate_methods,
    fit_calibrator,
)
from clsgen_dist.calibrate.simplex import TINY
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.records import UNLABELLED

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Labelled rows from which one candidate is chosen; with fewer, and two labels, they are averaged.
MIN_CHOICE_ROWS = 500

#: Standard errors that a method with more parameters must be better by. One is the usual rule, but it cost 0.01 nats on
#: 200 rows where Platt's map was right; none at all costs as much as this where the head was good already.
NUM_STANDARD_ERRORS = 0.25

#: Rows on which candidates are compared; more of them only cost time. The chosen one is fitted on all.
MAX_COMPARED_ROWS = 50_000


@dataclass(frozen=True)
class Candidate:
    """How one method did on rows that it was not fitted on.

    Attributes:
        method: one of `scaling.FITTED_METHODS`.
        num_parameters: of the fit on all rows.
        mean_nll: cross-validated negative log-likelihood, nats a row, mean over repeats.
        standard_error: of the difference of `mean_nll` to the best candidate's, over groups of rows, each row's
            likelihood being its mean over repeats; 0 for the best.
        weight: part in the calibrator: 1 or 0 where one was chosen; its posterior probability where they were averaged.
    """

    method: str
    num_parameters: int
    mean_nll: float
    standard_error: float
    weight: float


@dataclass(frozen=True)
class Selection:
    """The calibrator, and what it was chosen from.

    Attributes:
        calibrator: fitted on all labelled rows.
        candidates: those with the fewest parameters first.
        warnings: in plain English.
    """

    calibrator: Calibrator
    candidates: tuple[Candidate, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Calibrator, candidates and warnings as plain objects."""
        return {
            "calibrator": self.calibrator.to_json(),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "warnings": list(self.warnings),
        }


def select_calibrator(
    logits_NK: npt.ArrayLike,
    labels_N: npt.ArrayLike,
    *,
    groups_N: npt.ArrayLike | None = None,
    methods: Sequence[str] | None = None,
    max_temperature: float,
    num_folds: int = 5,
    num_repeats: int = 4,
    seed: int,
) -> Selection:
    """The best calibrator for these rows, by repeated stratified cross-validation that keeps groups whole.

    From `MIN_CHOICE_ROWS` labelled rows, and for more than two labels always, it is the candidate with the fewest
    parameters among those whose likelihood is within a quarter of a standard error of the best one's.

    With fewer rows and two labels, the candidates without "beta" and "isotonic" are averaged: a probability is the
    mean over the posterior of slope and intercept (`averaging.py`), for which the likelihood is divided by the design
    effect of the groups; cross-validation then only shows how each candidate did. With 50 rows no choice among them
    stays near the best one: every rule that was tried (0 to 1 standard errors, information criteria) cost 0.02 nats or
    more on one head or another, mean over 60 seeds.
    `benchmarks/calibrator_selection.py` measures it; docs/calibration.md has its table.

    Args:
        logits_NK: logits of each label, any real dtype, nats.
        labels_N: number of the label, 0 to K - 1; -1 for rows without one, which are ignored.
        groups_N: number or name of each row's group, whose rows are never on both sides of a fold; None makes each
            row a group of its own.
        methods: candidates; None for those that suit the number of labels and rows (`candidate_methods`).
        max_temperature: as `fit_calibrator`.
        num_folds: parts, 2 or more. More are made where fewer would leave less than 20 rows to fit on, fewer where
            there are not as many groups.
        num_repeats: times that rows are dealt to parts anew, 1 or more.
        seed: seed of the dealing; the same seed gives the same selection.

    Raises:
        ConfigError: as `fit_calibrator`, or no method, or one twice.
        DataError: as `fit_calibrator`, even where "none" is the only method; or all rows are of one group.
    """
    assert num_folds >= 2
    assert num_repeats >= 1
    # Checks whatever there is to check of rows and bound: no rows, no choice.
    fit_calibrator(logits_NK, labels_N, method="temperature", max_temperature=max_temperature)
    every_label_N = np.asarray(labels_N, dtype=np.int64)
    known_N = every_label_N != UNLABELLED
    known_logit_NK: FloatArray = np.asarray(logits_NK, dtype=np.float64)[known_N]
    known_label_N = every_label_N[known_N]
    group_N = _numbered(groups_N, known_N)
    num_rows, num_labels = known_logit_NK.shape
    tried = candidate_methods(num_labels, num_rows) if methods is None else tuple(methods)
    if not tried or len(set(tried)) < len(tried):
        raise ConfigError(f"calibration methods: found {list(tried)}, expected one or more, none of them twice")
    few = num_labels == 2 and num_rows < MIN_CHOICE_ROWS
    averaged = few and len(tried) > 1 and set(tried) <= set(LINEAR_METHODS)

    fits = [
        fit_calibrator(known_logit_NK, known_label_N, method=method, max_temperature=max_temperature)
        for method in tried
    ]
    order = sorted(range(len(tried)), key=lambda m: fits[m][0].num_parameters)
    tried, fits = tuple(tried[m] for m in order), [fits[m] for m in order]
    warnings: list[str] = []
    compared_N = _compared(num_rows, seed)
    nll_MN = _cross_validated(
        tried,
        known_logit_NK[compared_N],
        known_label_N[compared_N],
        np.unique(group_N[compared_N], return_inverse=True)[1],
        max_temperature=max_temperature,
        num_folds=num_folds,
        num_repeats=num_repeats,
        seed=seed,
        warnings=warnings,
    )
    mean_M = nll_MN.mean(axis=1)
    best = int(mean_M.argmin())
    error_M = np.array([standard_error(nll_N - nll_MN[best], group_N[compared_N]) for nll_N in nll_MN])
    if averaged:
        # What the map with the most parameters leaves unexplained tells how much rows of a group repeat each other.
        residual_N = known_label_N - fits[-1][0].apply(known_logit_NK)[:, 1]
        calibrator, posterior = fit_average(
            known_logit_NK,
            known_label_N,
            methods=tried,
            max_temperature=max_temperature,
            evidence=1 / design_effect(residual_N, group_N),
        )
        weight_M = np.array([posterior[method] for method in tried])
    else:
        chosen = int(np.argmax(mean_M <= mean_M[best] + NUM_STANDARD_ERRORS * error_M))
        weight_M = np.eye(len(tried))[chosen]
        calibrator = fits[chosen][0]
    for method, (_, said), weight in zip(tried, fits, weight_M, strict=True):
        # A bound that a temperature alone meets is none of an average's; what is true of both, Platt's map says.
        if weight > 0 and not (averaged and method == "temperature" and "platt" in tried):
            warnings.extend(said)
    return Selection(
        calibrator=calibrator,
        candidates=tuple(
            Candidate(method, fit.num_parameters, float(mean), float(error), float(weight))
            for method, (fit, _), mean, error, weight in zip(tried, fits, mean_M, error_M, weight_M, strict=True)
        ),
        warnings=tuple(warnings),
    )


def _cross_validated(
    methods: Sequence[str],
    logits_NK: FloatArray,
    labels_N: IntArray,
    group_N: IntArray,
    *,
    max_temperature: float,
    num_folds: int,
    num_repeats: int,
    seed: int,
    warnings: list[str],
) -> FloatArray:
    """Negative log-likelihood of each row by each method fitted on other groups, mean over repeats."""
    num_rows, num_groups = len(labels_N), int(group_N.max()) + 1
    if num_groups < 2:
        raise DataError(
            f"calibration: all {num_rows} labelled rows are of one group, so no calibrator can be compared on rows "
            "that it was not fitted on; expected at least two groups; set data.group_column to null where rows are "
            "independent"
        )
    most_left_out = max(1, num_rows - MIN_LABELLED_ROWS)
    num_folds = min(max(num_folds, math.ceil(num_rows / most_left_out)), num_groups)
    generator = np.random.default_rng(seed)
    nll_MN = np.zeros((len(methods), num_rows))
    num_unfitted = 0
    for _ in range(num_repeats):
        fold_N = deal_folds(labels_N, group_N, num_folds=num_folds, generator=generator)
        for fold in range(num_folds):
            out_N = fold_N == fold
            kept_label_N = labels_N[~out_N]
            fits = len(kept_label_N) >= MIN_LABELLED_ROWS and bool((kept_label_N != kept_label_N[0]).any())
            num_unfitted += not fits
            for m, method in enumerate(methods):
                calibrator = IDENTITY
                if fits:
                    calibrator, _ = fit_calibrator(
                        logits_NK[~out_N], kept_label_N, method=method, max_temperature=max_temperature
                    )
                p_NK = calibrator.apply(logits_NK[out_N])
                own_N = p_NK[np.arange(len(p_NK)), labels_N[out_N]]
                nll_MN[m, out_N] -= np.log(np.maximum(own_N, TINY)) / num_repeats
    if num_unfitted:
        warnings.append(
            f"in {num_unfitted} of {num_repeats * num_folds} folds fewer than {MIN_LABELLED_ROWS} rows, or one label "
            "only, were left to fit on, so their rows do not help to tell candidates apart; give data.calibration "
            "more rows of each label, in more groups"
        )
    return nll_MN


def _compared(num_rows: int, seed: int) -> IntArray:
    """Rows to compare candidates on."""
    if num_rows <= MAX_COMPARED_ROWS:
        return np.arange(num_rows)
    drawn_N = np.random.default_rng(seed).choice(num_rows, size=MAX_COMPARED_ROWS, replace=False)
    return np.sort(drawn_N)


def standard_error(difference_N: FloatArray, group_N: IntArray) -> float:
    """Standard error of the mean of N rows that come and go in groups, of which there are two or more."""
    present_N = np.unique(group_N, return_inverse=True)[1]
    sum_G = np.bincount(present_N, weights=difference_N - difference_N.mean())
    num_groups = len(sum_G)
    return math.sqrt(num_groups / (num_groups - 1) * float(sum_G @ sum_G)) / len(difference_N)


def design_effect(residual_N: FloatArray, group_N: IntArray) -> float:
    """How many times more a sum over rows varies than if each row were a group of its own; 1 or more.

    Rows that repeat each other say no more than one of them: copies in groups of m have a design effect of m.

    Args:
        residual_N: what is summed; its expectation is 0.
        group_N: number of each row's group.

    Source: Kish 1965, "Survey sampling", section 8.2.
    """
    sum_G = np.bincount(group_N, weights=residual_N)
    return max(1.0, float(sum_G @ sum_G) / max(float(residual_N @ residual_N), TINY))


def _numbered(groups_N: npt.ArrayLike | None, known_N: npt.NDArray[np.bool_]) -> IntArray:
    if groups_N is None:
        return np.arange(int(known_N.sum()))
    given_N = np.asarray(groups_N)
    if given_N.shape != known_N.shape:
        raise DataError(f"calibration: found {given_N.shape} groups for {len(known_N)} rows, expected one a row")
    return np.asarray(np.unique(given_N[known_N], return_inverse=True)[1], dtype=np.int64)
