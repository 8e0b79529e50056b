"""Predictions of a file of rows as a file, in windows: memory does not grow with the rows, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

from clsgen_dist.bundle import bundle_columns, read_task
from clsgen_dist.claim import claimed
from clsgen_dist.config.assess import AssessConfig, assess_config
from clsgen_dist.data.counted import count_rows
from clsgen_dist.data.rows import read_rows
from clsgen_dist.errors import ConfigError
from clsgen_dist.mirror import Mirror
from clsgen_dist.objects import Objects
from clsgen_dist.predict.crew import Crew, Job, LocalCrew, Window
from clsgen_dist.predict.parts import Parts, write_lines
from clsgen_dist.predict.predictor import Answered
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import Prediction, PredictRequest, Row
from clsgen_dist.sealed import CALIBRATOR, model_hash, read_manifest

#: Rows of a window: enough for batches of like length, few enough to hold.
WINDOW_ROWS = 512

#: Opens a crew, see `Crew`.
Hire = Callable[[AssessConfig, Job], AbstractContextManager[Crew]]


def hire_here(config: AssessConfig, job: Job) -> AbstractContextManager[Crew]:
    """This process as a crew."""
    return nullcontext(LocalCrew(job))


def predict_file(
    request: PredictRequest, listener: Listener, *, hire: Hire = hire_here, window_rows: int = WINDOW_ROWS
) -> int:
    """Predicts the rows of a file with a bundle; returns how many. The output appears whole or not at all.

    What is finished stands in OUTPUT.parts until then, and the same request goes on from there: with the same lines,
    whenever the process before it ended.

    Args:
        request: what is asked.
        listener: hears of progress.
        hire: who does the work.
        window_rows: rows that are held at one time.

    Raises:
        ConfigError, BundleError, DataError: a setting, the bundle or the rows cannot be used, or OUTPUT.parts is of
            another request; nothing is written.
        CheckpointError: the run's object store cannot be read.
    """
    if not request.output.absolute().parent.is_dir():
        raise ConfigError(f"--output {request.output}: its folder does not exist")
    if request.storage is not None:
        Mirror(Objects(request.storage), request.bundle.parent).pull()
    manifest = read_manifest(request.bundle)
    task = read_task(request.bundle)
    config = assess_config(task, manifest["run"], manifest["predict"], request.settings)
    columns = bundle_columns(manifest, request.columns)

    def rows() -> Iterator[Row]:
        return (row for _, row in read_rows(request.source, columns, task.labels, need_labels=False))

    counted = count_rows(rows, request.source)
    asked = {
        "model": model_hash(manifest),
        "calibrator": manifest["files"][CALIBRATOR],
        "input": counted.sha256,
        "window_rows": window_rows,
        **config.predict.model_dump(exclude={"num_workers"}),
    }
    parts = Parts(request.output, asked)
    num_windows = -(-counted.num_rows // window_rows)
    with claimed(parts.folder, setting="--output", place="--output"):
        progress = _Progress(parts, counted.num_rows, window_rows, listener)
        job = Job(request.bundle.absolute(), request.base, config.predict)
        with hire(config, job) as crew:
            parts.begin()
            crew.work(progress.windows(rows()), progress.heard)
        parts.publish(num_windows)
    return counted.num_rows


class _Progress:
    """Keeps what the crew finds, and tells how far it is."""

    def __init__(self, parts: Parts, num_rows: int, window_rows: int, listener: Listener) -> None:
        self._parts, self._num_rows, self._window_rows, self._listener = parts, num_rows, window_rows, listener
        self._open: dict[int, dict[int, Prediction]] = {}
        self._finished: dict[int, int] = {}

    def windows(self, rows: Iterator[Row]) -> Iterator[Window]:
        """The windows that are not finished yet, with what is known of them."""
        number = 0
        while some := list(islice(rows, self._window_rows)):
            if self._parts.has(number):
                self._finished[number] = len(some)
            else:
                known = self._parts.known(number)
                self._open[number] = dict(known)
                yield Window(number, some, known)
            number += 1

    def heard(self, number: int, answered: Answered | None) -> None:
        """See `Heard`."""
        if answered is not None:
            self._parts.note(number, answered.found)
            self._open[number] |= answered.found
            self._tell(number, self._finished.get(number, 0) + len(answered.found) - len(answered.waiting))
            return
        found = self._open.pop(number)
        self._parts.finish(number, (found[n] for n in range(len(found))))
        self._tell(number, len(found))

    def _tell(self, number: int, num_rows: int) -> None:
        self._finished[number] = num_rows
        self._listener(Event("predict", min(sum(self._finished.values()), self._num_rows), self._num_rows))


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes predictions as JSON lines, whole or not at all."""
    write_lines(path, predictions)
