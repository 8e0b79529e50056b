"""What every teacher can be asked."""

from __future__ import annotations

from typing import Protocol

from clsgen_dist.records import Row


class Teacher(Protocol):
    """Writes reasons. All three questions may be asked of many rows at one time."""

    #: How many rows are worth asking about at one time.
    num_at_once: int

    async def answer_blind(self, row: Row) -> int | None:
        """The label that the teacher itself gives to the text, without being told; None where it gives none."""
        ...

    async def give_reason(self, row: Row, *, attempt: int, fault: str | None) -> tuple[str, str | None]:
        """Words why `row.label` holds.

        Args:
            row: a row with a label.
            attempt: number of the attempt, from 0; another attempt gives other words where it can.
            fault: why the attempt before was refused, or None.

        Returns:
            The reason and None, or "" and why there is none.
        """
        ...

    async def read(self, reason: str, *, reading: int = 0) -> int | None:
        """The label that a reader finds in a reason without seeing the text; None where it finds none.

        Args:
            reason: words that argue for a label.
            reading: number of the reading, from 0; another one shows the labels in another order.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections, threads and memory."""
        ...
