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
    ("precision", "reads_verdicts", "reloaded", "is_released"),
    [
        ("fp32", False, 0.6, True),
        ("fp32", False, 0.6001, False),
        ("fp32", True, 0.6001, False),
        ("bf16", False, 0.62, True),
        ("bf16", False, 0.65, False),
        ("bf16", True, 0.65, True),
        ("bf16", True, 0.75, False),
    ],
)
def test_a_bundle_is_released_where_it_says_what_the_trained_model_said(
    precision: str, reads_verdicts: bool, reloaded: float, is_released: bool
) -> None:
    def check() -> None:
        check_reloaded(Path("b"), logits(0.1, 0.6), logits(0.1, reloaded), precision, reads_verdicts=reads_verdicts)

    if is_released:
        check()
    else:
        with pytest.raises(BundleError, match=r"b: reloaded, the model's probabilities differ by .* is not released"):
            check()
