"""What a person sees while rows are explained: rows done, kept, rescued, given up; requests, tokens, cost."""

from __future__ import annotations

from collections.abc import Callable

from clsgen_dist.config.explain import Explain
from clsgen_dist.explain.memory import FAILED, KEPT, Outcome, TeacherMemory
from clsgen_dist.explain.rounds import first_counts, lagging_classes
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import EXPLAINED_SPLITS


class Watch:
    """Counts rows as they are done and tells the listener.

    Attributes:
        in_flight: says how many requests wait for the teacher now; set by a teacher that sends any.
    """

    def __init__(self, explain: Explain, memory: TeacherMemory, listener: Listener, *, num_rows: int) -> None:
        """Begins with what the memory holds of earlier runs."""
        self._explain = explain
        self._memory = memory
        self._listener = listener
        self._num_rows = num_rows
        self._num_rescue_done = 0
        self._num_rescue_jobs: int | None = None
        self._last: Event | None = None
        self.in_flight: Callable[[], int] | None = None
        self._count()

    def heard(self, split: str, outcome: Outcome) -> None:
        """Hears of a row of a split that is done."""
        kept = outcome.status == KEPT
        if outcome.rescue:
            if self._num_rescue_jobs is None:  # duplicates were refused meanwhile; the outcome heard counts already
                self._count()
                self._num_rescue_jobs = self._count_rescue_jobs()
            else:
                self._num_kept += kept
                self._num_rescued += kept
                self._num_given_up -= kept
            self._num_rescue_done += 1
            self._tell(Event("rescue", self._num_rescue_done, self._num_rescue_jobs, self._note()))
        else:
            self._num_kept += kept
            self._num_given_up += outcome.status == FAILED
            self._num_done += 1
            self._tell(Event("explain", self._num_done, self._num_rows, self._note()))

    def done(self) -> None:
        """Hears that every row has its outcome, perhaps from an earlier run, and that duplicates were refused."""
        self._count()
        stage, num_jobs = (
            ("explain", self._num_rows) if self._num_rescue_jobs is None else ("rescue", self._num_rescue_jobs)
        )
        self._tell(Event(stage, num_jobs, num_jobs, self._note()))

    def _tell(self, event: Event) -> None:
        if event != self._last:
            self._last = event
            self._listener(event)

    def _count(self) -> None:
        """Takes the counts from the memory."""
        self._num_done = self._num_kept = self._num_given_up = self._num_rescued = 0
        for split in EXPLAINED_SPLITS:
            for count in self._memory.class_counts(split).values():
                self._num_done += count.num_rows
                self._num_kept += count.num_kept
                self._num_given_up += count.num_failed
                self._num_rescued += count.num_rescued

    def _count_rescue_jobs(self) -> int:
        """Rows that this rescue works on, the one just heard of included."""
        first = first_counts(self._memory)
        counts = [first[split][label] for split, label in lagging_classes(first)]
        return sum(count.num_failed for count in counts) - self._num_rescued_before()

    def _num_rescued_before(self) -> int:
        return sum(self._memory.num_tried_again(split) for split in EXPLAINED_SPLITS) - 1

    def _note(self) -> str:
        words = f"kept {self._num_kept:,}, rescued {self._num_rescued:,}, given up {self._num_given_up:,}"
        if self.in_flight is None:
            return words
        usage = self._memory.usage
        words += f"\n{self.in_flight()} in flight, {usage.tokens:,} tokens"
        if self._explain.input_price or self._explain.output_price:
            words += f", cost {usage.cost(self._explain):,.4f}"
        return words
