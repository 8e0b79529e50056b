"""Ray Data spreads windows of rows over actors, one a GPU; each predicts them as one process alone would."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from clsgen_dist.config.assess import AssessConfig
from clsgen_dist.errors import ClsGenError
from clsgen_dist.orchestrate.ray_train import ray_cluster
from clsgen_dist.orchestrate.sent_home import packed_error, unpacked_error
from clsgen_dist.predict.crew import Crew, Heard, Job, LocalCrew, Window
from clsgen_dist.predict.parts import plain
from clsgen_dist.predict.predictor import Answered
from clsgen_dist.records import Prediction, Row

#: Windows an actor that are sent out together; the models are loaded once for each such part.
_WINDOWS_AN_ACTOR = 64
_WINDOW_SCHEMA = pa.schema([("number", pa.int64()), ("rows", pa.string()), ("known", pa.string())])


@contextmanager
def hire_on_ray(config: AssessConfig, job: Job) -> Iterator[Crew]:
    """A crew of `predict.num_workers` actors on the configuration's cluster; see `predict.files.Hire`.

    Raises:
        ConfigError: the cluster cannot be reached, or has fewer slots.
    """
    num_workers = config.predict.num_workers
    assert num_workers is not None, "this road is taken where workers are asked for"
    with ray_cluster(config, num_workers, "predict.num_workers"):
        yield RayCrew(job, num_workers, config.ray.cpus_per_worker)


class RayCrew:
    """Predicts windows on a Ray cluster; a window comes home when it is whole."""

    def __init__(self, job: Job, num_workers: int, cpus_per_worker: float) -> None:
        self._job, self._num_workers, self._cpus_per_worker = job, num_workers, cpus_per_worker

    def work(self, windows: Iterator[Window], heard: Heard) -> None:
        """See `Crew.work`. Windows go out in parts, so that this process never holds them all."""
        while part := list(islice(windows, _WINDOWS_AN_ACTOR * self._num_workers)):
            self._work_part(part, heard)

    def _work_part(self, windows: list[Window], heard: Heard) -> None:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        use_gpu = bool(ray.cluster_resources().get("GPU", 0))
        failure: ClsGenError | None = None
        try:
            # Blocks lie ready, one a window: a task that read them would wait for a CPU, and the actors may hold all.
            told = ray.data.from_arrow([_table_of(window) for window in windows]).map_batches(
                _Worker,
                fn_constructor_args=(self._job,),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=self._num_workers),
                num_cpus=self._cpus_per_worker,
                num_gpus=1 if use_gpu else 0,
            )
            # Read to the end after a fault, too: threads of Ray Data that still make rows would end this process,
            # without a word, once the cluster is shut down. An actor with a fault does no more work.
            for record in told.iter_rows():
                if record["error"]:
                    failure = failure or unpacked_error(record["error"])
                    continue
                found = {int(n): Prediction(**values) for n, values in json.loads(record["found"]).items()}
                heard(record["number"], Answered(found, frozenset()))
                heard(record["number"], None)
        except RayError as error:
            raise ClsGenError(
                f"the Ray workers stopped ({type(error).__name__}); what is finished is kept, and the same command "
                "goes on"
            ) from None
        if failure is not None:
            raise failure


class _Worker:
    """One actor: a loaded model that predicts windows."""

    def __init__(self, job: Job) -> None:
        self._error: ClsGenError | None = None
        try:
            self._crew = LocalCrew(job)
        except ClsGenError as error:
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        windows = [
            Window(
                int(number),
                [Row(**row) for row in json.loads(rows)],
                {int(n): Prediction(**values) for n, values in json.loads(known).items()},
            )
            for number, rows, known in zip(*(batch[name] for name in _WINDOW_SCHEMA.names), strict=True)
        ]
        found: dict[int, dict[int, Prediction]] = {window.number: dict(window.known) for window in windows}
        if self._error is None:
            try:
                self._crew.work(iter(windows), lambda number, some: found[number].update(some.found if some else {}))
            except ClsGenError as error:
                self._error = error
        failed = "" if self._error is None else packed_error(self._error)
        return {
            "number": list(found),
            "found": [json.dumps({n: plain(p) for n, p in some.items()}) for some in found.values()],
            "error": [failed] * len(found),
        }


def _table_of(window: Window) -> pa.Table:
    record = {
        "number": window.number,
        "rows": json.dumps([asdict(row) for row in window.rows], ensure_ascii=False),
        "known": json.dumps({n: plain(p) for n, p in window.known.items()}, ensure_ascii=False),
    }
    return pa.Table.from_pylist([record], schema=_WINDOW_SCHEMA)
