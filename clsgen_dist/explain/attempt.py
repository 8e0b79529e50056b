"""From one row to its outcome: asked blind, explained, checked, read, and tried again where a check refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from clsgen_dist.config.explain import Explain
from clsgen_dist.explain.memory import FAILED, KEPT, UNLABELLED_ROW, Outcome
from clsgen_dist.explain.teacher import Teacher
from clsgen_dist.records import UNLABELLED, Row

#: Cause for which the words of a reason are refused, or None.
FaultOf = Callable[[str, Row], str | None]

#: Readings behind the score of one of several reasons; each shows the labels in another order.
_NUM_READINGS = 2

#: Why a row has no reason beside what the words themselves show.
DISAGREES, UNCONVINCING, UNWRITTEN = "disagrees", "unconvincing", "unwritten"


class Explainer(Protocol):
    """Brings rows to their outcomes, one by one."""

    @property
    def num_at_once(self) -> int:
        """Rows worth working on at one time."""
        ...

    async def run(self, number: int, row: Row, *, rescue: bool) -> Outcome:
        """Works on one row.

        Args:
            number: of the row in its split.
            row: the row.
            rescue: whether these are the further attempts after those of the first round.

        Raises:
            TeacherError: the teacher cannot be reached any more, or the budget is spent.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections, threads and memory."""
        ...


@dataclass(frozen=True)
class TaughtReasons:
    """Reasons that a teacher is asked for."""

    teacher: Teacher
    explain: Explain
    fault_of: FaultOf

    @property
    def num_at_once(self) -> int:
        """See `Explainer`."""
        return self.teacher.num_at_once

    async def close(self) -> None:
        """See `Explainer`."""
        await self.teacher.close()

    async def run(self, number: int, row: Row, *, rescue: bool) -> Outcome:
        """See `Explainer`: asks until a reason passes every check or the attempts are spent."""
        if row.label is None:  # nothing to argue for; what people wrote of it trains the language model all the same
            status = UNLABELLED_ROW if row.explanation is None else KEPT
            return Outcome(number=number, label=UNLABELLED, status=status, reason=row.explanation)
        asked = self.explain.checks.agreement
        blind = await self.teacher.answer_blind(row) if asked else None
        agrees = not asked or blind == row.label
        first = self.explain.tries if rescue else 0
        num_attempts = self.explain.rescue_tries if rescue else self.explain.tries
        fault = None if agrees else DISAGREES
        refused: list[str] = []
        reason: str | None = None
        for attempt in range(first, first + num_attempts):
            reason, fault = await self._attempt(row, attempt, fault, must_read=not agrees)
            if fault is None:
                break
            refused.append(fault)
        return Outcome(
            number=number,
            label=row.label,
            status=FAILED if reason is None else KEPT,
            reason=reason,
            cause=fault,
            attempts=len(refused) + (reason is not None),
            blind=blind,
            asked_blind=asked,
            rescue=rescue,
            refused=tuple(refused),
        )

    async def _attempt(
        self, row: Row, attempt: int, fault: str | None, *, must_read: bool
    ) -> tuple[str | None, str | None]:
        """The best of the attempt's reasons and None, or None and why there is none."""
        best, best_score, cause = None, 0.0, fault
        for sample in range(self.explain.num_samples):
            number = attempt * self.explain.num_samples + sample
            reason, refusal = await self.teacher.give_reason(row, attempt=number, fault=fault)
            refusal = refusal or self.fault_of(reason, row)
            if refusal is not None:
                cause = refusal
                continue
            score = await self._score(row, reason, must_read=must_read)
            if must_read and score == 0.0:
                cause = UNCONVINCING
            elif best is None or score > best_score:
                best, best_score = reason, score
        return (best, None) if best is not None else (None, cause)

    async def _score(self, row: Row, reason: str, *, must_read: bool) -> float:
        """Share of readings that find the row's label; 0 where the first one, which decides, does not."""
        is_choice = self.explain.num_samples > 1
        if not must_read and not is_choice:
            return 1.0
        if await self.teacher.read(reason, reading=0) != row.label:
            return 0.0
        further = [await self.teacher.read(reason, reading=n) for n in range(1, _NUM_READINGS)] if is_choice else []
        return (1 + sum(label == row.label for label in further)) / (1 + len(further))


@dataclass(frozen=True)
class WrittenReasons:
    """Reasons that people wrote, looked at by the checks of words; refused only where the user asks for it."""

    explain: Explain
    fault_of: FaultOf
    num_at_once: int = 1

    async def close(self) -> None:
        """See `Explainer`."""

    async def run(self, number: int, row: Row, *, rescue: bool) -> Outcome:
        """See `Explainer`. A row without label keeps its reason too: it trains the language model."""
        label = UNLABELLED if row.label is None else row.label
        if row.explanation is None:
            status = UNLABELLED_ROW if row.label is None else FAILED
            return Outcome(number=number, label=label, status=status, cause=UNWRITTEN)
        fault = self.fault_of(row.explanation, row)
        dropped = fault is not None and self.explain.checks.drop_written
        return Outcome(
            number=number,
            label=label,
            status=FAILED if dropped else KEPT,
            reason=None if dropped else row.explanation,
            cause=fault,
            attempts=1,
            refused=() if fault is None else (fault,),
        )
