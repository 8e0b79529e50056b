"""A finished model as a folder: written, verified, loaded.

    bundle/
      manifest.json      base model, precision, limits, sha256 of every other file
      task.json          question, labels, templates
      calibrator.json    temperature, operating threshold
      head.safetensors   classification head
      adapter/           LoRA weights in PEFT's format, or
      model/             all weights of the backbone after full fine-tuning
      tokenizer/

Safe files only: nothing in a bundle is executed, and no pickle is read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clsgen_dist import __version__
from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Data, Model, Task
from clsgen_dist.config.source import ConfigSource, apply_overrides
from clsgen_dist.data.tokens import RowTokenizer, load_tokenizer
from clsgen_dist.errors import BundleError, ConfigError
from clsgen_dist.integrity import fingerprint, read_json, sha256_of, write_json
from clsgen_dist.model.build import DTYPES, add_new_adapter, load_backbone, read_backbone_config
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.heads import ClassificationHead

FORMAT = 1
_MANIFEST = "manifest.json"
_COLUMNS = ("text_column", "text_template", "label_column", "label_map", "id_column", "group_column")
_SAFE = {".json", ".safetensors", ".txt", ".model", ".jinja", ".md"}


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    Attributes:
        folder: where it was read.
        manifest: what it says of itself.
        task: question, labels, templates.
        model: both heads on their backbone, in evaluation mode, on `device`.
        tokenizer: rows to token ids, with the limits of the training.
        calibrator: from head logits to probabilities.
        threshold: probability above which the last of two labels is predicted; None for more labels.
    """

    folder: Path
    manifest: dict[str, Any]
    task: Task
    model: DualHead
    tokenizer: RowTokenizer
    calibrator: Calibrator
    threshold: float | None


def write_bundle(
    folder: Path,
    config: RunConfig,
    base: str,
    weights: dict[str, torch.Tensor],
    calibrator: Calibrator,
    threshold: float | None,
) -> None:
    """Writes a bundle beside its place and moves it there when it is whole.

    Args:
        folder: its place; what stands there is replaced.
        config: the run.
        base: folder or Hub name of the backbone.
        weights: trainable weights by their names in DualHead.
        calibrator: from head logits to probabilities.
        threshold: operating threshold.

    Raises:
        BundleError: a weight is empty, not finite, or all of an adapter is zero, as when partitioned weights are saved.
    """
    head = {name.removeprefix("head."): w for name, w in weights.items() if name.startswith("head.")}
    body = {name.removeprefix("backbone."): w for name, w in weights.items() if name.startswith("backbone.")}
    _refuse_broken(weights)
    staging = folder.with_name(folder.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file(head, staging / "head.safetensors")
    if config.model.lora is not None:
        save_file(
            {n.replace(".default.", "."): w for n, w in body.items()},
            _made(staging / "adapter") / "adapter_model.safetensors",
        )
        write_json(staging / "adapter" / "adapter_config.json", _adapter_config(config, base))
    else:
        read_backbone_config(config.model, base).save_pretrained(staging / "model")
        save_torch_state_dict(body, staging / "model")
    tokenizer: Any = load_tokenizer(config.model, base)
    tokenizer.save_pretrained(staging / "tokenizer")
    write_json(staging / "task.json", config.task.model_dump(mode="json"))
    write_json(staging / "calibrator.json", {**calibrator.to_json(), "threshold": threshold})
    manifest = {
        "format": FORMAT,
        "written_by": f"clsgen_dist {__version__}",
        "run": config.run.name,
        "base": {
            "name_or_path": base,
            "revision": config.model.revision,
            "fingerprint": fingerprint(base),
        },
        "lora": config.model.lora.model_dump(mode="json") if config.model.lora else None,
        "precision": config.train.precision,
        "attention": config.model.attention,
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "max_explanation_tokens": config.data.max_explanation_tokens,
        "predict": {
            "max_new_tokens": config.predict.max_new_tokens,
            "token_budget": config.predict.token_budget,
        },
        "columns": config.data.model_dump(mode="json", include=set(_COLUMNS)),
    }
    _seal(staging, manifest)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)


def set_calibrator(folder: Path, calibrator: Calibrator, threshold: float | None) -> None:
    """Gives a bundle another calibrator and operating threshold."""
    manifest = read_manifest(folder)
    write_json(folder / "calibrator.json", {**calibrator.to_json(), "threshold": threshold})
    _seal(folder, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Verifies a bundle's files and returns its manifest, without loading a weight.

    Raises:
        BundleError: it is no bundle, of another format, a file is missing, altered, added, of a kind that can run
            code, or a link.
    """
    manifest = read_json(folder / _MANIFEST)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise BundleError(f"{folder}: format {manifest.get('format')!r}, this program reads {FORMAT}")
    present = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{folder}: {name} is a link; a bundle holds plain files")
        if path.is_file() and name != _MANIFEST:
            present[name] = path
    for name in sorted(manifest["files"].keys() | present.keys()):
        if name not in present:
            raise BundleError(f"{folder}: {name} is missing; copy the bundle whole")
        if name not in manifest["files"] or Path(name).suffix not in _SAFE:
            raise BundleError(f"{folder}: {name} does not belong to the bundle")
        if sha256_of(present[name]) != manifest["files"][name]:
            raise BundleError(f"{folder}: {name} was altered after the bundle was written (sha256 differs)")
    return manifest


def read_task(folder: Path) -> Task:
    """The task of a bundle. Raises BundleError."""
    try:
        return Task.model_validate(read_json(folder / "task.json"))
    except ValidationError as error:
        raise BundleError(f"{folder}: task.json is not as this program writes it ({error})") from None


def bundle_columns(manifest: dict[str, Any], overrides: Sequence[str]) -> Data:
    """The columns that the model was trained on, with overrides as `--data.text_column note`.

    Raises:
        ConfigError: an unknown column setting.
        BundleError: the manifest names none.
    """
    columns = manifest.get("columns")
    if not isinstance(columns, dict):
        raise BundleError("manifest.json: columns are missing")
    source = ConfigSource(tree={"data": dict(columns)}, places={(): "bundle"})
    apply_overrides(source, overrides)
    try:
        return Data.model_validate({**source.tree["data"], "explanation_column": None})
    except ValidationError as error:
        raise ConfigError(f"--data: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None


def load_bundle(
    folder: Path, *, device: torch.device, base: str | None = None, trust_remote_code: bool = False
) -> Bundle:
    """Verifies and loads a bundle.

    Args:
        folder: the bundle.
        device: where the model goes.
        base: folder or name of the backbone where it is no longer at the place that the manifest names.
        trust_remote_code: run Python code that comes with the backbone; a bundle cannot ask for it.

    Raises:
        BundleError: see `read_manifest`; or the base model is missing or another one, or weights do not fit.
    """
    manifest = read_manifest(folder)
    try:
        task = read_task(folder)
        place = base or manifest["base"]["name_or_path"]
        model = Model.model_validate(
            {
                "name_or_path": place,
                "revision": manifest["base"]["revision"],
                "trust_remote_code": trust_remote_code,
                "lora": manifest["lora"],
                "attention": manifest["attention"],
            }
        )
        limits = {key: manifest[key] for key in ("max_prompt_tokens", "max_explanation_tokens")}
        dtype = DTYPES[manifest["precision"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise BundleError(f"{folder}: manifest or task is not as this program writes them ({error})") from None
    if model.lora is not None and fingerprint(place) != manifest["base"]["fingerprint"]:
        raise BundleError(
            f"{folder}: {place} is not the base model that the adapter was trained on (fingerprint differs)"
        )
    try:
        dual = _load_model(folder, model, len(task.labels), dtype, device)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise BundleError(f"{folder}: weights do not load ({type(error).__name__}: {error})") from None
    calibration = read_json(folder / "calibrator.json")
    threshold = calibration.pop("threshold", None)
    tokenizer = RowTokenizer(load_tokenizer(Model(name_or_path="."), str(folder / "tokenizer")), task, **limits)
    return Bundle(folder, manifest, task, dual, tokenizer, Calibrator.from_json(calibration), threshold)


def _load_model(folder: Path, model: Model, num_labels: int, dtype: torch.dtype, device: torch.device) -> DualHead:
    if model.lora is None:
        backbone = load_backbone(model, str(folder / "model"), dtype=dtype)
    else:
        backbone = add_new_adapter(load_backbone(model, str(model.name_or_path), dtype=dtype), model.lora, seed=0)
        saved = {name: w.to(dtype) for name, w in load_file(folder / "adapter" / "adapter_model.safetensors").items()}
        wanted = {n.replace(".default.", "."): p for n, p in backbone.named_parameters() if p.requires_grad}
        if {n: w.shape for n, w in saved.items()} != {n: p.shape for n, p in wanted.items()}:
            raise BundleError(f"{folder}: the adapter's weights are not those of its configuration")
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(saved[name])
    head = ClassificationHead(backbone.config.get_text_config().hidden_size, num_labels, seed=0).to(dtype)
    head.load_state_dict(load_file(folder / "head.safetensors"))
    return DualHead(backbone, head).to(device).eval().requires_grad_(False)


def _adapter_config(config: RunConfig, base: str) -> dict[str, Any]:
    """What PEFT needs to read the adapter by itself."""
    assert config.model.lora is not None
    lora = config.model.lora
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.target_modules,
        "bias": "none",
        "inference_mode": True,
    }


def _refuse_broken(weights: dict[str, torch.Tensor]) -> None:
    if not any(name.startswith("head.") for name in weights):
        raise BundleError("no classification head among the trained weights")
    for name, weight in weights.items():
        if weight.numel() == 0 or not torch.isfinite(weight).all():
            raise BundleError(f"trained weight {name} of shape {tuple(weight.shape)} is empty or not finite")
    for part in ("head.", "backbone."):
        if not any(weight.count_nonzero() for name, weight in weights.items() if name.startswith(part)):
            raise BundleError(f"all trained weights of the {part[:-1]} are zero")


def _seal(folder: Path, manifest: dict[str, Any]) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _MANIFEST)
    manifest["files"] = {p.relative_to(folder).as_posix(): sha256_of(p) for p in files}
    write_json(folder / _MANIFEST, manifest)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
