"""What the teacher has answered and what became of each row, on disk: kill -9 loses the requests in flight, no more.

One SQLite file a run. Every answer and every outcome is committed at once, so the same command goes on where it was,
and nothing is held in memory that grows with the number of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsgen_dist.errors import TeacherError
from clsgen_dist.explain.teacher import Completion

#: What became of a row.
KEPT, FAILED, UNLABELLED_ROW = "kept", "failed", "unlabelled"

_TABLES = """
create table if not exists answers (
    key text primary key, text text not null, prompt_tokens integer not null, completion_tokens integer not null,
    fault text
) without rowid;
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


class TeacherMemory:
    """Answers by request and outcomes by row."""

    def __init__(self, path: Path, *, patience_seconds: float = 5.0) -> None:
        """Opens or makes the file. Raises TeacherError where it is no such file or another process writes to it."""
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=patience_seconds)
        try:
            self.connection.execute("pragma locking_mode = exclusive")  # two at one run would ask everything twice
            self.connection.execute("pragma journal_mode = wal")
            self.connection.execute("pragma synchronous = normal")  # survives a killed process, not a torn disk
            self.connection.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise TeacherError(
                f"{path}: cannot be used ({error}); another process may be writing to it; else move it away"
            ) from None
        # Kept along, since a sum over all answers at every row would cost more with every row.
        self._totals = list(
            self.connection.execute(
                "select count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) from answers"
            ).fetchone()
        )

    def close(self) -> None:
        self.connection.close()

    def recall(self, key: str) -> Completion | None:
        """The answer to a request that was asked before."""
        found = self.connection.execute(
            "select text, prompt_tokens, completion_tokens, fault from answers where key = ?", (key,)
        ).fetchone()
        if found is None:
            return None
        return Completion(text=found[0], prompt_tokens=found[1], completion_tokens=found[2], fault=found[3])

    def remember(self, key: str, answer: Completion) -> None:
        """Keeps an answer for good."""
        cursor = self.connection.execute(
            "insert or ignore into answers values (?, ?, ?, ?, ?)",
            (key, answer.text, answer.prompt_tokens, answer.completion_tokens, answer.fault),
        )
        if cursor.rowcount == 1:
            for place, amount in enumerate((1, answer.prompt_tokens, answer.completion_tokens)):
                self._totals[place] += amount

    def totals(self) -> tuple[int, int, int]:
        """Answers, prompt tokens and answer tokens so far."""
        answers, prompt_tokens, completion_tokens = self._totals
        return answers, prompt_tokens, completion_tokens

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
