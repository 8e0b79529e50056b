"""When a bundle that was written is released."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clsgen_dist.errors import BundleError
from clsgen_dist.worker import check_reloaded


def logits(*probabilities: float) -> np.ndarray:
    return np.log(np.array([[1 - p, p] for p in probabilities]))


@pytest.mark.parametrize(
    ("precision", "reads_verdicts", "one", "all_others", "is_released"),
    [
        ("fp32", False, 0.0, 0.0, True),
        ("fp32", False, 1e-4, 0.0, False),
        ("fp32", True, 1e-4, 0.0, False),
        ("bf16", False, 0.04, 0.002, True),
        ("bf16", False, 0.12, 0.0, False),
        ("bf16", False, 0.04, 0.02, False),
        ("bf16", True, 0.12, 0.01, True),
        ("bf16", True, 0.04, 0.03, False),
        ("bf16", True, 0.22, 0.0, False),
    ],
)
def test_a_bundle_is_released_where_it_says_what_the_trained_model_said(
    precision: str, reads_verdicts: bool, one: float, all_others: float, is_released: bool
) -> None:
    live = logits(0.5, *[0.3] * 29)
    reloaded = logits(0.5 + one, *[0.3 + all_others] * 29)

    def check() -> None:
        check_reloaded(Path("b"), live, reloaded, precision, reads_verdicts=reads_verdicts)

    if is_released:
        check()
    else:
        with pytest.raises(BundleError, match=r"b: reloaded, the model's probabilities differ from .* is not released"):
            check()
