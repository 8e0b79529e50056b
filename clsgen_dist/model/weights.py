"""Weights of a bundle that somebody else may have written: sizes and shapes are compared before anything is built.

Only safetensors are read, whose header is JSON and whose body is numbers; what a configuration says that the weights do
not bear out, as a billion channels, ends before memory is taken for it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from clsgen_dist.config.sections import Model
from clsgen_dist.errors import BundleError, ConfigError
from clsgen_dist.model.build import read_backbone_config


def finite_weights(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a file by name.

    Raises:
        BundleError: they are no floating-point numbers, or one is NaN or infinite.
    """
    weights = load_file(path)
    for name, weight in weights.items():
        if not weight.is_floating_point():
            raise BundleError(f"{path}: {name[:80]!r} is {weight.dtype}, expected weights of floating point")
        if not torch.isfinite(weight).all():
            raise BundleError(f"{path}: holds a number that is NaN or infinite ({name[:80]!r})")
    return weights


def shapes(paths: list[Path]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of some files by name, read from their headers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def check_adapter(path: Path, rank: int) -> None:
    """Refuses an adapter of another rank. Raises BundleError."""
    if any(rank not in shape for shape in shapes([path]).values()):
        raise BundleError(f"{path.parent.parent}: the adapter's weights are not those of its configuration")


def check_whole(model: Model, folder: Path) -> None:
    """Refuses a backbone whose weights are not those of its configuration.

    Raises:
        BundleError: a weight is missing or of another shape, config.json is of no backbone that is read, or the index
            of weights in parts names a file elsewhere.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BundleError(f"{folder}: no safetensors in it; copy the bundle whole")
    _check_index(folder, {path.name for path in files})
    fault = BundleError(f"{folder}: the weights are not those of config.json")
    try:
        config, there = read_backbone_config(model, str(folder)), shapes(files)
    except ConfigError:
        raise fault from None
    # Each layer has weights of its own; a skeleton of a billion layers would take for ever.
    if config.get_text_config().num_hidden_layers > len(there):
        raise fault
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
    if any(there.get(name) != tuple(parameter.shape) for name, parameter in skeleton.named_parameters()):
        raise fault


def _check_index(folder: Path, names: set[str]) -> None:
    path = folder / "model.safetensors.index.json"
    if not path.exists():
        return
    try:
        parts = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise BundleError(f"{path}: is no index of weights") from None
    if parts - names:
        raise BundleError(f"{path}: names {str(min(parts - names))[:80]!r}, which is no file beside it")


def refuse_broken(weights: dict[str, torch.Tensor]) -> None:
    """Refuses trained weights that no training leaves behind. Raises BundleError."""
    if not any(name.startswith("head.") for name in weights):
        raise BundleError("no classification head among the trained weights")
    for name, weight in weights.items():
        if weight.numel() == 0 or not torch.isfinite(weight).all():
            raise BundleError(f"trained weight {name} of shape {tuple(weight.shape)} is empty or not finite")
    for part in ("head.", "backbone."):
        if not any(weight.count_nonzero() for name, weight in weights.items() if name.startswith(part)):
            raise BundleError(f"all trained weights of the {part[:-1]} are zero")
