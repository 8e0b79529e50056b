"""Whether explanations argue for what the head decides.

Shape legend: N explained rows, K labels.

Measured on explanations that the model wrote when it was left alone. One that was made to follow the head's decision
agrees with it by construction, and that says nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score

from clsgen_dist.evaluate.metrics import auroc
from clsgen_dist.records import UNLABELLED


def alignment(
    verdict_N: npt.ArrayLike, predicted_N: npt.ArrayLike, probabilities_NK: npt.ArrayLike
) -> dict[str, float | int | None]:
    """Agreement of verdicts in words with the head.

    Args:
        verdict_N: number of the label that the explanation argues for; -1 where that is unclear.
        predicted_N: number of the label that the head predicts, at its operating threshold.
        probabilities_NK: the head's probability of each label.

    Returns:
        kappa: Cohen's kappa of verdict and prediction, on rows with a verdict, -1 to 1; None where it is undefined: no
            such rows, or both always say the same single label.
        auroc_alignment: AUROC with the verdict as truth and the head's probability as score (of the last label where
            K = 2, else the mean of one against the rest); None where all verdicts are the same.
        coverage: share of explained rows with a verdict; 0 where there are none.
        unparsed: explained rows without a verdict.
        contradiction_rate: share of rows with a verdict where it is not the prediction; None without such rows.
        num_rows: explained rows.

    Source: arXiv 2604.11801 reports both agreements; its definition of AUROC-Alignment could not be read, and the one
    above is our reading.
    """
    verdict_N = np.asarray(verdict_N, dtype=np.int64)
    predicted_N = np.asarray(predicted_N, dtype=np.int64)
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    assert verdict_N.shape == predicted_N.shape == probabilities_NK.shape[:1]
    num_rows = len(verdict_N)
    parsed_N = verdict_N != UNLABELLED
    num_parsed = int(parsed_N.sum())
    said_N, head_N = verdict_N[parsed_N], predicted_N[parsed_N]
    # Chance agreement is 1 where one label is all that either says: 0 / 0.
    kappa_defined = len(np.union1d(said_N, head_N)) > 1
    auroc_defined = len(np.unique(said_N)) > 1
    return {
        "kappa": float(cohen_kappa_score(said_N, head_N)) if kappa_defined else None,
        "auroc_alignment": auroc(probabilities_NK[parsed_N], said_N) if auroc_defined else None,
        "coverage": num_parsed / num_rows if num_rows else 0.0,
        "unparsed": num_rows - num_parsed,
        "contradiction_rate": float(np.mean(said_N != head_N)) if num_parsed else None,
        "num_rows": num_rows,
    }
