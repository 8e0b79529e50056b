"""The files of a bundle, sealed by a manifest, and the part of them that may be exchanged: how it decides. No torch.

A calibrator is right for one model. It carries the hash of all that decides the model's logits, and a bundle whose
weights, prompt or labels are others refuses it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.errors import BundleError
from clsgen_dist.integrity import read_json, sha256_of, write_json

FORMAT = 2
MANIFEST = "manifest.json"
CALIBRATOR = "calibrator.json"
#: Where the manifest holds the hash of a calibrator that is being exchanged.
_COMING = "coming_calibrator_sha256"
#: What a manifest says of where probabilities come from: the classification head, or the words of the verdicts. Absent
#: from bundles that were written before there was a choice; those have heads.
PROBABILITY, HEAD, VERDICT = "probability", "head", "verdict"
SAFE = {".json", ".safetensors", ".txt", ".model", ".jinja", ".md"}
#: Where what may stand, so that no library finds a file of its own that it follows elsewhere.
_PLACES = re.compile(
    r"(task|calibrator)\.json|(head|trained_on)\.safetensors|adapter/adapter_(config\.json|model\.safetensors)"
    r"|(model|tokenizer)/(?!adapter_)[\w.-]+"
)
#: Bytes of the header of a safetensors file, at most; that of a model of 100,000 tensors has 10 MB.
_MOST_HEADER_BYTES = 64_000_000

#: Fact of a decision that a finished bundle was given later, not by its training.
RECALIBRATED = "launchers/calibrate.py"


class _Base(BaseModel):
    model_config = ConfigDict(strict=True)
    name_or_path: str = Field(min_length=1)
    revision: str | None = None
    fingerprint: str


class _Manifest(BaseModel):
    """The form of a manifest: what is read of it without a further look."""

    model_config = ConfigDict(strict=True)
    files: dict[str, str]
    base: _Base
    precision: Literal["bf16", "fp32"]
    max_prompt_tokens: int = Field(ge=1, le=10_000_000)
    max_explanation_tokens: int = Field(ge=1, le=10_000_000)
    probability: Literal["head", "verdict"] = "head"
    columns: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None
    trust_remote_code: Literal[False] = False  # whoever loads a bundle decides that


@dataclass(frozen=True)
class Decision:
    """From logits to an answer.

    Attributes:
        calibrator: from head logits to probabilities.
        threshold: probability above which the last of two labels is predicted; None: the largest one decides.
        facts: how both were found: candidates, rule, interval, rows. For people; nothing depends on them.
    """

    calibrator: Calibrator
    threshold: float | None
    facts: Mapping[str, Any] = field(default_factory=dict)


def set_decision(folder: Path, decision: Decision) -> None:
    """Gives a bundle another calibrator and operating threshold; nothing else of it is touched.

    Raises:
        BundleError: see `read_json`.
    """
    manifest = read_json(folder / MANIFEST)
    content = {
        "calibrator": decision.calibrator.to_json(),
        "threshold": decision.threshold,
        "model_sha256": model_hash(manifest),
        "facts": dict(decision.facts),
    }
    # A process may die anywhere here. What is half written lies beside the bundle, and the manifest knows the hash of
    # the file that comes before it comes.
    staging = folder.with_name(f".{folder.name}.staging.json")
    write_json(staging, content)
    digest = sha256_of(staging)
    coming = staging.with_name(f"{staging.name}.manifest")
    write_json(coming, manifest | {_COMING: digest})
    os.replace(coming, folder / MANIFEST)
    os.replace(staging, folder / CALIBRATOR)
    manifest["files"][CALIBRATOR] = digest
    manifest.pop(_COMING, None)
    write_json(staging, manifest)
    os.replace(staging, folder / MANIFEST)


def read_decision(folder: Path, manifest: Mapping[str, Any], num_labels: int) -> Decision:
    """How a bundle decides.

    Args:
        folder: the bundle.
        manifest: its manifest, verified.
        num_labels: labels of its task.

    Raises:
        BundleError: the file is not as this program writes it, or was fitted to another model, prompt or order of
            labels.
    """
    content = read_json(folder / CALIBRATOR)
    if set(content) != {"calibrator", "threshold", "model_sha256", "facts"} or not isinstance(content["facts"], dict):
        raise BundleError(f"{folder}: {CALIBRATOR} is not as this program writes it; run launchers/calibrate.py")
    if content["model_sha256"] != model_hash(manifest):
        raise BundleError(
            f"{folder}: its calibrator was fitted to another model, prompt or order of labels (sha256 differs); "
            "calibrate it again with launchers/calibrate.py --bundle ... --data ..."
        )
    calibrator, threshold = Calibrator.from_json(content["calibrator"]), content["threshold"]
    if calibrator.num_labels not in (None, num_labels):
        raise BundleError(f"{folder}: its calibrator is of {calibrator.num_labels} labels, its task of {num_labels}")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | None):
        raise BundleError(f"{folder}: its threshold is {threshold!r}, expected a number or null")
    if threshold is not None and (num_labels != 2 or not 0 <= threshold <= 1):
        raise BundleError(
            f"{folder}: its threshold is {threshold!r}, expected 0 to 1, or null with {num_labels} labels"
        )
    return Decision(calibrator, threshold, content["facts"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Verifies a bundle's files and returns its manifest, without loading a weight.

    Raises:
        BundleError: it is no bundle, of another format, a file is missing, altered, added, of a kind that can run
            code, or a link.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") == FORMAT and not isinstance(manifest.get("files"), dict):
        raise BundleError(f"{folder}: manifest.json names no files with their sha256; copy the bundle whole")
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{folder}: format {manifest.get('format')!r}, this program reads {FORMAT}; train again, or use the "
            f"version that wrote it ({manifest.get('written_by', 'unknown')})"
        )
    present = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{folder}: {name} is a link; a bundle holds plain files")
        if not path.is_file() and not path.is_dir():
            raise BundleError(f"{folder}: {name} is no plain file, but a pipe or a device")
        if path.is_file() and name != MANIFEST:
            present[name] = path
    _check_form(folder, manifest)
    for name in sorted(manifest["files"].keys() | present.keys()):
        if name not in present:
            raise BundleError(f"{folder}: {name} is missing; copy the bundle whole")
        if name not in manifest["files"] or Path(name).suffix not in SAFE or not _PLACES.fullmatch(name):
            raise BundleError(f"{folder}: {name} does not belong to the bundle")
        expected = {manifest["files"][name], manifest.get(_COMING) if name == CALIBRATOR else None}
        if sha256_of(present[name]) not in expected:
            raise BundleError(f"{folder}: {name} was altered after the bundle was written (sha256 differs)")
    return manifest


def _check_form(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuses a manifest that this program does not write. Raises BundleError."""
    for name in manifest["files"]:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise BundleError(f"{folder}: its manifest names {name[:80]!r}, which is no place in it")
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise BundleError(
            f"{folder}: manifest.json is not as this program writes it ({place}: {fault['msg']})"
        ) from None


def with_safe_weights(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest, once the head of each file of weights was looked at, before a library reads it.

    Raises:
        BundleError: a file is no safetensors, as a pickle is none, or says that its header is enormous.
    """
    for name in manifest["files"]:
        if not name.endswith(".safetensors"):
            continue
        with (folder / name).open("rb") as file:
            start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        longest = min(_MOST_HEADER_BYTES, (folder / name).stat().st_size - 8)
        if len(start) < 9 or length > longest or start[8:] != b"{":
            raise BundleError(f"{folder}: {name}: expected safetensors, found another kind of file or a part of one")
    return manifest


def model_hash(manifest: Mapping[str, Any]) -> str:
    """sha256 over all that decides a bundle's logits: weights, base model, task, tokenizer, limits of a prompt."""
    files = {name: digest for name, digest in manifest["files"].items() if name != CALIBRATOR}
    decisive = {name: manifest.get(name) for name in ("base", "lora", "precision", "max_prompt_tokens")}
    if manifest.get(PROBABILITY) == VERDICT:  # only then, so that the calibrators of older bundles still fit
        decisive[PROBABILITY] = VERDICT
    # Where the base model lies says nothing of what it is.
    decisive["base"] = {key: value for key, value in (manifest.get("base") or {}).items() if key != "name_or_path"}
    return hashlib.sha256(json.dumps([files, decisive], sort_keys=True).encode()).hexdigest()


def seal(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest with the hashes of all files.

    Args:
        folder: the bundle.
        manifest: what else it says.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    manifest["files"] = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_json(folder / MANIFEST, manifest)
