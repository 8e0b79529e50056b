"""What a run tells its tracker, written down before it is sent: one JSON object a line, only ever added to.

Training waits for this file alone. Every entry has a number that grows; who sends them notes how far it is in a record
beside the journal, and MLflow is told that number too, so what was sent stays known on both sides.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_LOG = logging.getLogger("clsgen_dist.tracking")


@dataclass(frozen=True)
class Entry:
    """A line of the journal.

    Attributes:
        seq: its number; those of later lines are larger.
        kind: run, params, metrics, tags, dataset, artifacts, status or begun.
        content: everything else that the line says.
        end: bytes of the file up to its end.
    """

    seq: int
    kind: str
    content: dict[str, Any]
    end: int


def journal_path(folder: Path) -> Path:
    """Where the journal of a run folder stands."""
    return folder / "tracking" / "journal.jsonl"


def record_path(folder: Path) -> Path:
    """Where a run folder says which MLflow run it is, and how much of the journal that has."""
    return folder / "tracking.json"


def read_entries(path: Path, start: int = 0) -> Iterator[Entry]:
    """Reads a journal from a byte on, an entry at a time; a last line without an end is not there yet.

    A line that cannot be read is left out, with a warning: a disk that was full may have torn it.
    """
    end = start
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            if not line.strip():
                continue
            try:
                entry = _entry(json.loads(line), end)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                entry = None
            if entry is not None:
                yield entry
            else:
                _LOG.warning("%s: the line that ends at byte %d cannot be read and is left out", path, end)


#: What entries of a kind must say to be understood.
_NEEDED: dict[str, dict[str, type]] = {
    "metrics": {"metrics": dict, "step": int, "time": int},
    "params": {"params": dict},
    "tags": {"tags": dict},
    "artifacts": {"path": str, "folder": str},
    "dataset": {"name": str, "digest": str, "path": str, "split": str, "num_rows": int},
    "status": {"status": str, "time": int},
}


def _entry(content: dict[str, Any], end: int) -> Entry | None:
    kind = str(content.pop("kind"))
    entry = Entry(int(content.pop("seq")), kind, content, end)
    return entry if all(isinstance(content[name], of) for name, of in _NEEDED.get(kind, {}).items()) else None


class Journal:
    """The journal of one run, open for adding.

    Attributes:
        header: what the run is: `key` that no other run has, name, experiment, artifacts, parent.
        is_begun: whether the facts that a run begins with (its settings and rows) are all in it.
        has_ended: whether the last that it says of the run's status is an end.
    """

    def __init__(self, path: Path, header: Mapping[str, Any] | None = None) -> None:
        """Opens a journal and takes away a last line that was not written to its end.

        Args:
            path: of the file.
            header: what a new journal says of the run, its key aside; None where there must be one.

        Raises:
            OSError: it cannot be read or written.
        """
        self.path = path
        self.header: dict[str, Any] = {}
        self.is_begun = self.has_ended = False
        self._seq = 0
        self._told: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._is_torn = self._has_failed = False
        if header is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if header is not None else 0)
        self._file = os.open(path, flags, 0o644)
        end = 0
        for entry in read_entries(path):
            self._seq, end = max(self._seq, entry.seq), entry.end
            self._note(entry.kind, entry.content)
        if self._has_torn_end(end):
            os.ftruncate(self._file, end)
        if header is not None and not self.header:
            self.append("run", {"key": uuid.uuid4().hex, **header})
        elif header is not None:
            changed = {name: value for name, value in header.items() if self.header.get(name) != value}
            changed.pop("time", None)
            if changed:  # a run that goes on may name another experiment or parent
                self.append("run", changed)

    @property
    def seq(self) -> int:
        """Number of the last entry; 0 for none."""
        return self._seq

    def skip_to(self, seq: int) -> None:
        """Has the next entry a number above `seq`, up to which numbers were used by lines that are gone."""
        self._seq = max(self._seq, seq)

    def append_metrics(self, metrics: Mapping[str, float], *, step: int, time_ms: int) -> None:
        """Adds numbers of a step; those that are not finite are left out.

        A training that goes on from a checkpoint takes some steps again; what was told of a step is not told twice.
        Numbers that have no step, which is 0, are told again where they changed.
        """
        new = {key: value for key, value in metrics.items() if math.isfinite(value) and self._is_new(key, step, value)}
        if new:
            self.append("metrics", {"time": time_ms, "step": step, "metrics": new})

    def append(self, kind: str, content: Mapping[str, Any]) -> None:
        """Adds an entry. A disk that is full costs the entry and one warning, not the training."""
        with self._lock:
            self._seq += 1
            line = json.dumps({"seq": self._seq, "kind": kind, **content}, ensure_ascii=False, allow_nan=False)
            data = (("\n" if self._is_torn else "") + line + "\n").encode()
            size = os.fstat(self._file).st_size
            try:
                while data:
                    data = data[os.write(self._file, data) :]
                self._is_torn = False
            except OSError as error:
                self._forget_from(size)
                if not self._has_failed:
                    _LOG.warning("%s: cannot be written (%s); what it should hold is lost", self.path, error.strerror)
                self._has_failed = True
                return
            self._note(kind, content)

    def sync(self) -> None:
        """Sees that all entries so far outlive a loss of power."""
        try:
            os.fsync(self._file)
        except OSError as error:
            _LOG.warning("%s: cannot be brought to the disk (%s)", self.path, error.strerror)

    def close(self) -> None:
        """Closes the file."""
        self.sync()
        os.close(self._file)

    def _is_new(self, key: str, step: int, value: float) -> bool:
        last_step, last_value = self._told.get(key, (-1, math.nan))
        return step > last_step if step else value != last_value

    def _note(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "run":
            self.header |= content
        elif kind == "metrics":
            for key, value in content["metrics"].items():
                self._told[key] = (max(content["step"], self._told.get(key, (0, 0.0))[0]), value)
        elif kind == "begun":
            self.is_begun = True
        elif kind == "status":
            self.has_ended = content["status"] != "RUNNING"

    def _has_torn_end(self, end: int) -> bool:
        """Whether the file goes on after its last entry without a line's end."""
        size = os.fstat(self._file).st_size
        return size > end and os.pread(self._file, 1, size - 1) != b"\n"

    def _forget_from(self, size: int) -> None:
        try:
            os.ftruncate(self._file, size)
            self._seq -= 1
        except OSError:
            self._is_torn = True  # the next entry begins a line of its own


@dataclass
class Record:
    """Which MLflow run a journal goes to, and how much of it is there.

    Attributes:
        uri: address of MLflow.
        run_id: None as long as MLflow was not reached.
        key: of the journal.
        seq: number of the last entry that is there, with all before it.
        offset: bytes of the journal up to the end of that entry.
        left: numbers of earlier entries whose files did not get through.
    """

    uri: str
    run_id: str | None = None
    key: str | None = None
    seq: int = 0
    offset: int = 0
    left: list[int] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """Reads a record; None where there is none that can be read."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            record = cls(**{name: content[name] for name in cls.__dataclass_fields__ if name in content})
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            record = None
        # Without it the run is found again by its key, and what it has by the number that it holds.
        return record if record and record._is_whole() else None

    def _is_whole(self) -> bool:
        numbers = [self.seq, self.offset, *self.left] if isinstance(self.left, list) else [None]
        return (
            isinstance(self.uri, str)
            and all(isinstance(name, str | None) for name in (self.run_id, self.key))
            and all(isinstance(number, int) and number >= 0 for number in numbers)
        )

    def save(self, path: Path) -> None:
        """Writes the record so that a reader meets the whole of it, after a loss of power too. Raises OSError."""
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self), indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
