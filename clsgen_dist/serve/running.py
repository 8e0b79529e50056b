"""Command lines of launchers/register.py and launchers/serve.py, and the server as a process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from clsgen_dist.errors import ConfigError
from clsgen_dist.serve.answering import open_answerer
from clsgen_dist.serve.app import MAX_BYTES, QUEUE_SIZE, TIMEOUT_S, make_app
from clsgen_dist.serve.registry import RegisterRequest, fetched
from clsgen_dist.tracking.journal import Record, record_path

#: Seconds that requests under way have when the server is asked to end.
_GRACE_SECONDS = 30


@dataclass(frozen=True)
class ServeRequest:
    """What is served, and where.

    Attributes:
        model: MLflow address of a registered model, or None.
        bundle: folder of a bundle, or None; one of the two is given.
        uri: MLflow tracking address; used with `model`.
        base: where the base model is, if not where the bundle says.
        host: address to listen at.
        port: to listen at.
        max_bytes: of a request.
        queue_size: requests that wait, at most.
        timeout_s: seconds that a request waits.
    """

    model: str | None
    bundle: Path | None
    uri: str
    base: str | None
    host: str
    port: int
    max_bytes: int
    queue_size: int
    timeout_s: int


def register_request(found: Mapping[str, str], rest: Sequence[str]) -> RegisterRequest:
    """Reads the options of launchers/register.py. Raises ConfigError."""
    _refuse(rest)
    for name in ("bundle", "name"):
        if name not in found:
            raise ConfigError(f"--{name} is missing; give --bundle FOLDER --name NAME")
    bundle = Path(found["bundle"])
    # The MLflow that the run told, where the bundle stands in a run folder.
    record = Record.load(record_path(bundle.absolute().parent))
    uri = record.uri if record is not None and "tracking.uri" not in found else _uri(found)
    return RegisterRequest(bundle, found["name"], found.get("alias"), uri)


def serve_request(found: Mapping[str, str], rest: Sequence[str]) -> ServeRequest:
    """Reads the options of launchers/serve.py. Raises ConfigError."""
    _refuse(rest)
    if ("model" in found) == ("bundle" in found):
        raise ConfigError("give either --model models:/NAME@ALIAS or --bundle FOLDER")
    return ServeRequest(
        found.get("model"),
        Path(found["bundle"]) if "bundle" in found else None,
        _uri(found) if "model" in found else "",
        found.get("base"),
        found.get("host", "127.0.0.1"),
        _number(found, "port", 5001, 65535),
        _number(found, "max_bytes", MAX_BYTES, 2**30),
        _number(found, "queue_size", QUEUE_SIZE, 10_000),
        _number(found, "timeout_s", TIMEOUT_S, 3600),
    )


def serve(request: ServeRequest) -> None:
    """Serves until it is asked to end.

    Raises:
        BundleError, TrackingError: there is nothing that can be served.
    """
    with ExitStack() as held:
        version = None
        if request.bundle is not None:
            folder = request.bundle
        else:
            assert request.model is not None
            folder, version = held.enter_context(fetched(request.model, request.uri))
        answerer = open_answerer(folder, version=version, base=request.base)
    if not answerer.is_calibrated:
        print("uncalibrated: probabilities are those of the plain softmax; see launchers/calibrate.py", flush=True)
    app = make_app(answerer, max_bytes=request.max_bytes, queue_size=request.queue_size, timeout_s=request.timeout_s)
    print(f"{answerer.version}: http://{request.host}:{request.port}/invocations", flush=True)
    uvicorn.run(
        app,
        host=request.host,
        port=request.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


def _uri(found: Mapping[str, str]) -> str:
    uri = found.get("tracking.uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ConfigError(
            "--tracking.uri is missing, and MLFLOW_TRACKING_URI is not set: the MLflow server or database"
        )
    return uri


def _number(found: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = found.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ConfigError(f"--{name.replace('_', '-')}: found {text!r}, expected a whole number from 1 to {most}")
    return int(text)


def _refuse(rest: Sequence[str]) -> None:
    if rest:
        raise ConfigError(f"{rest[0]}: unknown; --help lists the options")
