"""What a teacher behind an endpoint may spend, and how fast."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from aiolimiter import AsyncLimiter

from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.errors import TeacherError

#: Characters of a token, at least on average. A low number makes an estimate high, and so keeps a limit.
_CHARACTERS_PER_TOKEN = 3

#: One price is of so many tokens.
_PRICED_TOKENS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens as the endpoint counted them; thinking is a part of the answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers."""
        return self.prompt_tokens + self.completion_tokens

    def cost(self, settings: ChatSettings) -> float:
        """What they cost, in the currency of the prices."""
        return (
            self.prompt_tokens * settings.input_price + self.completion_tokens * settings.output_price
        ) / _PRICED_TOKENS


def estimate_tokens(num_characters: int) -> int:
    """Tokens of so many characters, rather too many than too few."""
    return math.ceil(num_characters / _CHARACTERS_PER_TOKEN)


def check_spent(usage: Usage, settings: ChatSettings) -> None:
    """Refuses to go on when the budget is spent.

    Raises:
        TeacherError: `budget_tokens` or `budget_cost` is reached.
    """
    ends = "What was answered is kept, and the same command goes on once the budget is raised."
    if settings.budget_tokens is not None and usage.tokens >= settings.budget_tokens:
        raise TeacherError(
            f"the budget is spent: {usage.tokens:,} tokens of {settings.section}.budget_tokens = "
            f"{settings.budget_tokens:,}. {ends}"
        )
    cost = usage.cost(settings)
    if settings.budget_cost is not None and cost >= settings.budget_cost:
        raise TeacherError(
            f"the budget is spent: {cost:,.4f} of {settings.section}.budget_cost = {settings.budget_cost:,.4f}. {ends}"
        )


def seconds_to_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """How long an answer asks to wait: by retry-after-ms, or Retry-After in seconds or as a date.

    Args:
        headers: of the answer, their names in lower case or read without regard to it.
        now: the present, with a time zone; None reads the clock.

    Returns:
        Seconds, at least 0; None where nothing is asked, or nothing that can be read.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                date = parsedate_to_datetime(value)
            except ValueError:
                continue
            # A date "-0000" has no zone and means UTC.
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


class Pace:
    """Lets amounts through at a steady pace, first come, first served.

    A leaky bucket as large as the limit would let twice the limit through in its first minute. This one holds what
    may pass in a second, and leaks so much slower that no minute sees more than the limit. An amount larger than the
    bucket passes in portions, before its request starts; one larger than the limit counts as the limit.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._portion = max(1, per_minute // 60)
        leaking = per_minute - self._portion + 1  # a minute; with a full bucket it makes the limit
        self._bucket = AsyncLimiter(self._portion, 60 * self._portion / leaking)

    async def take(self, amount: int) -> None:
        """Waits until the amount may pass. One caller at a time."""
        left = min(amount, self._per_minute)
        while left > 0:
            portion = min(left, self._portion)
            await self._bucket.acquire(portion)
            left -= portion


class Limits:
    """The door through which every request to an endpoint goes, one after another."""

    def __init__(self, settings: ChatSettings) -> None:
        self._requests = Pace(settings.requests_per_minute) if settings.requests_per_minute else None
        self._tokens = Pace(settings.tokens_per_minute) if settings.tokens_per_minute else None
        self._turn = asyncio.Lock()
        self._closed_until = 0.0  # by the clock of the event loop

    async def admit(self, tokens: int) -> None:
        """Waits until a request may start.

        Args:
            tokens: estimate of its prompt and answer together.
        """
        # The buckets serve small amounts first, and a closed door would let all through at once that had passed the
        # buckets meanwhile. With one request at a time before both, neither happens.
        async with self._turn:
            if self._requests:
                await self._requests.take(1)
            if self._tokens:
                await self._tokens.take(tokens)
            loop = asyncio.get_running_loop()
            while (seconds := self._closed_until - loop.time()) > 0:
                await asyncio.sleep(seconds)

    def close(self, seconds: float) -> None:
        """Admits no request for so long; what was admitted goes on."""
        self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + seconds)
