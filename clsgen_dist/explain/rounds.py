"""All rows to their outcomes: a first round, near-duplicates refused, then more attempts for classes that lag."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, replace
from itertools import chain

from clsgen_dist.config.explain import Explain
from clsgen_dist.explain.crew import Crew, Done, Job
from clsgen_dist.explain.duplicates import BandCounts
from clsgen_dist.explain.memory import FAILED, KEPT, ClassCount, Outcome, TeacherMemory
from clsgen_dist.records import UNLABELLED, RowSource

#: Why a reason is refused: too many others are nearly the same words.
DUPLICATE = "duplicate"

#: Reasons of nearly the same words that are always let through, however few rows there are.
_MIN_DUPLICATES = 3


class Rounds:
    """Walks the rounds; each is skipped or gone on with where the memory says so."""

    def __init__(
        self,
        splits: Mapping[str, RowSource],
        explain: Explain,
        memory: TeacherMemory,
        crew: Crew,
        heard: Done,
    ) -> None:
        """Takes rows by split, settings, memory, those who do the work, and who hears of every row that is done."""
        self._splits = splits
        self._explain = explain
        self._memory = memory
        self._crew = crew
        self._heard = heard

    def run(self) -> None:
        """Brings every row to its outcome.

        Raises:
            TeacherError: the teacher cannot be reached any more, or the budget is spent; the next run goes on.
        """
        self._work(self._first_jobs())
        if self._memory.fact("first_counts") is None:
            for split in self._splits:
                self._refuse_duplicates(split)
            counts = {split: self._memory.class_counts(split) for split in self._splits}
            self._memory.keep_fact("first_counts", _counts_to_json(counts))
        first = first_counts(self._memory)
        if self._explain.rescue_tries and self._explain.teacher != "column":  # people wrote what they wrote
            lagging = lagging_classes(first)
            self._work(chain.from_iterable(self._rescue_jobs(split, label) for split, label in lagging))
            for split in {split for split, _ in lagging}:
                self._refuse_duplicates(split)

    def _work(self, jobs: Iterator[Job]) -> None:
        def done(split: str, outcome: Outcome) -> None:
            if outcome.rescue:  # the report tells of all attempts, those of the first round too
                before = self._memory.outcome(split, outcome.number)
                assert before is not None, "a rescued row was tried before"
                outcome = replace(
                    outcome, attempts=before.attempts + outcome.attempts, refused=before.refused + outcome.refused
                )
            self._memory.keep_outcome(split, outcome)
            self._heard(split, outcome)

        self._crew.work(jobs, done)

    def _first_jobs(self) -> Iterator[Job]:
        for split, rows in self._splits.items():
            for number, row in enumerate(rows()):
                if self._memory.outcome(split, number) is None:
                    yield Job(split, number, row, rescue=False)

    def _rescue_jobs(self, split: str, label: int) -> Iterator[Job]:
        for number, row in enumerate(self._splits[split]()):
            if row.label != label:
                continue
            outcome = self._memory.outcome(split, number)
            if outcome is not None and outcome.status == FAILED and not outcome.rescue:
                yield Job(split, number, row, rescue=True)

    def _refuse_duplicates(self, split: str) -> None:
        """Refuses reasons of which too many rows before have nearly the same. Done twice, it changes nothing."""
        share = self._explain.checks.max_duplicate_share
        if share >= 1.0 or not self._explain.checks.form:
            return
        num_rows = sum(count.num_rows for count in self._memory.class_counts(split).values())
        most = max(_MIN_DUPLICATES, math.ceil(share * num_rows))
        only_counted = self._explain.teacher == "column" and not self._explain.checks.drop_written
        seen = BandCounts(self._memory.connection)
        for outcome in self._memory.outcomes(split):
            if outcome.status != KEPT or outcome.reason is None:
                continue
            if seen.largest(outcome.reason) < most:
                seen.add(outcome.reason)
            elif DUPLICATE not in outcome.refused:
                status, refused = KEPT if only_counted else FAILED, (*outcome.refused, DUPLICATE)
                self._memory.keep_outcome(split, replace(outcome, status=status, cause=DUPLICATE, refused=refused))


def first_counts(memory: TeacherMemory) -> dict[str, dict[int, ClassCount]]:
    """Rows by split and label as they stood before any class was rescued."""
    stored = json.loads(memory.fact("first_counts") or "{}")
    return {split: {int(label): ClassCount(*count) for label, count in by.items()} for split, by in stored.items()}


def lagging_classes(counts: Mapping[str, Mapping[int, ClassCount]]) -> list[tuple[str, int]]:
    """Classes that keep a smaller share of their rows than the best one of their split, the smallest share first."""
    lagging = []
    for split, by_label in counts.items():
        shares = {label: c.num_kept / c.num_rows for label, c in by_label.items() if label != UNLABELLED}
        best = max(shares.values(), default=0.0)
        lagging += [(share, split, label) for label, share in shares.items() if share < best]
    return [(split, label) for _, split, label in sorted(lagging)]


def _counts_to_json(counts: Mapping[str, Mapping[int, ClassCount]]) -> str:
    return json.dumps({split: {label: astuple(count) for label, count in by.items()} for split, by in counts.items()})
