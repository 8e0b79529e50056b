"""What the teacher has answered and what became of each row, on disk: kill -9 loses the requests in flight, no more.

One SQLite file a run. Every answer and every outcome is committed at once, so the same command goes on where it was,
and nothing is held in memory that grows with the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clsgen_dist.chat.answers import AnswerMemory

#: What became of a row.
KEPT, FAILED, UNLABELLED_ROW = "kept", "failed", "unlabelled"

_TABLES = """
create table if not exists outcomes (
    split text not null, number integer not null, label integer not null, status text not null, reason text,
    cause text, attempts integer not null, blind integer, asked_blind integer not null, rescue integer not null,
    refused text not null,
    primary key (split, number)
) without rowid;
create table if not exists facts (name text primary key, value text not null) without rowid;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one row.

    Attributes:
        number: of the row in its split, from 0.
        label: number of its label, or UNLABELLED.
        status: KEPT, FAILED or UNLABELLED_ROW.
        reason: the words that passed every check, or None.
        cause: why the last attempt was refused, None where the row is kept.
        attempts: reasons that were asked for.
        blind: the teacher's own label, None where it gave none or was not asked.
        asked_blind: whether it was asked.
        rescue: whether the outcome is of the further attempts for classes that kept a smaller share.
        refused: causes of the attempts that were refused, in their order.
    """

    number: int
    label: int
    status: str
    reason: str | None = None
    cause: str | None = None
    attempts: int = 0
    blind: int | None = None
    asked_blind: bool = False
    rescue: bool = False
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassCount:
    """Rows of one label in one split by outcome; `rescued` are part of `kept`."""

    num_rows: int = 0
    num_kept: int = 0
    num_rescued: int = 0
    num_failed: int = 0


class TeacherMemory(AnswerMemory):
    """Answers by request and outcomes by row."""

    tables = AnswerMemory.tables + _TABLES

    def start(self, settings: str) -> None:
        """Begins or goes on. Outcomes of other settings are worked out anew, from the answers that are here."""
        before = self.connection.execute("select value from facts where name = 'settings'").fetchone()
        if before is None or before[0] != settings:
            self.connection.execute("begin")
            self.connection.execute("delete from outcomes")
            self.connection.execute("delete from facts")
            self.connection.execute("insert into facts values ('settings', ?)", (settings,))
            self.connection.execute("commit")

    def fact(self, name: str) -> str | None:
        """A note of the stage's own, as which classes are rescued."""
        found = self.connection.execute("select value from facts where name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def keep_fact(self, name: str, value: str) -> None:
        self.connection.execute("insert or replace into facts values (?, ?)", (name, value))

    def outcome(self, split: str, number: int) -> Outcome | None:
        """What became of a row, None where it is not done."""
        found = self.connection.execute(
            "select * from outcomes where split = ? and number = ?", (split, number)
        ).fetchone()
        return None if found is None else _outcome(found)

    def keep_outcome(self, split: str, outcome: Outcome) -> None:
        """Notes what became of a row."""
        self.connection.execute(
            "insert or replace into outcomes values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(split, outcome.number, outcome.label, outcome.status, outcome.reason, outcome.cause),
                *(outcome.attempts, outcome.blind, outcome.asked_blind, outcome.rescue, "\n".join(outcome.refused)),
            ),
        )

    def outcomes(self, split: str) -> Iterator[Outcome]:
        """All outcomes of a split in the order of its rows; rows may be noted meanwhile."""
        last = -1
        while True:
            some = self.connection.execute(
                "select * from outcomes where split = ? and number > ? order by number limit 1000", (split, last)
            ).fetchall()
            if not some:
                return
            for found in some:
                yield _outcome(found)
            last = some[-1][1]

    def class_counts(self, split: str) -> dict[int, ClassCount]:
        """Rows by label number."""
        found = self.connection.execute(
            "select label, count(*), sum(status = ?), sum(status = ? and rescue), sum(status = ?) from outcomes "
            "where split = ? group by label order by label",
            (KEPT, KEPT, FAILED, split),
        )
        return {label: ClassCount(*counts) for label, *counts in found}

    def num_tried_again(self, split: str) -> int:
        """Rows that were given the further attempts of a rescue."""
        query = "select count(*) from outcomes where split = ? and rescue"
        return int(self.connection.execute(query, (split,)).fetchone()[0])


def _outcome(found: tuple[Any, ...]) -> Outcome:
    _, number, label, status, reason, cause, attempts, blind, asked_blind, rescue, refused = found
    return Outcome(
        number=number,
        label=label,
        status=status,
        reason=reason,
        cause=cause,
        attempts=attempts,
        blind=blind,
        asked_blind=bool(asked_blind),
        rescue=bool(rescue),
        refused=tuple(refused.split("\n")) if refused else (),
    )
