"""What a chat model is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

#: Why an answer holds no words.
NO_WORDS = "empty"
ENDED_EARLY = "cut off"
WITHHELD = "refused by the endpoint"
UNREADABLY_LONG = "too long for the model"

#: Keyword of a request's schema, beside those of JSON schemas: what the whole numbers of an object sum to. Only a model
#: on this machine is held to it.
SUM = "x-sum"

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
        schema: JSON schema that the answer has to keep to, where the model can be held to one; None: any words.
    """

    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    seed: int
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a chat model answered.

    Attributes:
        text: its words without thinking; empty where there are none.
        prompt_tokens, completion_tokens: as counted by the model's own server; thinking included.
        fault: why there are no words: NO_WORDS, ENDED_EARLY, WITHHELD or UNREADABLY_LONG; None where there are.
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
