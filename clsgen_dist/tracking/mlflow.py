"""MLflow as a Tracker: one MLflow run a training run, the same one again after a resume.

Uses the client, never the global "active run": several runs may live in one process, and nothing is printed.
Step metrics wait in memory and go out a few times a minute, so training does not wait for the server at every step.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A server that is gone must not hold up every rank for minutes; set before mlflow reads them.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

import mlflow
from mlflow.entities import DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException

from clsgen_dist.errors import TrackingError

for _name in ("alembic", "mlflow"):
    logging.getLogger(_name).setLevel(logging.ERROR)

_LOG = logging.getLogger("clsgen_dist.tracking")
_SECONDS_BETWEEN_SENDS = 5.0
_MOST_A_BATCH = 1000  # MLflow's own limit
_LONGEST_PARAM = 6000
#: Name that MLflow itself has for it.
_PARENT_TAG = "mlflow.parentRunId"
#: The UI opens such an experiment on runs and their metrics, not on traces of chats.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class MlflowTracker:
    """A Tracker that writes to an MLflow server or database."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        *,
        run_id: str | None,
        artifacts: Path | None,
        parent_run_id: str | None = None,
    ) -> None:
        """Opens a run, or opens again the one of `run_id`.

        Args:
            uri: MLflow tracking address.
            experiment: its name; made where it is absent.
            run_name: name of the run.
            run_id: run to go on with, or None for a new one.
            artifacts: where a new experiment keeps files, for a database without a server; None lets MLflow decide.
            parent_run_id: run that a new one is a child of, or None.

        Raises:
            TrackingError: the server or database cannot be used.
        """
        self.uri = uri
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            known = run_id if run_id and self._reopen(run_id) else None
            self.run_id = known or self._open(experiment, run_name, artifacts, parent_run_id)
        except (MlflowException, OSError) as error:
            reason = str(error).strip().splitlines()[0][:300]
            raise TrackingError(
                f"tracking.uri {uri}: cannot be used ({reason}); start the server, or mend the address"
            ) from None
        self._waiting: list[Metric] = []
        self._last_send = time.monotonic()

    def _reopen(self, run_id: str) -> bool:
        try:
            self._client.get_run(run_id)
        except MlflowException:
            return False  # the database was cleared since
        self._client.update_run(run_id, status="RUNNING")
        return True

    def _open(self, experiment: str, run_name: str, artifacts: Path | None, parent_run_id: str | None) -> str:
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            place = artifacts.as_uri() if artifacts else None
            experiment_id = self._client.create_experiment(experiment, artifact_location=place, tags=_EXPERIMENT_TAGS)
        else:
            experiment_id = found.experiment_id
        tags = {_PARENT_TAG: parent_run_id} if parent_run_id else {}
        return str(self._client.create_run(experiment_id, run_name=run_name, tags=tags).info.run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Notes settings; a value too long for MLflow is cut here and whole in the config file."""
        entries = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in params.items()]
        for start in range(0, len(entries), 100):
            self._try(lambda some: self._client.log_batch(self.run_id, params=some), entries[start : start + 100])

    def log_dataset(self, split: str, path: Path, digest: str, num_rows: int) -> None:
        """Notes which rows a split was."""
        entity = mlflow.entities.Dataset(
            name=path.stem,
            digest=digest[:36],
            source_type="local",
            source=f'{{"uri": "{path}"}}',
            schema=None,
            profile=f'{{"num_rows": {num_rows}}}',
        )
        given = DatasetInput(entity, [InputTag("mlflow.data.context", split)])
        self._try(lambda inputs: self._client.log_inputs(self.run_id, datasets=inputs), [given])

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        now = int(time.time() * 1000)
        self._waiting += [Metric(key, value, now, step) for key, value in metrics.items() if math.isfinite(value)]
        if time.monotonic() - self._last_send > _SECONDS_BETWEEN_SENDS:
            self.flush()

    def log_artifacts(self, path: Path, folder: str) -> None:
        if path.is_dir():
            self._try(lambda p: self._client.log_artifacts(self.run_id, str(p), folder), path)
        else:
            self._try(lambda p: self._client.log_artifact(self.run_id, str(p), folder or None), path)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._try(lambda pair: self._client.set_tag(self.run_id, *pair), (key, value))

    def close(self, status: str) -> None:
        self.flush()
        self._try(lambda s: self._client.set_terminated(self.run_id, s), status)

    def flush(self) -> None:
        """Sends what is waiting; what does not get through is kept for the next time."""
        while self._waiting:
            some = self._waiting[:_MOST_A_BATCH]
            if not self._try(lambda metrics: self._client.log_batch(self.run_id, metrics=metrics), some):
                break  # kept, and sent with the next ones
            del self._waiting[: len(some)]
        self._last_send = time.monotonic()

    def _try(self, call: Any, argument: Any) -> bool:
        """A number that could not be sent must not cost a training that went well."""
        try:
            call(argument)
        except (MlflowException, OSError) as error:
            _LOG.warning("MLflow at %s: %s", self.uri, str(error).strip().splitlines()[0][:200])
            return False
        return True


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout that a folder stands in, with `-dirty` where it was changed since; None without git."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
