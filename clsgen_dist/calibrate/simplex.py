"""Between probabilities that were said and logits.

Shape legend: P paraphrases of a prompt, N rows, K labels.

A softmax loses one constant a row and nothing else, so logits are log p + c for any c. Temperature does not see c;
maps that scale each label by itself do, and there it must be fixed. Rows are always looked at one by one: one that
does not sum to 1 changes nothing in the others.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from clsgen_dist.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]

#: The smallest normal float: what a true label's probability of 0 is taken for, and the least that is divided by.
TINY = float(np.finfo(np.float64).tiny)

#: What two said values must differ by to count as two.
RESOLUTION = 1e-6

#: Bounds of the default floor.
SMALLEST_FLOOR, LARGEST_FLOOR = 1e-6, 0.02


def softmax(scores_NK: FloatArray) -> FloatArray:
    """Probabilities with these logarithms, up to one constant a row; any finite scores, however large."""
    weights_NK = np.exp(shifted(scores_NK))
    probabilities_NK: FloatArray = weights_NK / weights_NK.sum(axis=1, keepdims=True)
    return probabilities_NK


def shifted(scores_NK: FloatArray) -> FloatArray:
    """Scores less the largest of their row: the same softmax, and no exponential can overflow."""
    # Differences of huge scores may be infinite; a huge number stands in for them, and its exponential is 0.
    with np.errstate(over="ignore"):
        below_NK: FloatArray = scores_NK - scores_NK.max(axis=1, keepdims=True)
    return np.maximum(below_NK, -1e300, dtype=np.float64)


def normalise(said_NK: npt.ArrayLike) -> FloatArray:
    """Each row divided by its own sum.

    Args:
        said_NK: what was said of each label, fractions or percentages, not negative.

    Raises:
        DataError: a number is NaN, infinite or negative, or a row has no number above 0.
    """
    said_NK = _checked(said_NK)
    with np.errstate(over="ignore"):
        sum_N = said_NK.sum(axis=1)
    bad = int(((sum_N == 0) | np.isinf(sum_N)).sum())
    if bad:
        raise DataError(
            f"said probabilities: {bad} of {len(said_NK)} rows sum to 0 or to infinity, expected a sum above 0; "
            "count such answers as failures"
        )
    normal_NK: FloatArray = said_NK / sum_N[:, None]
    return normal_NK


def floored(p_NK: npt.ArrayLike, floor: float) -> FloatArray:
    """Rows proportional to max(p, floor).

    A 0 that was said is a rounded small number. Left at 0 it stays there at every temperature, and one true label
    among them makes the likelihood 0.

    Args:
        p_NK: said probabilities; each row is divided by its sum first.
        floor: the least that p may be before rows are normalised again, from 0 (which does nothing) to below 1 / K.

    Returns:
        Probabilities that sum to 1 in each row.

    Raises:
        ConfigError: a floor out of range.
        DataError: as `normalise`.
    """
    p_NK = normalise(p_NK)
    if not 0 <= floor < 1 / p_NK.shape[1]:
        raise ConfigError(f"floor: found {floor!r}, expected 0 to below 1 / {p_NK.shape[1]} (one over the labels)")
    return p_NK if floor == 0 else normalise(np.maximum(p_NK, floor))


def invert_softmax(p_NK: npt.ArrayLike, *, floor: float, constant: Literal["zero", "centred"]) -> FloatArray:
    """Logits whose softmax is the floored probabilities: log p + c.

    Args:
        p_NK: said probabilities; each row is divided by its sum first.
        floor: as for `floored`; it must be above 0 where a probability is 0.
        constant: c of each row: "zero", or "centred" for minus the mean of the row's logarithms. Irrelevant to a
            temperature and to Platt scaling; vector scaling sees it.

    Returns:
        Finite logits, nats.

    Raises:
        ConfigError: an unknown constant, or a floor out of range.
        DataError: as `normalise`, or a probability of 0 with a floor of 0.

    Source: arXiv 2410.06707, where c is minus the mean of the logarithms.
    """
    if constant not in ("zero", "centred"):
        raise ConfigError(f"constant: found {constant!r}, expected zero or centred")
    p_NK = floored(p_NK, floor)
    bad = int((p_NK == 0).any(axis=1).sum())
    if bad:
        raise DataError(
            f"said probabilities: {bad} of {len(p_NK)} rows hold a 0, whose logarithm is minus infinity; set a floor "
            "above 0"
        )
    logits_NK: FloatArray = np.log(p_NK)
    return logits_NK if constant == "zero" else logits_NK - logits_NK.mean(axis=1, keepdims=True)


def default_floor(p_NK: npt.ArrayLike) -> float:
    """A floor that suits the grid on which probabilities were said.

    A said 0 means less than the smallest number that is said otherwise: the step of the grid next to 0. The floor is
    a fifth of that step: on a 5 % grid a fitted temperature and its likelihood are best from a tenth to a half of it
    (2.5e-3 to 0.025), and far off at 1e-6. The step is the first percentile of what was said above 0, not its
    minimum, so that a rare odd number, or a row that did not sum to 1, does not decide for all the others. The
    result lies between 1e-6 and 0.02, and is at most 1 / (5 K), so that the floors of a row never outweigh what was
    said.

    Args:
        p_NK: said probabilities; each row is divided by its sum first.

    Returns:
        Floor for `floored` and `invert_softmax`.

    Raises:
        DataError: no rows, or as `normalise`.
    """
    p_NK = normalise(p_NK)
    if not len(p_NK):
        raise DataError("said probabilities: found no rows, expected at least one; no floor suits them")
    above = p_NK[p_NK >= RESOLUTION]
    step = float(np.percentile(above, 1, method="lower"))
    return float(max(SMALLEST_FLOOR, min(step / 5, LARGEST_FLOOR, 1 / (5 * p_NK.shape[1]))))


def num_distinct(p_NK: npt.ArrayLike) -> int:
    """How many values were said, all labels together; values that round to the same millionth are one.

    Raises:
        DataError: a number is NaN, infinite or negative.
    """
    return len(np.unique(np.rint(_checked(p_NK) / RESOLUTION)))


def average_prompts(said_PNK: npt.ArrayLike, *, floor: float) -> FloatArray:
    """One distribution for each row from several paraphrases of its prompt: the mean of the logits, then softmax.

    Args:
        said_PNK: said probabilities by paraphrase; all NaN where a paraphrase got no distribution for a row.
        floor: as for `invert_softmax`.

    Returns:
        Probabilities (N x K), the mean over the paraphrases that have one; NaN where none has.

    Raises:
        ConfigError: a floor out of range.
        DataError: as `invert_softmax`, or a distribution that is NaN in part.
    """
    said_PNK = np.asarray(said_PNK, dtype=np.float64)
    assert said_PNK.ndim == 3, f"expected paraphrases by rows by labels, found shape {said_PNK.shape}"
    there_PN = ~np.isnan(said_PNK).all(axis=2)
    logits_PNK = np.zeros(said_PNK.shape)
    logits_PNK[there_PN] = invert_softmax(said_PNK[there_PN], floor=floor, constant="zero")
    count_N = there_PN.sum(axis=0)
    average_NK = np.full(said_PNK.shape[1:], np.nan)
    some_N = count_N > 0
    average_NK[some_N] = softmax(logits_PNK.sum(axis=0)[some_N] / count_N[some_N, None])
    return average_NK


def _checked(said_NK: npt.ArrayLike) -> FloatArray:
    said_NK = np.asarray(said_NK, dtype=np.float64)
    assert said_NK.ndim == 2, f"expected rows by labels, found shape {said_NK.shape}"
    # NaN is neither above nor below 0.
    bad = int((~((said_NK >= 0) & np.isfinite(said_NK)).all(axis=1)).sum())
    if bad:
        raise DataError(
            f"said probabilities: {bad} of {len(said_NK)} rows hold a number that is NaN, infinite or negative, "
            "expected 0 or more; count such answers as failures"
        )
    return said_NK
