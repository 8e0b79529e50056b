"""A map from the ranks of what was said to probabilities: it believes the order, not the numbers.

Shape legend: N rows, K labels, D distinct values of one label.

A model that says 90 % of everything it holds likely, and 85 % of the rest, says something by the order of the two, and
nothing by their size. Each said value becomes a normal score (the standard normal quantile of its mid-rank among the
rows of the fit), and the scores are scaled as logits are. Of two labels the map keeps the order and the ties of what
was said, so the AUROC stays as it is; and no floor is needed, because no logarithm is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from clsgen_dist.calibrate.scaling import Calibrator, fit_calibrator

FloatArray = npt.NDArray[np.float64]

#: Decimals by which said values are told apart, as where distinct values are counted.
NUM_DECIMALS = 6


@dataclass(frozen=True)
class RankMap:
    """Said probabilities -> normal scores -> probabilities.

    Attributes:
        values: of each ranked label, the distinct said values of the fit, rising. Of two labels the last one alone is
            ranked, as the other one mirrors it.
        scores: the normal score of each of these values.
        calibrator: from scores, taken for logits, to probabilities.
    """

    values: tuple[tuple[float, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    calibrator: Calibrator

    def apply(self, said_NK: FloatArray) -> FloatArray:
        """Probabilities of K labels; rows sum to 1.

        A value between two of the fit's takes a score between theirs; one beyond them, that of the nearest.

        Args:
            said_NK: what was said, renormalised; no NaN.
        """
        return self.calibrator.apply(_to_logits(said_NK, self.values, self.scores))

    @property
    def num_parameters(self) -> int:
        """Fitted numbers of the scaling; the ranks come on top, but they have seen no label."""
        return self.calibrator.num_parameters

    def to_json(self) -> dict[str, Any]:
        """The map as JSON."""
        return {
            "values": [list(column) for column in self.values],
            "scores": [list(column) for column in self.scores],
            "calibrator": self.calibrator.to_json(),
        }


def fit_rank_map(
    said_NK: FloatArray, labels_N: npt.NDArray[np.int64], *, max_temperature: float
) -> tuple[RankMap, list[str]]:
    """Fit the map on labelled rows.

    Args:
        said_NK: what was said, renormalised; no NaN.
        labels_N: number of the label, 0 to K - 1.
        max_temperature: bound of the scaling, as in `fit_calibrator`.

    Returns:
        The map, and warnings of the scaling: Platt's for two labels, vector scaling for more.

    Raises:
        DataError: as `fit_calibrator`: fewer than 20 rows, or one label only.

    Source: normal scores as van der Waerden, Indagationes Mathematicae 14 (1952); their use here is our own.
    """
    num_labels = said_NK.shape[1]
    values, scores = [], []
    for label in (1,) if num_labels == 2 else range(num_labels):
        value_D, count_D = np.unique(np.round(said_NK[:, label], NUM_DECIMALS), return_counts=True)
        # Mid-ranks: half of the ties count as below. Never 0 or 1, so every score is finite.
        rank_D = (np.cumsum(count_D) - 0.5 * count_D) / count_D.sum()
        values.append(tuple(value_D.tolist()))
        scores.append(tuple(ndtri(rank_D).tolist()))
    calibrator, warnings = fit_calibrator(
        _to_logits(said_NK, tuple(values), tuple(scores)),
        labels_N,
        method="platt" if num_labels == 2 else "vector",
        max_temperature=max_temperature,
    )
    return RankMap(values=tuple(values), scores=tuple(scores), calibrator=calibrator), warnings


def _to_logits(
    said_NK: FloatArray, values: tuple[tuple[float, ...], ...], scores: tuple[tuple[float, ...], ...]
) -> FloatArray:
    ranked_NK = said_NK[:, 1:] if said_NK.shape[1] == 2 else said_NK
    score_NK = np.stack(
        [
            np.interp(np.round(column_N, NUM_DECIMALS), value_D, score_D)
            for column_N, value_D, score_D in zip(ranked_NK.T, values, scores, strict=True)
        ],
        axis=1,
    )
    return np.concatenate([-score_NK / 2, score_NK / 2], axis=1) if said_NK.shape[1] == 2 else score_NK
