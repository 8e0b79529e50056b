"""Which method to use, by cross-validated negative log-likelihood on the rows to fit on; never by a calibration error.

Shape legend: N rows, K labels, M methods.

Every labelled row counts, as every row will need a probability: where a method has nothing for a row, the base rate of
the rows it was fitted on stands in. So a method that reads parsed answers and one that reads the tokens of all answers
can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clsgen_dist.calibrate.folds import deal_folds
from clsgen_dist.calibrate.selection import NUM_STANDARD_ERRORS, standard_error
from clsgen_dist.evaluate.metrics import negative_log_likelihood
from clsgen_dist.records import UNLABELLED
from clsgen_dist.verbalize.methods import (
    UNSCALED,
    Evidence,
    Method,
    Settings,
    base_rate,
    fit_method,
    say_too_few,
    say_too_few_groups,
)

FloatArray = npt.NDArray[np.float64]

#: Kinds of methods that are measured, but never chosen.
NEVER_CHOSEN = ("as_said", "resoftmax")

#: Folds, and how often rows are dealt to them anew.
NUM_FOLDS, NUM_REPEATS = 5, 2


@dataclass(frozen=True)
class Candidate:
    """A method as cross-validation saw it.

    Attributes:
        name: of the method.
        num_parameters: numbers that labels choose, fitted on all rows.
        mean_nll: nats a row, on rows that the fit did not see.
        above_best: how much that is above the least one.
        standard_error: of `above_best`, over groups of rows; paired, so what is hard for all methods cancels.
    """

    name: str
    num_parameters: int
    mean_nll: float
    above_best: float
    standard_error: float


@dataclass(frozen=True)
class Choice:
    """The method to use, and what it was chosen among, the best first.

    Attributes:
        name: of the method; None where folds leave too few rows to fit any scaling on.
        candidates: all that could be cross-validated; none where there is no choice.
    """

    name: str | None
    candidates: tuple[Candidate, ...]


def choose_method(
    methods: Sequence[Method], parameters: Sequence[int], evidence: Evidence, settings: Settings
) -> Choice:
    """The fewest parameters among the methods close to the best one; of equal ones the best.

    Close is within the same part of a standard error as where calibrators of a head are chosen.

    Args:
        methods: what to choose among. Left out are "as_said", as a single 0 that was said of a true label makes its
            likelihood 0, and with the floor it is a method of its own; and "resoftmax", a mistake that is shown beside
            the others and never to be used.
        parameters: for each, how many it fits on all rows.
        evidence: rows to fit on.
        settings: of the fits; its seed deals the folds.
    """
    known = evidence.take(evidence.labels_N != UNLABELLED)
    losses: dict[str, FloatArray] = {}
    counted: dict[str, int] = {}
    for method, count in zip(methods, parameters, strict=True):
        loss_N = None if method.kind in NEVER_CHOSEN else _held_out_loss(method, known, settings)
        if loss_N is not None:
            losses[method.name], counted[method.name] = loss_N, count
    if not any(method.name in losses and method.kind not in UNSCALED for method in methods):
        return Choice(None, ())
    means = {name: float(loss_N.mean()) for name, loss_N in losses.items()}
    best = min(means, key=lambda name: means[name])
    group_N = np.unique(known.groups_N, return_inverse=True)[1]
    candidates = []
    for name, loss_N in losses.items():
        above_N = loss_N - losses[best]
        error = standard_error(above_N, group_N)
        candidates.append(Candidate(name, counted[name], means[name], float(above_N.mean()), error))
    close = [c for c in candidates if c.above_best <= NUM_STANDARD_ERRORS * c.standard_error]
    chosen = min(close, key=lambda c: (c.num_parameters, c.mean_nll))
    return Choice(chosen.name, tuple(sorted(candidates, key=lambda c: c.mean_nll)))


def fill(probability_NK: FloatArray, rate_K: FloatArray) -> FloatArray:
    """Probabilities with the base rate in the rows that have none."""
    return np.where(np.isnan(probability_NK), rate_K, probability_NK)


def _held_out_loss(method: Method, known: Evidence, settings: Settings) -> FloatArray | None:
    """Mean loss of each row over the repeats, nats; None where a fold leaves too few rows to fit on."""
    num_labels = known.sources[method.source].shape[1]
    total_N = np.zeros(len(known))
    generator = np.random.default_rng(settings.seed)  # the same folds for every method
    for _ in range(NUM_REPEATS):
        fold_N = deal_folds(known.labels_N, known.groups_N, num_folds=NUM_FOLDS, generator=generator)
        for fold in range(NUM_FOLDS):
            held_N = fold_N == fold
            if not held_N.any():
                continue
            rest, held = known.take(~held_N), known.take(held_N)
            if _is_too_little(method, rest):
                return None
            fitted = fit_method(method, rest, settings)
            probability_NK = fill(fitted.predict(held), base_rate(rest.labels_N, num_labels))
            total_N[held_N] += negative_log_likelihood(probability_NK, held.labels_N)
    return total_N / NUM_REPEATS


def _is_too_little(method: Method, rest: Evidence) -> bool:
    """Whether the rows outside a fold, of which there may be none, are too few to fit a method on."""
    if method.kind == "base_rate":
        return False
    usable_N = rest.usable_N(method.source)
    if say_too_few(rest.labels_N[usable_N]):
        return True
    return method.kind == "learned" and say_too_few_groups(rest.groups_N[usable_N]) is not None
