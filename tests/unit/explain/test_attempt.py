"""What is asked of a teacher for one row, and what becomes of the row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from clsgen_dist.config.explain import Checks, Explain
from clsgen_dist.explain.attempt import DISAGREES, UNCONVINCING, UNWRITTEN, TaughtReasons, WrittenReasons
from clsgen_dist.explain.memory import FAILED, KEPT, UNLABELLED_ROW, Outcome
from clsgen_dist.records import Row

ROW = Row(id="a", text="fever since monday", label=1, explanation="Written by hand.")


class Scripted:
    """A teacher that says what a test wants and notes what it was asked."""

    num_at_once = 1

    def __init__(self, blind: int | None, reasons: Sequence[str], readings: Sequence[int | None] = ()) -> None:
        self.blind, self.reasons, self.readings = blind, list(reasons), list(readings)
        self.asked: list[Any] = []

    async def answer_blind(self, row: Row) -> int | None:
        self.asked.append("blind")
        return self.blind

    async def give_reason(self, row: Row, *, attempt: int, fault: str | None) -> tuple[str, str | None]:
        self.asked.append((attempt, fault))
        reason = self.reasons.pop(0)
        return (reason, None) if reason else ("", "empty")

    async def read(self, reason: str, *, reading: int = 0) -> int | None:
        self.asked.append((reason, reading))
        return self.readings.pop(0)

    async def close(self) -> None:
        self.asked.append("closed")


def run(
    teacher: Scripted, *, row: Row = ROW, rescue: bool = False, checks: Checks | None = None, **settings: Any
) -> Outcome:
    explain = Explain(teacher="evidence", checks=checks or Checks(), **settings)
    explainer = TaughtReasons(teacher, explain, lambda reason, row: "told" if "told" in reason else None)
    return asyncio.run(explainer.run(7, row, rescue=rescue))


def test_a_teacher_that_agrees_is_asked_twice_and_believed() -> None:
    teacher = Scripted(1, ["fever"])
    outcome = run(teacher)
    assert outcome == Outcome(number=7, label=1, status=KEPT, reason="fever", attempts=1, blind=1, asked_blind=True)
    assert teacher.asked == ["blind", (0, None)]


def test_a_refused_reason_is_tried_again_with_its_fault() -> None:
    teacher = Scripted(1, ["was told", "", "fever"])
    outcome = run(teacher)
    assert (outcome.status, outcome.reason, outcome.cause, outcome.attempts) == (KEPT, "fever", None, 3)
    assert outcome.refused == ("told", "empty")
    assert teacher.asked == ["blind", (0, None), (1, "told"), (2, "empty")]


def test_after_the_last_try_the_row_stays_without_a_reason() -> None:
    outcome = run(Scripted(1, ["was told", "", "told"]))
    assert (outcome.status, outcome.reason, outcome.cause, outcome.attempts) == (FAILED, None, "told", 3)
    assert outcome.refused == ("told", "empty", "told")


def test_a_teacher_that_disagrees_must_convince_a_reader() -> None:
    teacher = Scripted(0, ["weak", "fever"], readings=[0, 1])
    outcome = run(teacher)
    assert (outcome.status, outcome.reason, outcome.blind) == (KEPT, "fever", 0)
    assert teacher.asked == ["blind", (0, DISAGREES), ("weak", 0), (1, UNCONVINCING), ("fever", 0)]
    assert run(Scripted(None, ["a", "b", "c"], readings=[None, 0, 0])).cause == UNCONVINCING


def test_without_the_check_of_agreement_nothing_is_asked_blind() -> None:
    teacher = Scripted(0, ["fever"])
    outcome = run(teacher, checks=Checks(agreement=False))
    assert (outcome.status, outcome.asked_blind) == (KEPT, False)
    assert teacher.asked == [(0, None)]


def test_of_several_reasons_the_best_read_one_is_kept() -> None:
    teacher = Scripted(1, ["a", "was told", "b", "c"], readings=[0, 1, 0, 1, 1])
    outcome = run(teacher, num_samples=4)
    assert (outcome.reason, outcome.attempts) == ("c", 1)
    assert teacher.asked[1:] == [
        (0, None),
        ("a", 0),
        (1, None),
        (2, None),
        ("b", 0),
        ("b", 1),
        (3, None),
        ("c", 0),
        ("c", 1),
    ]


def test_a_reason_that_no_reader_understands_is_kept_where_the_teacher_agreed() -> None:
    assert run(Scripted(1, ["a", "b"], readings=[0, None]), num_samples=2).reason == "a"


def test_a_rescue_goes_on_with_the_numbers_of_the_attempts() -> None:
    teacher = Scripted(1, ["", "fever"])
    outcome = run(teacher, rescue=True, tries=3, rescue_tries=2, num_samples=1)
    assert (outcome.rescue, outcome.status, outcome.attempts) == (True, KEPT, 2)
    assert teacher.asked == ["blind", (3, None), (4, "empty")]


def test_a_row_without_label_is_not_asked_about() -> None:
    teacher = Scripted(1, [])
    outcome = run(teacher, row=Row(id="a", text="b"))
    assert (outcome.status, outcome.label, teacher.asked) == (UNLABELLED_ROW, -1, [])
    outcome = run(teacher, row=Row(id="a", text="b", explanation="Written by hand."))
    assert (outcome.status, outcome.reason, teacher.asked) == (KEPT, "Written by hand.", [])


def written(row: Row, *, drop: bool = False) -> Outcome:
    explain = Explain(checks=Checks(drop_written=drop))
    explainer = WrittenReasons(explain, lambda reason, row: "told" if "told" in reason else None)
    return asyncio.run(explainer.run(0, row, rescue=False))


def test_written_reasons_are_kept_and_counted() -> None:
    assert written(ROW) == Outcome(number=0, label=1, status=KEPT, reason="Written by hand.", attempts=1)
    flagged = Row(id="a", text="b", label=0, explanation="I was told.")
    kept = written(flagged)
    assert (kept.status, kept.reason, kept.cause, kept.refused) == (KEPT, "I was told.", "told", ("told",))
    dropped = written(flagged, drop=True)
    assert (dropped.status, dropped.reason, dropped.cause) == (FAILED, None, "told")
    absent = written(Row(id="a", text="b", label=0))
    assert (absent.status, absent.cause, absent.refused) == (FAILED, UNWRITTEN, ())
    assert written(Row(id="a", text="b", explanation="Words.")).reason == "Words."
