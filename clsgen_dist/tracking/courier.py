"""Brings a journal to its MLflow run, in order, and notes how far it is; one attempt a call."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag

from clsgen_dist.tracking.journal import Entry, Journal, Record, read_entries
from clsgen_dist.tracking.service import (
    LONGEST_PARAM,
    MOST_METRICS,
    MOST_PARAMS_OR_TAGS,
    Item,
    RunOfService,
    is_lost,
    reason_of,
)

_LOG = logging.getLogger("clsgen_dist.tracking")
_BATCHED = ("metrics", "params", "tags")


class Courier:
    """Sends what a journal holds. Used by one thread at a time.

    Attributes:
        sent: how many metrics, params, tags, datasets and files this courier brought, how many were refused or missing.
        moves: grows with everything that gets through; who waits sees by it that something does.
        is_uploading: whether a file is on its way, which may take long.
    """

    def __init__(self, journal: Journal, folder: Path, record: Record, record_path: Path) -> None:
        """Prepares to send; asks nothing yet.

        Args:
            journal: of the run.
            folder: of the run; paths of files in it are told from there.
            record: how far the journal was brought; kept up to date.
            record_path: where the record is written.
        """
        self.record = record
        self.sent: Counter[str] = Counter()
        self.moves = 0
        self.is_uploading = False
        self.is_open = False
        self._journal, self._folder, self._record_path = journal, folder, record_path
        self._run = RunOfService(record.uri)

    @property
    def num_waiting(self) -> int:
        """How many entries are not there yet."""
        return sum(entry.seq > self.record.seq for entry in self._ahead()) + len(self.record.left)

    @property
    def is_done(self) -> bool:
        """Whether the run holds everything but files that did not get through."""
        return self.is_open and self.record.seq >= self._journal.seq

    def open(self) -> None:
        """Finds or makes the run. Raises what MLflow raises."""
        record, known = self.record, self.record.run_id
        there = self._run.open(self._journal.header, known)
        if self._run.run_id != known or record.key != self._journal.header["key"]:
            # Another run than the one that the record is of: it holds what it says it holds.
            record.seq, record.offset, record.left = 0, 0, []
            record.left = [e.seq for e in self._ahead() if e.kind == "artifacts" and e.seq <= there]
        record.run_id, record.key = self._run.run_id, self._journal.header["key"]
        record.seq = max(record.seq, there)
        self._journal.skip_to(record.seq)
        self.is_open = True
        self._save()

    def advance(self) -> None:
        """Sends all that the journal holds by now; what gets through before a failure stays noted. Raises as `open`."""
        if not self.is_open:
            self.open()
        if self.record.seq >= self._journal.seq:
            return
        self._journal.sync()  # MLflow must not know of an entry whose number could be given again
        try:
            for group in _groups(entry for entry in self._ahead() if entry.seq > self.record.seq):
                self._send(group)
                self.record.seq, self.record.offset = group[-1].seq, group[-1].end
                self._save()
        except Exception as error:
            if is_lost(error):
                self.is_open = False  # the next attempt makes the run anew, and sends it everything
            raise

    def send_left(self) -> None:
        """Tries again the files that did not get through. Raises as `open`."""
        waiting = set(self.record.left)
        if not waiting:
            return
        for entry in read_entries(self._journal.path):
            if entry.seq in waiting and self._upload(entry):
                self.record.left.remove(entry.seq)
                self._save()

    def _ahead(self) -> Iterator[Entry]:
        path = self._journal.path
        offset = self.record.offset if self.record.offset <= path.stat().st_size else 0
        return read_entries(path, offset)

    def _save(self) -> None:
        self.moves += 1
        try:
            self.record.save(self._record_path)
        except OSError as error:  # the run itself says how far it is
            _LOG.warning("%s: cannot be written (%s)", self._record_path, error.strerror)

    def _send(self, group: list[Entry]) -> None:
        entry = group[0]
        if entry.kind in _BATCHED:
            self._send_items([item for one in group for item in _items(one)], group[-1].seq, entry.kind)
        elif entry.kind == "dataset":
            self._run.put_dataset(entry.content)
            self.sent["datasets"] += 1
        elif entry.kind == "status":
            self._run.put_status(entry.content["status"], entry.content["time"])
        elif entry.kind == "artifacts" and not self._upload(entry):
            self.record.left.append(entry.seq)

    def _send_items(self, items: list[Item], seq: int, kind: str) -> None:
        most = MOST_METRICS if kind == "metrics" else MOST_PARAMS_OR_TAGS
        for start in range(0, len(items), most):
            some = items[start : start + most]
            refused = self._run.put(some, seq if start + most >= len(items) else None)
            self.moves += 1
            self.sent[kind] += len(some) - len(refused)
            self.sent["refused"] += len(refused)

    def _upload(self, entry: Entry) -> bool:
        """Whether the files of an entry are there, or are nowhere any more. A server that is away raises."""
        path, folder = self._folder / entry.content["path"], entry.content["folder"]
        own = (self._record_path, self._journal.path)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p not in own)
        if not files:
            _LOG.warning("%s: is not there any more, and so not in MLflow", path)
            self.sent["missing"] += 1
            return True
        self.is_uploading = True
        try:
            for file in files:
                below = file.parent.relative_to(path).as_posix() if file != path else "."
                self._run.put_file(file, "/".join(part for part in (folder, below) if part not in ("", ".")))
                self.moves += 1
                self.sent["files"] += 1
        except Exception as error:  # noqa: BLE001 - every store for files has errors of its own
            self._run.check_answers()
            _LOG.warning("%s: is not in MLflow's store for files yet (%s)", path, reason_of(error))
            return False
        finally:
            self.is_uploading = False
        return True


def _groups(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Entries that go out in one request: metrics of several steps, or a single entry of any other kind."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        more = len(entry.content["metrics"]) if entry.kind == "metrics" else MOST_METRICS
        if group and size + more > MOST_METRICS:
            yield group
            group, size = [], 0
        group.append(entry)
        size += more
    if group:
        yield group


def _items(entry: Entry) -> list[Item]:
    content = entry.content
    if entry.kind == "metrics":
        return [Metric(key, value, content["time"], content["step"]) for key, value in content["metrics"].items()]
    kind: type[Param] | type[RunTag] = Param if entry.kind == "params" else RunTag
    return [kind(key, str(value)[:LONGEST_PARAM]) for key, value in content[entry.kind].items()]
