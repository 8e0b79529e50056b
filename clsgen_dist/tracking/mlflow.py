"""MLflow as a Tracker: one MLflow run a training run, the same one again after a resume.

What a run tells is written into a journal in its folder, and a thread brings it to MLflow: training never waits for a
server, and what a server misses it gets when it is back, or by launchers/sync_tracking.py.

Uses the client, never the global "active run": several runs may live in one process, and nothing is printed.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsgen_dist.errors import TrackingError
from clsgen_dist.tracking.address import check_address, is_local
from clsgen_dist.tracking.courier import Courier
from clsgen_dist.tracking.delivery import Delivery
from clsgen_dist.tracking.journal import Journal, Record, journal_path, record_path
from clsgen_dist.tracking.service import KEY_PREFIX, LONGEST_PARAM, reason_of

_LOG = logging.getLogger("clsgen_dist.tracking")

#: How long a start waits for the run's id. A database in a file makes its tables the first time, and is never away.
_PATIENCE_SECONDS, _PATIENCE_WITH_A_FILE_SECONDS = 4.0, 120.0


class MlflowTracker:
    """A Tracker that writes to an MLflow server or database, by way of a journal."""

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        *,
        folder: Path,
        artifacts: Path | None,
        parent: str | None = None,
    ) -> None:
        """Opens the run of a folder, the same one every time; a server that is away gets it later.

        Args:
            uri: MLflow tracking address.
            experiment: its name; made where it is absent.
            run_name: name of the run.
            folder: of the run: holds the journal and which MLflow run it is.
            artifacts: where a new experiment keeps files, for a database without a server; None lets MLflow decide.
            parent: `reference` of the run that a new one is a child of, or None.

        Raises:
            ConfigError: the address is none of MLflow's.
            TrackingError: the server or database can never be used, or nothing can be written into the folder.
        """
        check_address(uri)
        self.uri, self._folder = uri, folder
        header = {
            **{"name": run_name, "experiment": experiment, "artifacts": str(artifacts) if artifacts else None},
            **{"parent": parent, "time": _now_ms()},
        }
        try:
            self._open_journal(header)
        except OSError as error:
            raise TrackingError(f"{folder}: what a run tells cannot be written there ({error.strerror})") from None
        self._delivery = Delivery(self._courier, uri, is_local=is_local(uri))
        self._delivery.wait_for_first_attempt(_PATIENCE_WITH_A_FILE_SECONDS if is_local(uri) else _PATIENCE_SECONDS)
        if self._delivery.refusal is not None:
            reason = reason_of(self._delivery.refusal)
            self._journal.close()
            raise TrackingError(f"tracking.uri {uri}: cannot be used ({reason}); start the server, or mend the address")

    def _open_journal(self, header: Mapping[str, Any]) -> None:
        place = record_path(self._folder)
        known = Record.load(place)
        record = known if known and known.uri == self.uri else Record(self.uri)
        self._journal = Journal(journal_path(self._folder), header)
        if known is None or known.uri != self.uri:
            record.save(place)
        elif known.run_id and known.key is None:
            self._journal.append("begun", {})  # of an earlier version, which told MLflow the facts itself
        if self._journal.has_ended:
            self._journal.append("status", {"status": "RUNNING", "time": _now_ms()})
        self._courier = Courier(self._journal, self._folder, record, place)

    @property
    def run_id(self) -> str | None:
        """Id of the run at MLflow; None as long as that was not reached."""
        return self._courier.record.run_id

    @property
    def reference(self) -> str:
        """Names the run as a parent, whether or not MLflow was reached."""
        return self.run_id or f"{KEY_PREFIX}{self._journal.header['key']}"

    @property
    def is_begun(self) -> bool:
        """Whether the facts that a run begins with were told; `begun` says so."""
        return self._journal.is_begun

    def begun(self) -> None:
        """Says that the facts that a run begins with are told."""
        self._journal.append("begun", {})
        self._delivery.wake()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Notes settings; a value too long for MLflow is cut here and whole in the config file."""
        self._journal.append("params", {"params": {key: str(value)[:LONGEST_PARAM] for key, value in params.items()}})

    def log_dataset(self, split: str, path: Path, digest: str, num_rows: int) -> None:
        """Notes which rows a split was."""
        facts = {"split": split, "name": path.stem, "path": str(path), "digest": digest[:36], "num_rows": num_rows}
        self._journal.append("dataset", facts)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        self._journal.append_metrics(metrics, step=step, time_ms=_now_ms())

    def log_artifacts(self, path: Path, folder: str) -> None:
        place, own = path.absolute(), self._folder.absolute()
        known = place.relative_to(own) if place.is_relative_to(own) else place  # the folder may be moved meanwhile
        self._journal.append("artifacts", {"path": str(known), "folder": folder})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._journal.append("tags", {"tags": dict(tags)})

    def close(self, status: str) -> None:
        """Ends the run as FINISHED, FAILED or KILLED; what MLflow does not take within seconds stays in the journal."""
        self._journal.append("status", {"status": status, "time": _now_ms()})
        self._journal.sync()
        has_ended = self._delivery.close()
        num_waiting = self._courier.num_waiting
        if has_ended:
            self._journal.close()
        if num_waiting:
            _LOG.warning(
                "MLflow at %s: %d entries of this run are not there yet; they are kept, and sent by: "
                "python launchers/sync_tracking.py --run %s",
                *(self.uri, num_waiting, self._folder),
            )

    def flush(self) -> None:
        """Sees that what was told is on the disk, and has it sent soon. Waits for no server."""
        self._journal.sync()
        self._delivery.wake()


def _now_ms() -> int:
    return int(time.time() * 1000)


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
