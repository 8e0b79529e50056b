"""Manifests as kubectl builds them, and the schemas of Kubernetes and KubeRay to hold them against."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from clsgen_dist.manifests.objects import Manifest, read_manifests

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(path.parent.name for path in (ROOT / "k8s" / "overlays").glob("*/kustomization.yaml"))
COMPONENTS = sorted(path.parent.name for path in (ROOT / "k8s" / "components").glob("*/kustomization.yaml"))

#: The newest Kubernetes that kubernetes-validate has schemas of.
_KUBERNETES = "1.37"
#: Definitions of KubeRay v1.7.0; they are not part of this repository.
_KUBERAY = ROOT.parent / "shared" / "kuberay"
#: kubectl of the same environment, which the package index brings.
KUBECTL = Path(sys.executable).parent / "kubectl"


def build(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize FOLDER` prints, as objects."""
    built = subprocess.run([str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    return read_manifests(built.stdout)


@functools.cache
def _overlay(name: str) -> list[Manifest]:
    return build(ROOT / "k8s" / "overlays" / name)


def overlay(name: str) -> list[Any]:
    """An overlay's objects, for the caller to change."""
    return copy.deepcopy(_overlay(name))


def with_components(folder: Path, name: str, *components: str) -> list[Manifest]:
    """An overlay with options, built in a folder of its own."""
    text = {
        "resources": [os.path.relpath(ROOT / "k8s" / "overlays" / name, folder)],
        "components": [os.path.relpath(ROOT / "k8s" / "components" / component, folder) for component in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return build(folder)


def schema_faults(manifest: Manifest) -> list[str]:
    """What the schema of an object's kind says against it; unknown fields are faults."""
    if manifest["apiVersion"].startswith("ray.io/"):
        return [f"{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in _kuberay(manifest).iter_errors(manifest)]
    try:
        kubernetes_validate.validate(manifest, _KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def _kuberay(manifest: Manifest) -> Draft202012Validator:
    path = _KUBERAY / f"ray.io_{manifest['kind'].lower()}s.yaml"
    if not path.is_file():
        pytest.skip(f"no {path}: the definitions of KubeRay v1.7.0, ray-operator/config/crd/bases of its repository")
    return _validator(path, manifest["apiVersion"].rpartition("/")[2])


@functools.cache
def _validator(path: Path, version: str) -> Draft202012Validator:
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    versions = {entry["name"]: entry["schema"]["openAPIV3Schema"] for entry in definition["spec"]["versions"]}
    return Draft202012Validator(_hardened(versions[version]))


def _hardened(schema: Any) -> Any:
    """An OpenAPI schema as JSON Schema: unknown fields are errors; int-or-string and nullable say what they mean."""
    if isinstance(schema, list):
        return [_hardened(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _hardened(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
        if found.get("type") == "object" and {"kind", "apiVersion"} <= found["properties"].keys():
            found["properties"]["metadata"] = {"type": "object"}
    if found.get("x-kubernetes-int-or-string"):
        found.pop("anyOf", None)
        found["type"] = ["integer", "string"]
    if found.get("nullable") and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def walk(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from walk(inner)
