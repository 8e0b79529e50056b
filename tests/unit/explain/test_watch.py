"""What a person is told while rows are explained: counts that add up, in one run and over several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from clsgen_dist.chat.interface import Completion
from clsgen_dist.config.explain import Checks, Explain
from clsgen_dist.errors import TeacherError
from clsgen_dist.explain.crew import Done, Job
from clsgen_dist.explain.memory import FAILED, KEPT, UNLABELLED_ROW, Outcome, TeacherMemory
from clsgen_dist.explain.rounds import Rounds
from clsgen_dist.explain.watch import Watch
from clsgen_dist.progress import Event
from clsgen_dist.records import UNLABELLED, Row

EXPLAIN = Explain(teacher="evidence", checks=Checks(max_duplicate_share=1.0))
NUM_ROWS = {"train": 12, "validation": 4}
KEPT_ROW = Outcome(number=0, label=0, status=KEPT, reason="a")
FAILED_ROW = Outcome(number=1, label=0, status=FAILED, cause="told")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[TeacherMemory]:
    opened = TeacherMemory(tmp_path / "m.sqlite")
    yield opened
    opened.close()


def watching(memory: TeacherMemory, explain: Explain = EXPLAIN, num_rows: int = 16) -> tuple[Watch, list[Event]]:
    told: list[Event] = []
    return Watch(explain, memory, told.append, num_rows=num_rows), told


class Crew:
    """Keeps label 0; of label 1 every second row, and in a rescue every second of the rest."""

    def __init__(self, stop_after: int | None = None, reason: Callable[[Job], str] | None = None) -> None:
        self.left = stop_after
        self.reason = reason or (lambda job: "There is a fever.")

    def work(self, jobs: Iterator[Job], done: Done) -> None:
        for job in jobs:
            if self.left == 0:
                raise TeacherError("budget")
            self.left = None if self.left is None else self.left - 1
            label = job.row.label
            kept = label == 0 or job.number % 4 == 1 or (job.rescue and job.number % 8 == 3)
            status = UNLABELLED_ROW if label is None else KEPT if kept else FAILED
            done(
                job.split,
                Outcome(
                    number=job.number,
                    label=UNLABELLED if label is None else label,
                    status=status,
                    reason=self.reason(job) if status == KEPT else None,
                    cause="told" if status == FAILED else None,
                    rescue=job.rescue,
                ),
            )


def rows(split: str, num_rows: int) -> Iterator[Row]:
    """Of labels 0 and 1 in turn; the last but one of the training rows has no label."""
    for number in range(num_rows):
        label = None if (split, number) == ("train", num_rows - 2) else number % 2
        yield Row(id=f"{split}-{number}", text=f"text {number}", label=label)


def walk(
    memory: TeacherMemory, crew: Crew, num_rows: Mapping[str, int] = NUM_ROWS, explain: Explain = EXPLAIN
) -> list[Event]:
    """What is told while all rounds are walked, in a run of its own."""
    watch, told = watching(memory, explain, sum(num_rows.values()))
    Rounds({split: partial(rows, split, n) for split, n in num_rows.items()}, explain, memory, crew, watch.heard).run()
    watch.done()
    return told


def test_rows_are_counted_as_they_are_done(memory: TeacherMemory) -> None:
    watch, told = watching(memory, num_rows=2000)
    watch.heard("train", KEPT_ROW)
    watch.heard("train", FAILED_ROW)
    watch.heard("validation", replace(KEPT_ROW, label=UNLABELLED, status=UNLABELLED_ROW, reason=None))
    assert told == [
        Event("explain", 1, 2000, "kept 1, rescued 0, given up 0"),
        Event("explain", 2, 2000, "kept 1, rescued 0, given up 1"),
        Event("explain", 3, 2000, "kept 1, rescued 0, given up 1"),
    ]


def test_a_teacher_that_is_sent_requests_shows_them(memory: TeacherMemory) -> None:
    watch, told = watching(memory)
    in_flight = 3
    watch.in_flight = lambda: in_flight
    memory.remember("a", Completion(text="yes", prompt_tokens=1200, completion_tokens=34))
    watch.heard("train", KEPT_ROW)
    in_flight = 2
    memory.remember("b", Completion(text="", prompt_tokens=800, completion_tokens=0, fault="empty"))
    watch.heard("train", FAILED_ROW)
    assert [event.note.splitlines()[1] for event in told] == ["3 in flight, 1,234 tokens", "2 in flight, 2,034 tokens"]


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, ""),
        ({"input_price": 2.0}, ", cost 3.0000"),
        ({"output_price": 8.0}, ", cost 2.0000"),
        ({"input_price": 2.0, "output_price": 8.0}, ", cost 5.0000"),
    ],
    ids=["none", "of-prompts", "of-answers", "both"],
)
def test_the_cost_is_shown_where_there_is_a_price(memory: TeacherMemory, prices: dict[str, float], cost: str) -> None:
    watch, told = watching(memory, Explain(teacher="endpoint", **prices))
    watch.in_flight = lambda: 0
    memory.remember("a", Completion(text="yes", prompt_tokens=1_500_000, completion_tokens=250_000))
    watch.heard("train", KEPT_ROW)
    assert told[0].note == f"kept 1, rescued 0, given up 0\n0 in flight, 1,750,000 tokens{cost}"


def test_a_rescue_is_counted_by_itself(memory: TeacherMemory) -> None:
    told = walk(memory, Crew())
    assert [(event.stage, event.done, event.total) for event in told] == [
        *(("explain", done, 16) for done in range(1, 17)),
        *(("rescue", done, 4) for done in range(1, 5)),
    ]
    # Rows 3, 7 and 11 of training and row 3 of validation are left; of these 7 stays without a reason.
    assert told[15].note == "kept 11, rescued 0, given up 4"
    assert [event.note for event in told[16:]] == [
        "kept 12, rescued 1, given up 3",
        "kept 12, rescued 1, given up 3",
        "kept 13, rescued 2, given up 2",
        "kept 14, rescued 3, given up 1",
    ]


@pytest.mark.parametrize("stop_after", [0, 1, 11, 15, 16, 17, 18, 19])
def test_what_an_earlier_run_did_is_counted_in(tmp_path: Path, memory: TeacherMemory, stop_after: int) -> None:
    whole = TeacherMemory(tmp_path / "whole.sqlite")
    unbroken = walk(whole, Crew())
    whole.close()
    with pytest.raises(TeacherError, match="budget"):
        walk(memory, Crew(stop_after))
    told = walk(memory, Crew())
    assert [event.note for event in told] == [event.note for event in unbroken[stop_after:]]
    first = [event for event in told if event.stage == "explain"]
    assert first == unbroken[stop_after:16]
    left = 4 - max(0, stop_after - 16)
    assert [(e.done, e.total) for e in told[len(first) :]] == [(done, left) for done in range(1, left + 1)]


def test_a_run_that_finds_all_rows_done_says_so_once(memory: TeacherMemory) -> None:
    last = walk(memory, Crew())[-1]
    assert walk(memory, Crew()) == [Event("explain", 16, 16, last.note)]


def test_reasons_that_are_refused_as_duplicates_are_not_counted_as_kept(memory: TeacherMemory) -> None:
    """Label 0 is given one sentence for all its rows; in the rescue each has one of its own."""

    def reason(job: Job) -> str:
        own = " ".join(f"{chr(97 + job.number // 10)}{chr(97 + job.number % 10)}{letter}" for letter in "klmnopqr")
        return own if job.rescue or job.row.label else "The text clearly shows this and supports the decision."

    told = walk(memory, Crew(reason=reason), {"train": 40, "validation": 0}, Explain(teacher="evidence"))
    counts = memory.class_counts("train").values()
    kept, rescued, failed = (
        sum(c.num_kept for c in counts),
        sum(c.num_rescued for c in counts),
        sum(c.num_failed for c in counts),
    )
    assert rescued == 16, "of 19 rows with label 0, three kept the sentence"
    assert told[-1].note == f"kept {kept}, rescued {rescued}, given up {failed}"
