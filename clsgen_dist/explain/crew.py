"""Many rows at one time, in one process: as many rows wait for the teacher as it is worth asking about at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from clsgen_dist.errors import TeacherError
from clsgen_dist.explain.attempt import Explainer
from clsgen_dist.explain.memory import Outcome
from clsgen_dist.records import Row


@dataclass(frozen=True, slots=True)
class Job:
    """A row to explain.

    Attributes:
        split: its split.
        number: its number there, from 0.
        row: the row.
        rescue: whether these are further attempts, after those of the first round.
    """

    split: str
    number: int
    row: Row
    rescue: bool


#: Hears the split of a row that is done, and its outcome.
Done = Callable[[str, Outcome], None]


class Crew(Protocol):
    """Whoever explains jobs: this process, or actors on a cluster."""

    def work(self, jobs: Iterator[Job], done: Done) -> None:
        """Explains jobs and tells of each as it is done, in any order.

        Raises:
            TeacherError: the teacher cannot be reached any more, or the budget is spent; what is done was told.
        """
        ...


class LocalCrew:
    """Explains rows in this process, on one event loop for its whole life."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._runner = asyncio.Runner()

    def __enter__(self) -> LocalCrew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._runner:
            self._runner.run(self._explainer.close())

    def work(self, jobs: Iterator[Job], done: Done) -> None:
        """See `Crew.work`. After an error no new row begins, and rows that wait for an answer get it first."""
        self._runner.run(self._work(jobs, done))

    async def _work(self, jobs: Iterator[Job], done: Done) -> None:
        errors: list[TeacherError] = []

        async def hand() -> None:
            for job in jobs:  # shared: whoever is free takes the next one
                try:
                    outcome = await self._explainer.run(job.number, job.row, rescue=job.rescue)
                except TeacherError as error:
                    errors.append(error)
                    return
                done(job.split, outcome)
                if errors:
                    return
                await asyncio.sleep(0)  # a teacher that never waits must not starve the others

        await asyncio.gather(*(hand() for _ in range(self._explainer.num_at_once)))
        if errors:
            raise errors[0]
