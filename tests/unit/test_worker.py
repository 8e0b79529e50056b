"""When a bundle that was written is released."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clsgen_dist.bundle import load_bundle
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import BundleError
from clsgen_dist.worker import check_reloaded, keep_untrained
from tests.support.tiny import tiny_config


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


def test_what_only_training_needs_does_not_keep_an_untrained_bundle_from_being_written(tmp_path: Path) -> None:
    """As in a comparison whose base leaves its kernels and its recomputation open, or wants those of a GPU."""
    only_training = {"model.attention": "auto", "model.gradient_checkpointing": "auto", "model.liger_kernels": True}
    config = tiny_config(tmp_path, **{"objective.w_cls": 0.0}, **only_training)
    folder, base = RunFolder(tmp_path / "run"), str(config.model.name_or_path)
    folder.path.mkdir()
    keep_untrained(config, folder, base, Ranks(0, 1, torch.device("cpu")))
    loaded = load_bundle(folder.bundle, device=torch.device("cpu"), with_decision=False)
    assert loaded.model.causal_lm.config._attn_implementation == "sdpa"
