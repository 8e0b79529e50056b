"""Ray Data spreads the rows over local teachers, one actor a GPU; each works as a crew in one process does."""

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

from clsgen_dist.chat.interface import Completion
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.errors import ClsGenError, TeacherError
from clsgen_dist.explain.crew import Crew, Done, Job, LocalCrew
from clsgen_dist.explain.memory import Outcome, TeacherMemory
from clsgen_dist.explain.teachers import make_chat_explainer
from clsgen_dist.explain.watch import Watch
from clsgen_dist.orchestrate.ray_train import ray_cluster
from clsgen_dist.orchestrate.sent_home import packed_error, unpacked_error
from clsgen_dist.records import Row

#: Rows that are sent out together; the models are loaded once for each such part.
_JOBS_A_PART = 50_000
#: What comes home: an outcome with its split, answers, or an error.
_TOLD = ("split", "outcome", "answers", "error")
_JOB_SCHEMA = pa.schema([("split", pa.string()), ("number", pa.int64()), ("rescue", pa.bool_()), ("row", pa.string())])


@contextmanager
def hire_on_ray(config: RunConfig, folder: RunFolder, memory: TeacherMemory, watch: Watch) -> Iterator[Crew]:
    """A crew of `explain.num_workers` actors on the configuration's cluster; see `explain.stage.Hire`.

    Raises:
        ConfigError: the cluster cannot be reached, or has fewer slots.
    """
    num_workers = config.explain.num_workers
    assert num_workers is not None, "this road is taken where workers are asked for"
    with ray_cluster(config, num_workers, "explain.num_workers"):
        yield RayCrew(config, memory)


class RayCrew:
    """Explains jobs on a Ray cluster; answers come home with the outcomes, into the memory of the run."""

    def __init__(self, config: RunConfig, memory: TeacherMemory) -> None:
        self._config = config
        self._memory = memory

    def work(self, jobs: Iterator[Job], done: Done) -> None:
        """See `Crew.work`. Rows go out in parts, so that this process never holds them all."""
        while part := list(islice(jobs, _JOBS_A_PART)):
            self._work_part(part, done)

    def _work_part(self, jobs: list[Job], done: Done) -> None:
        explain = self._config.explain
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        use_gpu = bool(ray.cluster_resources().get("GPU", 0))
        # Blocks lie ready: a task that read them would wait for a CPU, and the actors may hold them all.
        size = min(2 * explain.batch_size, -(-len(jobs) // (explain.num_workers or 1)))
        blocks = [_table_of(jobs[start : start + size]) for start in range(0, len(jobs), size)]
        failure: ClsGenError | None = None
        try:
            told = ray.data.from_arrow(blocks).map_batches(
                _Worker,
                fn_constructor_args=(self._config.model_dump(mode="json"),),
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=explain.num_workers),
                num_cpus=self._config.ray.cpus_per_worker,
                num_gpus=1 if use_gpu else 0,
            )
            # Read to the end after a fault, too: threads of Ray Data that still make rows would end this process,
            # without a word, once the cluster is shut down. An actor with a fault does no more work.
            for record in told.iter_rows():
                if record["error"]:
                    failure = failure or unpacked_error(record["error"])
                    continue
                for key, answer in json.loads(record["answers"]).items():
                    self._memory.remember(key, Completion(**answer))
                if not record["outcome"]:
                    continue
                outcome = json.loads(record["outcome"])
                done(record["split"], Outcome(**outcome | {"refused": tuple(outcome["refused"])}))
        except RayError as error:
            raise TeacherError(
                f"the Ray workers stopped ({type(error).__name__}); nothing is lost, and the same command goes on"
            ) from None
        if failure is not None:
            raise failure


class _Worker:
    """One actor: a local teacher that explains batches of jobs."""

    def __init__(self, values: dict[str, Any]) -> None:
        from clsgen_dist.chat.local import LocalChat  # loads torch, on the actor only

        config = RunConfig.model_validate(values)
        self._answers = _Collected()
        self._error: ClsGenError | None = None
        try:
            self._crew = LocalCrew(make_chat_explainer(config, LocalChat(config.explain), self._answers))
        except ClsGenError as error:
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        jobs = [
            Job(str(split), int(number), Row(**json.loads(row)), bool(rescue))
            for split, number, rescue, row in zip(*(batch[name] for name in _JOB_SCHEMA.names), strict=True)
        ]
        told: list[tuple[str, Outcome]] = []
        if self._error is None:
            try:
                self._crew.work(iter(jobs), lambda split, outcome: told.append((split, outcome)))
            except ClsGenError as error:
                self._error = error
        answers = self._answers.take()
        records = [(split, json.dumps(asdict(outcome)), "{}", "") for split, outcome in told]
        if answers:
            records.insert(0, ("", "", json.dumps(answers), ""))
        if self._error is not None:
            records.append(("", "", "{}", packed_error(self._error)))
        return {name: [record[place] for record in records] for place, name in enumerate(_TOLD)}


class _Collected:
    """Keeps the answers of an actor until they are sent home, and knows them as long as it lives."""

    def __init__(self) -> None:
        self._fresh: dict[str, Completion] = {}

    def recall(self, key: str) -> Completion | None:
        return self._fresh.get(key)

    def remember(self, key: str, completion: Completion) -> None:
        self._fresh[key] = completion

    def take(self) -> dict[str, dict[str, Any]]:
        fresh, self._fresh = self._fresh, {}
        return {key: asdict(answer) for key, answer in fresh.items()}


def _table_of(jobs: list[Job]) -> pa.Table:
    records = [
        {
            "split": job.split,
            "number": job.number,
            "rescue": job.rescue,
            "row": json.dumps(asdict(job.row), ensure_ascii=False),
        }
        for job in jobs
    ]
    return pa.Table.from_pylist(records, schema=_JOB_SCHEMA)
