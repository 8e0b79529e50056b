"""Bundles in MLflow's model registry: registered with signature, example and tags, promoted by alias, fetched again."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Map

from clsgen_dist import __version__
from clsgen_dist.bundle import read_task
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.errors import ConfigError, TrackingError
from clsgen_dist.integrity import sha256_of
from clsgen_dist.sealed import MANIFEST, read_decision, read_manifest
from clsgen_dist.serve.pyfunc import BUNDLE, registered_version
from clsgen_dist.tracking.journal import Record, record_path

for _name in ("alembic", "mlflow"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,99}")
_EXPERIMENT = "clsgen_dist models"
_EXAMPLE = {"text": "The text to decide on."}


@dataclass(frozen=True)
class RegisterRequest:
    """What is registered, and as what.

    Attributes:
        bundle: folder of the bundle.
        name: of the registered model.
        alias: that the new version is promoted to, or None.
        uri: MLflow tracking address.
    """

    bundle: Path
    name: str
    alias: str | None
    uri: str

    def __post_init__(self) -> None:
        for option, value in (("--name", self.name), ("--alias", self.alias)):
            if value is not None and not _NAME.fullmatch(value):
                raise ConfigError(f"{option}: found {value!r}, expected letters, digits, '_', '.', '-' or spaces")


def register_bundle(request: RegisterRequest) -> str:
    """Registers a bundle as a new version of a model; returns the version.

    Raises:
        BundleError: it is no bundle, or an altered one; nothing is registered.
        TrackingError: the server or database cannot be used.
    """
    manifest = read_manifest(request.bundle)
    task = read_task(request.bundle)
    tags = bundle_tags(request.bundle, manifest, len(task.labels))
    try:
        with _tracked_at(request.uri):
            mlflow.set_experiment(experiment_id=_experiment(request.uri))
            logged = mlflow.pyfunc.log_model(
                name=re.sub(r"[^A-Za-z0-9_-]", "-", request.name),
                python_model=str(Path(__file__).with_name("model_code.py")),
                artifacts={BUNDLE: str(request.bundle.absolute())},
                signature=signature(),
                input_example=([_EXAMPLE], {"explain": True}),
                pip_requirements=[f"clsgen_dist=={__version__}"],
                tags=tags,
            )
            client = mlflow.MlflowClient()
            version = mlflow.register_model(logged.model_uri, request.name, tags=tags).version
            if request.alias is not None:
                client.set_registered_model_alias(request.name, request.alias, version)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"tracking.uri {request.uri}: the bundle was not registered ({_first_line(error)}); start the server, or "
            "mend the address"
        ) from None
    return str(version)


def signature() -> ModelSignature:
    """What goes in and out: a text and perhaps an id; probability by label, decision, explanation."""
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "text"), ColSpec(DataType.string, "id", required=False)]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "id"),
                ColSpec(DataType.string, "predicted"),
                ColSpec(Map(DataType.double), "probability"),
                ColSpec(DataType.string, "explanation", required=False),
                ColSpec(DataType.boolean, "is_cut"),
                ColSpec(DataType.boolean, "calibrated"),
                ColSpec(DataType.double, "threshold", required=False),
                ColSpec(DataType.string, "model_version"),
            ]
        ),
        # MLflow wants a default; 0 is that of the bundle.
        params=ParamSchema([ParamSpec("explain", "boolean", False), ParamSpec("max_new_tokens", "long", 0)]),
    )


def bundle_tags(folder: Path, manifest: dict[str, Any], num_labels: int) -> dict[str, str]:
    """What is known of a bundle, as tags: whether it is calibrated, its base, and what its run measured on test rows.

    Raises:
        BundleError: see `read_decision`.
    """
    decision = read_decision(folder, manifest, num_labels)
    tags = {
        "calibrated": str(not decision.calibrator.is_identity).lower(),
        "base_model": str(manifest["base"]["name_or_path"]),
        "run": str(manifest["run"]),
        "manifest_sha256": sha256_of(folder / MANIFEST),
    }
    if decision.threshold is not None:
        tags["threshold"] = f"{decision.threshold:.6g}"
    record = Record.load(record_path(folder.absolute().parent))
    if record is not None and record.run_id is not None:
        tags["run_id"] = record.run_id
    path = RunFolder(folder.absolute().parent).evaluation("test") / "metrics.json"
    if path.is_file():
        metrics = json.loads(path.read_text(encoding="utf-8"))
        is_calibrated = not decision.calibrator.is_identity
        measured = (metrics.get("threshold"), metrics.get("is_calibrated", is_calibrated))
        if measured == (decision.threshold, is_calibrated):  # else the bundle decides otherwise than it was measured
            for key in ("auroc", "ece"):
                if metrics["calibrated"].get(key) is not None:
                    tags[key] = f"{metrics['calibrated'][key]:.6g}"
    return tags


@contextmanager
def fetched(model: str, uri: str) -> Iterator[tuple[Path, str | None]]:
    """Bundle of a registered model and its NAME/VERSION, in a folder that is gone afterwards.

    Nothing of the model is executed: a bundle is read, not the code that lies beside it.

    Raises:
        TrackingError: there is no such model, it is not one of ours, or the registry cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="clsgen-model-") as scratch:
        try:
            with _tracked_at(uri):
                folder = Path(mlflow.artifacts.download_artifacts(model, dst_path=scratch))
        except (MlflowException, OSError) as error:
            raise TrackingError(f"--model {model}: cannot be had from {uri} ({_first_line(error)})") from None
        bundle = folder / "artifacts" / BUNDLE
        if not bundle.is_dir():
            raise TrackingError(f"--model {model}: holds no bundle, expected what launchers/register.py registered")
        yield bundle, registered_version(folder)


def _experiment(uri: str) -> str:
    """Experiment that registered models are logged to."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(_EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # A database has no place for files of its own; MLflow would choose the folder where the command was started.
    database = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    place = None if database is None else (Path(database).absolute().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(_EXPERIMENT, artifact_location=place))


@contextmanager
def _tracked_at(uri: str) -> Iterator[None]:
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
