"""Simulated predictions: what a fair but overconfident model would say of rows whose true probability is known."""

from collections.abc import Callable

import numpy as np
import pytest

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.records import Prediction, Row

Split = tuple[list[Prediction], list[Row]]

CALIBRATOR = Calibrator(method="temperature", parameters={"temperature": (2.0,)}, num_rows=500)


def simulate_split(num_rows: int, labels: list[str], *, threshold: float | None, seed: int = 0) -> Split:
    """Rows in groups of two; every tenth without a label, every fourth without explanation."""
    generator = np.random.default_rng(seed)
    num_labels = len(labels)
    honest_NK = generator.normal(size=(num_rows, num_labels)) * 1.3
    true_NK = IDENTITY.apply(honest_NK)
    truth_N = (generator.random((num_rows, 1)) > true_NK.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    logits_NK = 2 * honest_NK + 0.3 * generator.normal(size=honest_NK.shape)
    raw_NK, calibrated_NK = IDENTITY.apply(logits_NK), CALIBRATOR.apply(logits_NK)
    predicted_N = decide(calibrated_NK, threshold)
    rows, predictions = [], []
    for i in range(num_rows):
        label = None if i % 10 == 9 else int(truth_N[i])
        true_probability = float(true_NK[i, 1]) if num_labels == 2 else None
        explained = i % 4 != 3
        verdict = labels[predicted_N[i] if i % 5 else truth_N[i]] if explained and i % 7 else None
        rows.append(
            Row(id=f"r{i}", text=f"text {i}", label=label, group=f"g{i // 2}", true_probability=true_probability)
        )
        predictions.append(
            Prediction(
                id=f"r{i}",
                label=None if label is None else labels[label],
                probability=dict(zip(labels, calibrated_NK[i].tolist(), strict=True)),
                raw_probability=dict(zip(labels, raw_NK[i].tolist(), strict=True)),
                predicted=labels[predicted_N[i]],
                explanation=f"{labels[predicted_N[i]]}. Because of {i}." if explained else None,
                free_verdict=verdict,
                free_explanation=f"Because of {i}." if explained else None,
                is_cut=False,
                is_free_cut=False,
                logits=logits_NK[i].tolist(),
            )
        )
    return predictions, rows


@pytest.fixture(scope="session")
def make_split() -> Callable[..., Split]:
    return simulate_split
