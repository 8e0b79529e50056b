"""What a chat model has answered, on disk: kill -9 loses the requests in flight, no more.

One SQLite file. Every answer is committed at once, and nothing is held in memory that grows with their number.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple
from pathlib import Path
from typing import ClassVar

from clsgen_dist.chat.interface import Completion
from clsgen_dist.chat.limits import Usage
from clsgen_dist.errors import TeacherError


class AnswerMemory:
    """Answers by the key of their request."""

    tables: ClassVar[str] = """
create table if not exists answers (
    key text primary key, text text not null, prompt_tokens integer not null, completion_tokens integer not null,
    fault text
) without rowid;
"""

    def __init__(self, path: Path, *, patience_seconds: float = 5.0) -> None:
        """Opens or makes the file. Raises TeacherError where it is no such file or another process writes to it."""
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=patience_seconds)
        try:
            self.connection.execute("pragma locking_mode = exclusive")  # two at one run would ask everything twice
            self.connection.execute("pragma journal_mode = wal")
            self.connection.execute("pragma synchronous = normal")  # survives a killed process, not a torn disk
            self.connection.executescript(self.tables)
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise TeacherError(
                f"{path}: cannot be used ({error}); another process may be writing to it; else move it away"
            ) from None
        # Kept along, since a sum over all answers at every row would cost more with every row.
        self.num_answers, *tokens = self.connection.execute(
            "select count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) from answers"
        ).fetchone()
        self.usage = Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1])

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
            "insert or ignore into answers values (?, ?, ?, ?, ?)", (key, *astuple(answer))
        )
        if cursor.rowcount == 1:
            self.num_answers += 1
            self.usage += Usage(prompt_tokens=answer.prompt_tokens, completion_tokens=answer.completion_tokens)
