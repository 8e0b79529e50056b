"""Bundles that were trained on nothing: drawn weights, sealed like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsgen_dist.bundle import write_bundle
from clsgen_dist.data.splits import text_hash
from tests.support.tiny import shared_backbone, tiny_config, tiny_dual, tiny_rows


def write_tiny_bundle(folder: Path, *, seed: int = 0, **settings: Any) -> Path:
    """Writes FOLDER/bundle, which says that it was trained on `tiny_rows(40)`; returns its place."""
    config = tiny_config(folder, **settings)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(parameter.shape, generator=generator) * 0.05
        for name, parameter in tiny_dual(lora=config.model.lora is not None).named_parameters()
        if parameter.requires_grad
    }
    seen = np.unique(np.array([text_hash(row["text"]) for row in tiny_rows(40)], dtype=np.uint64))
    write_bundle(folder / "bundle", config, shared_backbone(), weights, seen)
    return folder / "bundle"
