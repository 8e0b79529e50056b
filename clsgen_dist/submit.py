"""A job for `ray job submit`: its configuration is read here first, and what goes along is measured and named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clsgen_dist.config.passed_on import job_environment
from clsgen_dist.config.run import RunConfig, load_config
from clsgen_dist.errors import ConfigError
from clsgen_dist.launch import config_path, parse_words
from clsgen_dist.upload import Upload, check_upload, survey_upload

LAUNCHERS = ("ray_train", "compare", "explain")
_MOST_MIB = 20.0
_OPTIONS = ("address", "launcher", "max_upload_mib", "env")


@dataclass(frozen=True)
class SubmitRequest:
    """What is handed in.

    Attributes:
        address: of the cluster's dashboard.
        launcher: name of the launcher.
        config: file of the configuration, relative to the checkout.
        overrides: words that follow it.
        asked: names of further environment variables.
        upload: files that go along.
    """

    address: str
    launcher: str
    config: str
    overrides: tuple[str, ...]
    asked: tuple[str, ...]
    upload: Upload


def submit_request(words: Sequence[str], checkout: Path) -> SubmitRequest:
    """Reads the command line of launchers/submit.py and checks all that can be checked before anything is sent.

    Raises:
        ConfigError: an option or the configuration cannot be used, a path is one that only this machine has, or too
            much would be uploaded.
    """
    found, overrides = parse_words(words, _OPTIONS)
    if "address" not in found:
        raise ConfigError("--address http://HEAD:8265 is missing: the dashboard of the Ray cluster")
    launcher = found.get("launcher", "ray_train")
    if launcher not in LAUNCHERS:
        raise ConfigError(f"--launcher: found {launcher!r}, expected one of {', '.join(LAUNCHERS)}")
    path = Path(config_path(found)).absolute()
    if not path.is_relative_to(checkout):
        raise ConfigError(f"--config {path}: not in {checkout}, which is what the job gets; put it there")
    upload = survey_upload(checkout)
    if launcher != "compare":  # whose file names the configuration instead of being one
        _check_paths(load_config(path, overrides), upload)
    inside = path.relative_to(checkout).as_posix()
    if inside not in upload.files:
        raise ConfigError(f"--config {inside}: .gitignore or .rayignore leaves it out of what is uploaded")
    check_upload(upload, most_mib=_mebibytes(found))
    asked = tuple(name for name in found.get("env", "").split(",") if name)
    return SubmitRequest(found["address"], launcher, inside, tuple(overrides), asked, upload)


def job_command(request: SubmitRequest, checkout: Path, environment: dict[str, str]) -> list[str]:
    """The words of `ray job submit`.

    Raises:
        ConfigError: a variable that was asked for holds a secret, or is not set.
    """
    runtime = {"working_dir": str(checkout), "env_vars": job_environment(environment, request.asked)}
    return [
        *("ray", "job", "submit", "--address", request.address, "--runtime-env-json", json.dumps(runtime), "--"),
        *("python", f"launchers/{request.launcher}.py", "--config", request.config, *request.overrides),
    ]


def _check_paths(config: RunConfig, upload: Upload) -> None:
    """The job stands in a copy of what is uploaded, on one node, which is gone when it ends."""
    if config.run.storage is None and not Path(config.run.output_dir).is_absolute():
        raise ConfigError(
            f"run.output_dir {config.run.output_dir} is relative: the job's folder is one node's and is not kept; give "
            "the path of a folder that every node sees, or an object store in run.storage"
        )
    data = config.data
    named = {f"data.{name}": getattr(data, name) for name in ("train", "validation", "calibration", "test")}
    named |= {"data.general_text": data.general_text, "model.name_or_path": config.model.name_or_path}
    for setting, value in {**named, "train.deepspeed": config.train.deepspeed}.items():
        if not value or Path(value).is_absolute():
            continue  # a path of the cluster
        # What is not here at all is a name on the Hub.
        if not all(upload.holds(path) for path in upload.folder.glob(value)):
            raise ConfigError(
                f"{setting} {value} is on this machine and not uploaded; put it where every node sees it, and give the "
                "path there"
            )


def _mebibytes(found: dict[str, str]) -> float:
    text = found.get("max_upload_mib", str(_MOST_MIB))
    try:
        most = float(text)
    except ValueError:
        most = 0.0
    if not most > 0:
        raise ConfigError(f"--max-upload-mib: found {text!r}, expected MiB above 0")
    return most
