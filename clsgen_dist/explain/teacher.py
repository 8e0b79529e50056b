"""What every teacher can be asked, and what a chat model answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from clsgen_dist.records import Row

#: One turn of a conversation, as {"role": "user", "content": "..."}.
Message = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request to a chat model; equal requests have equal answers, so each is asked once.

    Attributes:
        messages: the conversation.
        temperature: of the sampling; 0 is greedy.
        max_tokens: tokens of the answer, thinking included, at most.
        seed: tells attempts apart that say the same; sent along.
    """

    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a chat model answered.

    Attributes:
        text: its words without thinking; empty where there are none.
        prompt_tokens, completion_tokens: as counted by the model's own server; thinking included.
        fault: why there are no words, as "empty", "cut off" or "refused by the endpoint"; None where there are.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    fault: str | None = None


class Chat(Protocol):
    """A chat model, wherever it runs."""

    async def complete(self, request: Request) -> Completion:
        """Answers one request.

        Raises:
            TeacherError: the model cannot be reached any more, or the budget is spent; what was answered is kept.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections, threads and memory."""
        ...


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
