"""One run of an MLflow server or database: found or made, and added to. Nothing is tried twice here.

Every call may be made again after a failure that leaves it unclear what was done: the run carries the key of its
journal, which is looked for before a run is made; MLflow keeps (run, key, time, step, value) of a number once however
often it comes (`metric_pk` of its table `metrics`); and settings, tags, data sets and files are the same again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Set before mlflow reads them. A request that MLflow repeated by itself would make a second run where the answer to the
# first was lost, so it repeats none; `delivery` does, and looks first.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

for _name in ("alembic", "mlflow"):
    logging.getLogger(_name).setLevel(logging.ERROR)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # an outage is told once, by `delivery`

_LOG = logging.getLogger("clsgen_dist.tracking")

#: Tags of ours: the key of the journal, and how much of it the run holds.
RUN_KEY = "clsgen.run_key"
DELIVERED = "clsgen.journal_seq"
#: Name that MLflow itself has for it.
_PARENT_TAG = "mlflow.parentRunId"
#: A parent that MLflow has not made yet is named by the key of its journal.
KEY_PREFIX = "key:"
#: The UI opens such an experiment on runs and their metrics, not on traces of chats.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

#: MLflow's own limits for one request.
MOST_METRICS, MOST_PARAMS_OR_TAGS = 900, 90
LONGEST_PARAM = 6000

Item = Metric | Param | RunTag


def is_refusal(error: Exception) -> bool:
    """Whether an answer says that this very request can never succeed."""
    return isinstance(error, MlflowException) and error.get_http_status_code() in (400, 409, 422)


def is_locked_out(error: Exception) -> bool:
    """Whether the address answers, but not as an MLflow server that this user may use."""
    return isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403, 404)


def is_lost(error: Exception) -> bool:
    """Whether an answer says that the run, or its experiment, is not there (any more)."""
    if not isinstance(error, MlflowException):
        return False
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in str(error)


class RunOfService:
    """One MLflow run at one address.

    Attributes:
        run_id: None until `open` went well.
    """

    def __init__(self, uri: str) -> None:
        self.run_id: str | None = None
        self._uri = uri
        self._client: Any = None
        self._experiment_id = ""
        self._parent: str | None = None

    def open(self, header: Mapping[str, Any], known: str | None) -> int:
        """Finds the run of a journal, or makes it.

        Args:
            header: of the journal.
            known: id that the run had when it was last heard of, or None.

        Returns:
            Number of the last journal entry that the run holds; 0 for none.
        """
        self._client = self._client or mlflow.MlflowClient(tracking_uri=self._uri)
        run = self._active(known)
        self._experiment_id = run.info.experiment_id if run else self._experiment(header)
        parent = header.get("parent")
        self._parent = parent
        run = run or self._of_key(header["key"]) or self._make(header)
        if run.data.tags.get(RUN_KEY) != header["key"]:  # of an earlier version, or its journal was removed
            self._client.log_batch(run.info.run_id, tags=[RunTag(DELIVERED, "0"), RunTag(RUN_KEY, header["key"])])
            run = self._client.get_run(run.info.run_id)
        self.run_id = str(run.info.run_id)
        if _PARENT_TAG in run.data.tags:
            self._parent = None
        self.name_parent()
        return int(run.data.tags.get(DELIVERED, "0"))

    def put(self, items: list[Item], seq: int | None) -> list[str]:
        """Adds numbers, settings and tags in one request.

        Args:
            items: within MLflow's limits.
            seq: the run holds the journal up to that entry then; None where it does not yet.

        Returns:
            Names of what MLflow refuses for what it is; everything else is there.
        """
        marker = [RunTag(DELIVERED, str(seq))] if seq is not None else []
        try:
            self._client.log_batch(
                self.run_id,
                metrics=[item for item in items if isinstance(item, Metric)],
                params=[item for item in items if isinstance(item, Param)],
                tags=[item for item in items if isinstance(item, RunTag)] + marker,
            )
            return []
        except MlflowException as error:
            if is_lost(error) or not is_refusal(error):
                raise
            if len(items) > 1:
                half = len(items) // 2
                return self.put(items[:half], None) + self.put(items[half:], seq)
            if not items:
                raise
            _LOG.warning("MLflow at %s refuses %s: %s", self._uri, items[0].key, reason_of(error))
            return [items[0].key, *(self.put([], seq) if seq is not None else [])]

    def put_dataset(self, content: Mapping[str, Any]) -> None:
        """Notes which rows a split was."""
        entity = mlflow.entities.Dataset(
            name=content["name"],
            digest=content["digest"],
            source_type="local",
            source=f'{{"uri": "{content["path"]}"}}',
            schema=None,
            profile=f'{{"num_rows": {content["num_rows"]}}}',
        )
        given = DatasetInput(entity, [InputTag("mlflow.data.context", content["split"])])
        self._client.log_inputs(self.run_id, datasets=[given])

    def put_file(self, path: Path, folder: str) -> None:
        """Stores a file."""
        self._client.log_artifact(self.run_id, str(path), folder or None)

    def put_status(self, status: str, time_ms: int) -> None:
        """Says that the run is at work, or how and when it ended."""
        self.name_parent()
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status, time_ms)

    def name_parent(self) -> None:
        """Puts the run under its parent, if that is there by now."""
        parent = self._parent
        if parent and parent.startswith(KEY_PREFIX):
            found = self._of_key(parent.removeprefix(KEY_PREFIX))
            parent = found.info.run_id if found else None
        if parent:
            self._client.set_tag(self.run_id, _PARENT_TAG, parent)
            self._parent = None

    def check_answers(self) -> None:
        """Asks for the run; raises what asking raises."""
        self._client.get_run(self.run_id)

    def _active(self, run_id: str | None) -> Run | None:
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if is_lost(error):
                return None  # the database was cleared since
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _experiment(self, header: Mapping[str, Any]) -> str:
        found = self._client.get_experiment_by_name(header["experiment"])
        if found is not None:
            return str(found.experiment_id)
        place = Path(header["artifacts"]).as_uri() if header.get("artifacts") else None
        return str(self._client.create_experiment(header["experiment"], artifact_location=place, tags=_EXPERIMENT_TAGS))

    def _of_key(self, key: str) -> Run | None:
        """The run that carries a key. Of two, which a slow server can leave, the same every time."""
        found = self._client.search_runs([self._experiment_id], filter_string=f"tags.`{RUN_KEY}` = '{key}'")
        return min(found, key=lambda run: str(run.info.run_id), default=None)

    def _make(self, header: Mapping[str, Any]) -> Run:
        tags = {RUN_KEY: header["key"]}
        run: Run = self._client.create_run(
            self._experiment_id, start_time=header["time"], run_name=header["name"], tags=tags
        )
        return run


def reason_of(error: Exception) -> str:
    """The first words of an error of MLflow, or of what it stands on."""
    lines = str(error).strip().splitlines()
    unanswered = re.search(r"Max retries exceeded .*Caused by (\w+)", lines[0]) if lines else None
    if unanswered:
        return f"no answer ({unanswered[1]})"
    return lines[0][:300] if lines else type(error).__name__
