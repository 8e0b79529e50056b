"""A chat model behind an OpenAI-compatible endpoint: one policy for its faults, limits kept, the key never said.

Errors quote the status and the code of an answer, never its message: servers put prompts and keys into those. For the
same reason no error of a library is ever the context of one of ours.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from clsgen_dist.chat.address import CONNECT_SECONDS, check_endpoint, key_of, place_of, told_by, what_to_mend
from clsgen_dist.chat.interface import ENDED_EARLY, NO_WORDS, WITHHELD, Completion, Request
from clsgen_dist.chat.limits import Limits, Usage, check_spent, estimate_tokens, seconds_to_wait
from clsgen_dist.chat.thinking import without_thinking
from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.errors import TeacherError

if TYPE_CHECKING:
    import openai

__all__ = ["EndpointChat", "check_endpoint"]

#: Wait before the second attempt, and before any, at most. It doubles at each attempt, and half of it is drawn.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0

#: An endpoint that asks to wait longer ends the run, which a person can take up again.
LONGEST_RETRY_AFTER_SECONDS = 900.0

#: Servers such as uvicorn hang up on a connection that was idle for five seconds.
_KEEP_ALIVE_SECONDS = 4.0

#: Further attempts at an answer without words; after these it is what the model has to say.
_BLANK_RETRIES = 2

_TRANSIENT = (408, 409, 425, 429)
_OF_ONE_REQUEST = (400, 413, 422, 451)

#: Codes for a field or value that the model does not take, and the fields that a request can do without.
_NOT_TAKEN = ("unsupported_parameter", "unsupported_value")
_DISPENSABLE = ("max_tokens", "temperature", "seed")


class _Fault(Exception):
    """An attempt failed; another one may not."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


@dataclass
class _Tally:
    """What the attempts at one request came to."""

    usage: Usage
    num_blank: int = 0


class EndpointChat:
    """Asks an endpoint; see `Chat`.

    Attributes:
        usage: tokens spent, with those of earlier runs.
        in_flight: requests that wait for the endpoint now.
        faults: attempts that failed, by kind: a status, "timeout", "connection", "broken answer" or NO_WORDS.
        not_taken: fields that the endpoint says its model does not take, as temperature of some reasoning models;
            they are sent no more.
    """

    def __init__(self, settings: ChatSettings, spent: Usage | None = None) -> None:
        """Connects to nothing yet.

        Args:
            settings: the settings; `base_url` and `model` are set.
            spent: tokens of the budget that earlier runs have spent.

        Raises:
            ConfigError: the key is not in the environment, or `base_url` is no address.
        """
        import httpx2
        import openai
        import tenacity

        from clsgen_dist.chat.bounded import HEADERS, bound

        self._settings = settings
        # aiohttp takes two thirds of the processor time of the default transport, which 64 requests at a time need.
        limits = httpx2.Limits(
            max_connections=settings.requests_in_flight,
            max_keepalive_connections=settings.requests_in_flight,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        )
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=key_of(settings),
            max_retries=0,
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            default_headers=HEADERS,
            http_client=openai.DefaultAioHttpClient(limits=limits, event_hooks={"response": [bound]}),
        )
        self._limits = Limits(settings)
        self._slots = asyncio.Semaphore(settings.requests_in_flight)
        first, longest = FIRST_WAIT_SECONDS / 2, LONGEST_WAIT_SECONDS / 2
        self._retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Fault),
            stop=tenacity.stop_after_attempt(1 + settings.max_retries),
            wait=tenacity.wait_exponential(first, longest) + tenacity.wait_random_exponential(first, longest),
            sleep=asyncio.sleep,
            reraise=True,
        )
        self.usage = spent or Usage()
        self.in_flight = 0
        self.faults: Counter[str] = Counter()
        self.not_taken: set[str] = set()

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def complete(self, request: Request) -> Completion:
        """Answers one request; see `Chat.complete`. The tokens of the answer are those of all attempts at it."""
        tally = _Tally(Usage())
        try:
            # A copy, as the object keeps where it stands in an attempt.
            return cast(Completion, await self._retrying.copy()(self._attempt, request, tally))
        except _Fault as error:
            fault = error
        if fault.kind == NO_WORDS:
            return _completion(tally, fault=NO_WORDS)
        section = self._settings.section
        hint = f" Fewer {section}.requests_in_flight, or {section}.requests_per_minute, may help."
        raise TeacherError(
            f"{place_of(self._settings)}: {fault}, in {1 + self._settings.max_retries} attempts at one request."
            f"{hint * (fault.kind == '429')} "
            "The run stopped and nothing is lost: what was answered is kept, and the same command goes on."
        )

    async def _attempt(self, request: Request, tally: _Tally) -> Completion:
        characters = sum(len(message["content"]) for message in request.messages)
        async with self._slots:
            await self._limits.admit(estimate_tokens(characters) + request.max_tokens)
            check_spent(self.usage, self._settings)
            self.in_flight += 1
            try:
                content = await self._send(request)
                if content is None:
                    return _completion(tally, fault=WITHHELD)
                return self._read(content, characters, tally)
            except _Fault as fault:
                self.faults[fault.kind] += 1
                raise
            finally:
                self.in_flight -= 1

    async def _send(self, request: Request) -> bytes | None:
        """The body of the answer; None where the endpoint refuses this one request."""
        import aiohttp
        import httpx2
        import openai

        from clsgen_dist.chat.bounded import UnboundedAnswer

        settings = self._settings
        fields = {"max_tokens": request.max_tokens, "temperature": request.temperature, "seed": request.seed}
        body: dict[str, Any] = {name: value for name, value in fields.items() if name not in self.not_taken}
        if "max_tokens" in self.not_taken:
            body["max_completion_tokens"] = request.max_tokens
        body |= {"model": settings.model, "messages": request.messages}
        if request.schema is not None:
            form = {"name": "answer", "strict": True, "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        body |= settings.extra_body or {}
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                # chat.completions.create looks at every field of every message for what it might convert, which
                # takes as long as the rest of the request.
                answer = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=body)
                return answer.content
        except openai.APIStatusError as error:
            found: openai.APIStatusError | _Fault = error
        except TimeoutError:
            found = _Fault("timeout", f"no answer in {settings.section}.timeout_seconds = {settings.timeout_seconds:g}")
        except UnboundedAnswer:
            found = _Fault("broken answer", "an answer that is no completion")
        except (openai.APIError, httpx2.HTTPError, aiohttp.ClientError, OSError):
            found = _Fault("connection", "no connection, or one that broke")
        if isinstance(found, _Fault):
            raise found
        self._judge(found, body)
        return None

    def _judge(self, error: openai.APIStatusError, body: dict[str, Any]) -> None:
        """Raises what a status means; returns where it is about this one request."""
        status, told = error.status_code, told_by(error)
        if status in _TRANSIENT or status >= 500:
            seconds = seconds_to_wait(error.response.headers) or 0.0
            if seconds > LONGEST_RETRY_AFTER_SECONDS:
                raise TeacherError(
                    f"{place_of(self._settings)}: answered {told} and asks to wait for {seconds:,.0f} seconds. The run "
                    "stopped and nothing is lost: what was answered is kept, and the same command goes on then."
                )
            self._limits.close(seconds)
            raise _Fault(str(status), f"answered {told}")
        if error.code in _NOT_TAKEN and error.param in body:
            if error.param in _DISPENSABLE:
                self.not_taken.add(error.param)
                raise _Fault(str(status), f"answered {told}")
            is_schema = error.param == "response_format" and error.param not in (self._settings.extra_body or {})
            raise TeacherError(
                f"{place_of(self._settings)}: answered {told} about {error.param!r}; see "
                f"{self._settings.section}.{'guided' if is_schema else 'extra_body'}"
            )
        if status not in _OF_ONE_REQUEST:
            raise TeacherError(f"{what_to_mend(self._settings, error)} What was answered is kept.")

    def _read(self, content: bytes, characters: int, tally: _Tally) -> Completion:
        try:
            body = json.loads(content)
            choices, usage = body["choices"], body.get("usage")
            choice = choices[0] if choices else None
            message = choice["message"] if choice else {}
            text = _text(message.get("content"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            text = None
        if text is None:
            raise _Fault("broken answer", "an answer that is no completion")
        counts = usage if isinstance(usage, dict) else {}
        spent = Usage(
            prompt_tokens=_count(counts.get("prompt_tokens"), characters),
            completion_tokens=_count(counts.get("completion_tokens"), len(text)),
        )
        self.usage += spent
        tally.usage += spent
        if choice is None:
            raise _Fault(NO_WORDS, "an answer without choices")
        reason = choice.get("finish_reason")
        if reason == "content_filter" or message.get("refusal"):
            return _completion(tally, fault=WITHHELD)
        words = without_thinking(text)
        if words:
            return _completion(tally, words)
        if reason == "length":
            return _completion(tally, fault=ENDED_EARLY)
        tally.num_blank += 1
        if tally.num_blank > _BLANK_RETRIES:
            return _completion(tally, fault=NO_WORDS)
        raise _Fault(NO_WORDS, "an answer without words")


def _completion(tally: _Tally, text: str = "", fault: str | None = None) -> Completion:
    usage = tally.usage
    # Half of a surrogate pair, which JSON can escape, could be written into no file.
    words = text.encode(errors="replace").decode()
    return Completion(
        text=words, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, fault=fault
    )


def _text(content: Any) -> str | None:
    """The words of a message; None where it is no message. Some endpoints answer in parts, thinking among them."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content if isinstance(content, str) else "" if content is None else None


def _count(tokens: Any, characters: int) -> int:
    """Tokens as the endpoint counted them, or an estimate where it did not."""
    return tokens if isinstance(tokens, int) and tokens >= 0 else estimate_tokens(characters)
