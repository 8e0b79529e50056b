"""A finished model as a folder: written, verified, loaded.

    bundle/
      manifest.json      base model, precision, limits, sha256 of every other file
      task.json          question, labels, templates
      calibrator.json    map from logits to probabilities, operating threshold, what both were fitted on
      trained_on.safetensors   hashes of the texts that the model has seen, so that nobody calibrates on them
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

import numpy as np
import torch
from huggingface_hub import save_torch_state_dict
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clsgen_dist import __version__
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Data, Model, Task
from clsgen_dist.config.source import ConfigSource, apply_overrides
from clsgen_dist.data.tokens import RowTokenizer, TokenizerLike, load_tokenizer
from clsgen_dist.errors import BundleError, ClsGenError, ConfigError
from clsgen_dist.integrity import fingerprint, read_json, write_json
from clsgen_dist.model.attention import attention_again
from clsgen_dist.model.build import DTYPES, add_new_adapter, load_backbone, read_backbone_config
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.heads import ClassificationHead
from clsgen_dist.model.weights import check_adapter, check_whole, finite_weights, refuse_broken
from clsgen_dist.sealed import (
    FORMAT,
    HEAD,
    PROBABILITY,
    VERDICT,
    Decision,
    read_decision,
    read_manifest,
    seal,
    set_decision,
    with_safe_weights,
)

_COLUMNS = (
    *("text_column", "text_template", "label_column", "label_map", "id_column", "group_column"),
    *("allow_shared_groups", "reference_columns"),
)


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

    @property
    def reads_verdicts(self) -> bool:
        """Whether the model's own words give the probabilities, as of a bundle whose head learned nothing."""
        return self.manifest.get(PROBABILITY) == VERDICT


def write_bundle(
    folder: Path,
    config: RunConfig,
    base: str,
    weights: dict[str, torch.Tensor],
    trained_on: np.ndarray,
) -> None:
    """Writes a bundle beside its place and moves it there when it is whole.

    Args:
        folder: its place; what stands there is replaced.
        config: the run.
        base: folder or Hub name of the backbone.
        weights: trainable weights by their names in DualHead.
        trained_on: hashes of the texts that the model has seen, see `text_hash`; shape (N,), uint64.

    Raises:
        BundleError: a weight is empty, not finite, or all of an adapter is zero, as when partitioned weights are saved.
    """
    head = {name.removeprefix("head."): w for name, w in weights.items() if name.startswith("head.")}
    body = {name.removeprefix("backbone."): w for name, w in weights.items() if name.startswith("backbone.")}
    refuse_broken(weights)
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
    save_file({"texts": torch.from_numpy(trained_on)}, staging / "trained_on.safetensors")
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
        PROBABILITY: VERDICT if config.objective.w_cls == 0 else HEAD,
        "attention": config.model.attention,
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "max_explanation_tokens": config.data.max_explanation_tokens,
        "predict": {
            "max_new_tokens": config.predict.max_new_tokens,
            "token_budget": config.predict.token_budget,
        },
        "columns": config.data.model_dump(mode="json", include=set(_COLUMNS)),
    }
    seal(staging, manifest)
    set_decision(staging, Decision(IDENTITY, None))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(staging, folder)


def read_task(folder: Path) -> Task:
    """The task of a bundle. Raises BundleError."""
    try:
        return Task.model_validate(read_json(folder / "task.json"))
    except ValidationError as error:
        raise BundleError(f"{folder}: task.json is not as this program writes it ({error})") from None


def bundle_columns(manifest: dict[str, Any], overrides: Sequence[str], *, with_explanations: bool = False) -> Data:
    """The columns that the model was trained on, with overrides as `--data.text_column note`.

    Args:
        manifest: of the bundle.
        overrides: words of the command line.
        with_explanations: also read reasons that people wrote, to compare with; else their column is left alone.

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
        return Data.model_validate(source.tree["data"] | ({} if with_explanations else {"explanation_column": None}))
    except ValidationError as error:
        raise ConfigError(f"--data: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None


def trained_on(folder: Path) -> np.ndarray:
    """Hashes of the texts that a bundle's model has seen, ascending; shape (N,), uint64."""
    try:
        hashes = np.asarray(load_file(folder / "trained_on.safetensors")["texts"].numpy())
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise BundleError(f"{folder}: trained_on.safetensors does not load ({type(error).__name__})") from None
    if hashes.ndim != 1 or hashes.dtype != np.uint64:
        raise BundleError(f"{folder}: trained_on.safetensors does not hold one hash a text")
    return hashes


def load_bundle(
    folder: Path,
    *,
    device: torch.device,
    base: str | None = None,
    trust_remote_code: bool = False,
    with_decision: bool = True,
) -> Bundle:
    """Verifies and loads a bundle.

    Args:
        folder: the bundle.
        device: where the model goes.
        base: folder or name of the backbone where it is no longer at the place that the manifest names.
        trust_remote_code: run Python code that comes with the backbone; a bundle cannot ask for it.
        with_decision: read calibrator and threshold; False leaves logits as they are, for whoever fits both anew.

    Raises:
        BundleError: see `read_manifest`; or the base model is missing or another one, or weights do not fit.
    """
    manifest = with_safe_weights(folder, read_manifest(folder))
    try:
        task = read_task(folder)
        place = base or manifest["base"]["name_or_path"]
        dtype = DTYPES[manifest["precision"]]
        model = Model.model_validate(
            {
                "name_or_path": place,
                "revision": manifest["base"]["revision"],
                "trust_remote_code": trust_remote_code,
                "lora": manifest["lora"],
                "attention": attention_again(manifest["attention"], dtype, device),
            }
        )
        limits = {key: manifest[key] for key in ("max_prompt_tokens", "max_explanation_tokens")}
    except (KeyError, TypeError, ValidationError) as error:
        raise BundleError(f"{folder}: manifest or task is not as this program writes them ({error})") from None
    if model.lora is not None and fingerprint(place) != manifest["base"]["fingerprint"]:
        raise BundleError(
            f"{folder}: {place} is not the base model that the adapter was trained on (fingerprint differs)"
        )
    try:
        dual = _load_model(folder, model, len(task.labels), dtype, device)
    except ClsGenError:
        raise
    except Exception as error:  # noqa: BLE001 - a bundle may say anything, and libraries then raise anything
        raise BundleError(
            f"{folder}: weights do not load ({type(error).__name__}: {' '.join(str(error).split())[:400]})"
        ) from None
    decision = read_decision(folder, manifest, len(task.labels)) if with_decision else Decision(IDENTITY, None)
    tokenizer = RowTokenizer(_load_tokenizer(folder), task, **limits)
    return Bundle(folder, manifest, task, dual, tokenizer, decision.calibrator, decision.threshold)


def _load_tokenizer(folder: Path) -> TokenizerLike:
    try:
        return load_tokenizer(Model(name_or_path="."), str(folder / "tokenizer"))
    except Exception as error:  # noqa: BLE001 - as above; tokenizers raises plain Exception
        raise BundleError(f"{folder}: its tokenizer does not load ({' '.join(str(error).split())[:400]})") from None


def _load_model(folder: Path, model: Model, num_labels: int, dtype: torch.dtype, device: torch.device) -> DualHead:
    if model.lora is None:
        check_whole(model, folder / "model")
        backbone = load_backbone(model, str(folder / "model"), dtype=dtype)
    else:
        path = folder / "adapter" / "adapter_model.safetensors"
        check_adapter(path, model.lora.rank)
        saved = {name: w.to(dtype) for name, w in finite_weights(path).items()}
        backbone = add_new_adapter(load_backbone(model, str(model.name_or_path), dtype=dtype), model.lora, seed=0)
        wanted = {n.replace(".default.", "."): p for n, p in backbone.named_parameters() if p.requires_grad}
        if {n: w.shape for n, w in saved.items()} != {n: p.shape for n, p in wanted.items()}:
            raise BundleError(f"{folder}: the adapter's weights are not those of its configuration")
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(saved[name])
    head = ClassificationHead(backbone.config.get_text_config().hidden_size, num_labels, seed=0).to(dtype)
    head.load_state_dict(finite_weights(folder / "head.safetensors"))
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


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
