"""Which labels are taken for which.

Shape legend: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clsgen_dist.records import Prediction

#: Labels of which the whole table is shown; of more, the most frequent mistakes.
MAX_TABLE_LABELS = 10

#: Mistakes that are listed then.
MAX_MISTAKES = 15


@dataclass(frozen=True)
class Confusion:
    """Decisions held against true labels.

    Attributes:
        labels: names, in the order of their numbers.
        num_rows_KK: rows by true label (line) and decision (column).
    """

    labels: list[str]
    num_rows_KK: npt.NDArray[np.int64]

    @property
    def fits_a_table(self) -> bool:
        """Whether there are few enough labels to show all of it."""
        return len(self.labels) <= MAX_TABLE_LABELS

    def share(self, true: int, decided: int) -> float:
        """Share of the rows of a true label that were so decided; 0 for a label without rows."""
        of_label = int(self.num_rows_KK[true].sum())
        return int(self.num_rows_KK[true, decided]) / of_label if of_label else 0.0

    def mistakes(self) -> list[tuple[str, str, int]]:
        """(true label, decision, rows) of the most frequent mistakes."""
        wrong_KK = self.num_rows_KK.copy()
        np.fill_diagonal(wrong_KK, 0)
        order = np.argsort(-wrong_KK, axis=None, kind="stable")[:MAX_MISTAKES]
        found = (divmod(int(at), len(self.labels)) for at in order)
        return [(self.labels[t], self.labels[d], int(wrong_KK[t, d])) for t, d in found if wrong_KK[t, d]]


def count_confusions(predictions: Sequence[Prediction], labels: Sequence[str]) -> Confusion:
    """Count the decisions on labelled rows, made at the operating threshold if there is one."""
    number_of = {name: number for number, name in enumerate(labels)}
    num_rows_KK = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for prediction in predictions:
        if prediction.label is not None:
            num_rows_KK[number_of[prediction.label], number_of[prediction.predicted]] += 1
    return Confusion(list(labels), num_rows_KK)
