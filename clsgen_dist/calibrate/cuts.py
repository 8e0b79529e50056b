"""All that a threshold can do on some rows.

Shape legend: J distinct probabilities.

Rows with equal probabilities are always on the same side of a threshold, so there are only as many decisions as there
are distinct probabilities. Probabilities that were said in words have few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.number[Any]]

#: What a threshold may be chosen for.
RULES = ("best_f1", "precision", "recall", "cost", "top_share")

#: Relative slack of a wanted share, so that 0.29 of 100 rows is 29 rows and not 28.
_SLACK = 1e-12


@dataclass(frozen=True)
class Cuts:
    """The decisions that are possible: cut j takes the rows from the j-th distinct probability upwards.

    Attributes:
        threshold_J: where the cut lies, rising: midway between two neighbouring distinct probabilities, the first one
            midway to 0.
        num_flagged_J: rows at or above the cut.
        num_found_J: positive rows among them.
    """

    threshold_J: FloatArray
    num_flagged_J: CountArray
    num_found_J: CountArray

    @classmethod
    def of(cls, distinct_J: FloatArray, num_rows_J: CountArray, num_positive_J: CountArray) -> Cuts:
        """Cuts between the probabilities that occur, from the rows and the positive rows at each."""
        occurs_J = num_rows_J > 0
        distinct_J = distinct_J[occurs_J]
        below_J = np.concatenate([[0.0], distinct_J[:-1]])
        middle_J = (below_J + distinct_J) / 2
        return cls(
            # The midpoint of two neighbouring floats may round down onto the lower one, which must stay negative.
            threshold_J=np.where(middle_J > below_J, middle_J, distinct_J),
            num_flagged_J=np.cumsum(num_rows_J[occurs_J][::-1])[::-1],
            num_found_J=np.cumsum(num_positive_J[occurs_J][::-1])[::-1],
        )

    @property
    def share_at_top(self) -> float:
        """Share of the rows that have the largest probability; no threshold flags fewer."""
        return float(self.num_flagged_J[-1] / self.num_flagged_J[0])

    def best_f1(self) -> float:
        """The threshold with the largest F1; of equal ones the one nearest to 0.5, then the lower."""
        f1_J = 2 * self.num_found_J / (self.num_flagged_J + self.num_found_J[0])
        best = self.threshold_J[f1_J == f1_J.max()]
        return float(best[np.argmin(np.abs(best - 0.5))])

    def at_precision(self, value: float) -> float | None:
        """The lowest threshold with that precision; None where there is none."""
        enough_J = self.num_found_J >= value * self.num_flagged_J * (1 - _SLACK)
        return float(self.threshold_J[enough_J][0]) if enough_J.any() else None

    def at_recall(self, value: float) -> float:
        """The highest threshold with that recall."""
        enough_J = self.num_found_J >= value * self.num_found_J[0] * (1 - _SLACK)
        return float(self.threshold_J[enough_J][-1])

    def at_share(self, value: float) -> float | None:
        """The lowest threshold that flags at most that share; None where the largest probability alone flags more."""
        few_J = self.num_flagged_J <= value * self.num_flagged_J[0] * (1 + _SLACK)
        return float(self.threshold_J[few_J][0]) if few_J.any() else None

    def choose(self, rule: str, value: float | None) -> float | None:
        """The threshold of one of `RULES`, without "cost", which needs no rows; None where no cut does what it asks."""
        if rule == "best_f1":
            return self.best_f1()
        assert value is not None
        if rule == "precision":
            return self.at_precision(value)
        return self.at_recall(value) if rule == "recall" else self.at_share(value)
