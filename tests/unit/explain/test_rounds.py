"""Rounds over all rows: nothing twice, near-duplicates refused, classes that lag rescued; the same after any stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from clsgen_dist.config.explain import Checks, Explain
from clsgen_dist.errors import TeacherError
from clsgen_dist.explain.crew import Done, Job
from clsgen_dist.explain.memory import FAILED, KEPT, ClassCount, Outcome, TeacherMemory
from clsgen_dist.explain.rounds import DUPLICATE, Rounds, first_counts, lagging_classes
from clsgen_dist.records import Row

SPLITS = {"train": 40, "validation": 8}


def rows(split: str) -> Iterator[Row]:
    return (Row(id=f"{split}-{n}", text=f"text {n}", label=n % 2) for n in range(SPLITS[split]))


def words(number: int) -> str:
    """A reason that shares no three words in a row with another one."""
    return " ".join(f"{'abcdefghij'[int(digit)] * 3}{number}{place}x" for place, digit in enumerate(f"{number:05d}"))


class Crew:
    """Keeps label 0; of label 1 every second row only in a rescue; stops after some jobs where a test wants it."""

    def __init__(self, stop_after: int | None = None, reason: Callable[[Job], str] | None = None) -> None:
        self.jobs: list[Job] = []
        self.stop_after = stop_after
        self.reason = reason or (lambda job: words(job.number + 1000 * job.rescue + 5000 * (job.split == "train")))

    def work(self, jobs: Iterator[Job], done: Done) -> None:
        for job in jobs:
            if self.stop_after is not None and len(self.jobs) == self.stop_after:
                raise TeacherError("budget")
            self.jobs.append(job)
            assert job.row.label is not None
            kept = job.row.label == 0 or job.number % 4 == 1 or (job.rescue and job.number % 8 == 3)
            outcome = Outcome(
                number=job.number,
                label=job.row.label,
                status=KEPT if kept else FAILED,
                reason=self.reason(job) if kept else None,
                cause=None if kept else "told",
                attempts=1,
                rescue=job.rescue,
                refused=() if kept else ("told",),
            )
            done(job.split, outcome)


def walk(memory: TeacherMemory, crew: Crew, checks: Checks | None = None, **settings: int) -> list[Job]:
    heard: list[tuple[str, Outcome]] = []
    begun = len(crew.jobs)
    explain = Explain(teacher="evidence", checks=checks or Checks(), **settings)
    sources = {split: partial(rows, split) for split in SPLITS}
    Rounds(sources, explain, memory, crew, lambda *told: heard.append(told)).run()
    jobs = crew.jobs[begun:]
    assert [(split, o.number, o.rescue) for split, o in heard] == [(j.split, j.number, j.rescue) for j in jobs]
    return jobs


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[TeacherMemory]:
    opened = TeacherMemory(tmp_path / "m.sqlite")
    yield opened
    opened.close()


def test_a_class_that_lags_is_rescued_and_no_other(memory: TeacherMemory) -> None:
    heard = walk(memory, Crew())
    assert [(job.split, job.number) for job in heard[:48]] == [(s, n) for s in SPLITS for n in range(SPLITS[s])]
    rescued = heard[48:]
    assert all(job.rescue and job.number % 4 == 3 for job in rescued)
    assert len(rescued) == 10 + 2
    assert first_counts(memory)["train"] == {0: ClassCount(20, 20, 0, 0), 1: ClassCount(20, 10, 0, 10)}
    assert memory.class_counts("train") == {0: ClassCount(20, 20, 0, 0), 1: ClassCount(20, 15, 5, 5)}
    saved = memory.outcome("train", 3)
    assert saved is not None
    assert (saved.status, saved.attempts, saved.refused) == (KEPT, 2, ("told",))


def test_done_rows_are_not_worked_on_again(memory: TeacherMemory) -> None:
    walk(memory, Crew())
    before = [*memory.outcomes("train"), *memory.outcomes("validation")]
    assert walk(memory, Crew()) == []
    assert [*memory.outcomes("train"), *memory.outcomes("validation")] == before


@pytest.mark.parametrize("stop_after", [0, 1, 30, 47, 48, 49, 55, 59])
def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path, memory: TeacherMemory, stop_after: int) -> None:
    with pytest.raises(TeacherError, match="budget"):
        walk(memory, Crew(stop_after))
    heard = walk(memory, Crew())
    assert len(heard) == 60 - stop_after
    whole = TeacherMemory(tmp_path / "whole.sqlite")
    walk(whole, Crew())
    for split in SPLITS:
        assert list(memory.outcomes(split)) == list(whole.outcomes(split))
    assert first_counts(memory) == first_counts(whole)
    whole.close()


def test_no_rescue_where_none_is_wanted(memory: TeacherMemory) -> None:
    assert len(walk(memory, Crew(), rescue_tries=0)) == 48


def test_boilerplate_is_refused_after_the_first_few(memory: TeacherMemory) -> None:
    boiler = "The text clearly shows this and supports the decision in every way."
    crew = Crew(reason=lambda job: boiler if job.row.label == 0 else words(job.number + 1000 * job.rescue))
    walk(memory, crew, checks=Checks(max_duplicate_share=0.1), rescue_tries=0)
    outcomes = [outcome for outcome in memory.outcomes("train") if outcome.label == 0]
    assert [outcome.status for outcome in outcomes] == [KEPT] * 4 + [FAILED] * 16
    assert {outcome.cause for outcome in outcomes[4:]} == {DUPLICATE}
    assert walk(memory, crew, checks=Checks(max_duplicate_share=0.1), rescue_tries=0) == []
    assert sum(outcome.cause == DUPLICATE for outcome in memory.outcomes("train")) == 16


def test_boilerplate_that_people_wrote_is_counted_and_kept(memory: TeacherMemory) -> None:
    crew = Crew(reason=lambda job: "The text clearly shows this and supports the decision.")
    sources = {split: partial(rows, split) for split in SPLITS}
    for _ in range(2):
        Rounds(sources, Explain(), memory, crew, lambda *told: None).run()
        flagged = [outcome for outcome in memory.outcomes("train") if DUPLICATE in outcome.refused]
        assert len(flagged) == 30 - 3
        assert {(outcome.status, outcome.refused) for outcome in flagged} == {(KEPT, (DUPLICATE,))}
    assert len(crew.jobs) == 48, "nobody is asked to write again"


def test_boilerplate_passes_where_the_check_is_off(memory: TeacherMemory) -> None:
    walk(memory, Crew(reason=lambda job: "The text clearly shows this."), checks=Checks(max_duplicate_share=1.0))
    assert all(outcome.cause != DUPLICATE for outcome in memory.outcomes("train"))


def test_lagging_classes_come_worst_first_and_without_the_best() -> None:
    counts = {"train": {-1: ClassCount(9, 0), 0: ClassCount(10, 5), 1: ClassCount(10, 8), 2: ClassCount(20, 4)}}
    assert lagging_classes(counts) == [("train", 2), ("train", 0)]
    assert lagging_classes({"train": {0: ClassCount(3, 3), 1: ClassCount(4, 4)}}) == []
    assert lagging_classes({"train": {-1: ClassCount(3, 0)}}) == []
