"""Files of ds_configs/: ZeRO settings and nothing else, so that every number has one owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clsgen_dist.errors import ConfigError

#: DeepSpeed settings that the run configuration owns, and the key that does.
OWNED = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.token_budget",
    "gradient_accumulation_steps": "train.global_batch and train.token_budget",
    "gradient_clipping": "train.max_grad_norm",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "torch_autocast": "train.precision",
    "optimizer": "train.learning_rate and its neighbours",
    "scheduler": "train.warmup_fraction and its neighbours",
}

#: Sections that say how ZeRO, activations and communication work.
ALLOWED = {
    "zero_optimization",
    "activation_checkpointing",
    "communication_data_type",
    "data_types",
    "zero_force_ds_cpu_optimizer",
    "zero_allow_untested_optimizer",
    "comms_logger",
    "wall_clock_breakdown",
    "aio",
}


def read_zero(path: str) -> dict[str, Any]:
    """Reads and checks a file of ZeRO settings.

    Returns:
        The settings as DeepSpeed names them.

    Raises:
        ConfigError: the file is missing, not JSON, names a setting that the run configuration owns, or one that is
            unknown, or its stage is neither 2 nor 3.
    """
    place = Path(path)
    if place.exists() and not place.is_file() and not place.is_dir():
        raise ConfigError(f"train.deepspeed: {path} is no plain file, but a pipe or a device")
    try:
        settings = json.loads(place.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise ConfigError(f"train.deepspeed: no such file: {path}") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"train.deepspeed: {path} is not JSON: {reason}") from None
    except OSError as error:
        raise ConfigError(f"train.deepspeed: {path} cannot be read ({error.strerror})") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("zero_optimization"), dict):
        raise ConfigError(f"{path}: expected an object with zero_optimization")
    for key in settings:
        if key in OWNED:
            raise ConfigError(f"{path}: {key} belongs to {OWNED[key]} in the run configuration; remove it here")
        if key not in ALLOWED:
            raise ConfigError(f"{path}: unknown setting {key}; expected of {', '.join(sorted(ALLOWED))}")
    stage = settings["zero_optimization"].get("stage")
    if isinstance(stage, bool) or stage not in (2, 3):
        raise ConfigError(f"{path}: zero_optimization.stage is {stage!r}, expected 2 or 3")
    for key in ("offload_optimizer", "offload_param"):
        if not isinstance(settings["zero_optimization"].get(key, {}), dict):
            raise ConfigError(f'{path}: {key} is not an object, expected {{"device": ...}}')
    if stage == 2 and "offload_param" in settings["zero_optimization"]:
        raise ConfigError(f"{path}: offload_param needs stage 3, found stage 2")
    return settings


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def zero_stage(settings: dict[str, Any]) -> int:
    return int(settings["zero_optimization"]["stage"])


def offloads(settings: dict[str, Any], what: str) -> bool:
    """Whether `what` (optimizer or param) lives in CPU memory."""
    place = settings["zero_optimization"].get(f"offload_{what}", {})
    return bool(place.get("device", "none") != "none")
