"""Where an endpoint is, whether it is there and knows the model, and what it means when it refuses."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.errors import ConfigError

if TYPE_CHECKING:
    import openai

#: Longest wait for a connection, and for the list of models.
CONNECT_SECONDS = 10.0

_CHECK_RETRIES = 2

#: Statuses of what stands before an endpoint that is not up. 500 and 501 may only say that there is no list.
_DOWN = (502, 503, 504)

#: Names of models that a message tells, at most.
_TOLD_MODELS = 8


def check_endpoint(settings: ChatSettings) -> None:
    """Finds out before any row is spent whether the endpoint can be asked.

    The model has to be among those that the endpoint lists. Where it is not, or none are listed, one answer of one
    token is asked for: some servers load a model, or take any name, when they are asked.

    Args:
        settings: the settings; `base_url` and `model` are set.

    Raises:
        ConfigError: the key is missing or refused, nobody answers, or the model is unknown.
    """
    import openai

    from clsgen_dist.chat.bounded import HEADERS, UnboundedAnswer, bound_sync

    with openai.OpenAI(
        base_url=settings.base_url,
        api_key=key_of(settings),
        timeout=CONNECT_SECONDS,
        max_retries=_CHECK_RETRIES,
        default_headers=HEADERS,
        http_client=openai.DefaultHttpxClient(event_hooks={"response": [bound_sync]}),
    ) as client:
        listed = _listed_models(client, settings)
        if settings.model in listed:
            return
        body = {"model": settings.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        refused = None
        try:
            client.post("/chat/completions", cast_to=object, body=body, options={"timeout": settings.timeout_seconds})
        except openai.APIStatusError as error:
            refused = error
        except (openai.APIError, ValueError, UnboundedAnswer):
            return  # it is there, and what goes wrong on the way is mended by further attempts
    if refused is None or refused.status_code in (408, 429) or refused.code == "unsupported_parameter":
        return  # of all settings, the model is the one that is asked about here
    if not listed or refused.status_code in (401, 403):
        raise ConfigError(what_to_mend(settings, refused))
    near = difflib.get_close_matches(settings.model or "", listed, n=1, cutoff=0.4)
    rest = sorted(set(listed) - set(near))[: _TOLD_MODELS - len(near)]
    more = ", ..." if len(listed) > len(near) + len(rest) else ""
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"{settings.section}.model: {place_of(settings)} knows no model {settings.model!r} ({told_by(refused)})."
        f"{meant} It lists {', '.join(map(repr, near + rest))}{more}"
    )


def _listed_models(client: openai.OpenAI, settings: ChatSettings) -> list[str]:
    """Names of models that the endpoint lists; none where it keeps no list.

    Raises:
        ConfigError: the key is refused, or nobody answers.
    """
    import openai

    from clsgen_dist.chat.bounded import UnboundedAnswer

    answer: Any = None
    refused: openai.APIStatusError | None = None
    down = False
    try:
        answer = client.get("/models", cast_to=object)
    except openai.APIStatusError as error:
        refused = error
    except openai.APIConnectionError:
        down = True
    except (openai.APIError, ValueError, UnboundedAnswer):
        return []  # an answer, but no list
    if down:
        raise ConfigError(
            f"{settings.section}.base_url: nobody answers at {place_of(settings)} ({1 + _CHECK_RETRIES} attempts); "
            "expected an OpenAI-compatible endpoint that is up"
        )
    if refused is not None and (refused.status_code in (401, 403) or refused.status_code in _DOWN):
        raise ConfigError(what_to_mend(settings, refused))
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        return []
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str)]


def key_of(settings: ChatSettings) -> str:
    """The endpoint's key, or a word in its place where it takes none.

    Raises:
        ConfigError: the environment does not hold the key, or `base_url` is no address.
    """
    import httpx2

    name = settings.api_key_env
    # Without a word in its place, the client would take OPENAI_API_KEY and send it to whoever listens at base_url.
    key = "none" if name is None else os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"{settings.section}.api_key_env: the environment variable {name} is not set or empty, expected the key "
            f"of the endpoint; {settings.section}.api_key_env=null for an endpoint that takes none"
        )
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"{settings.section}.api_key_env: {name} holds spaces, line ends or letters that no key has")
    try:
        host = httpx2.URL(settings.base_url or "").host and urlsplit(settings.base_url or "").hostname
    except (httpx2.InvalidURL, ValueError):
        host = None
    if not host:
        raise ConfigError(
            f"{settings.section}.base_url: found no address of a server, expected one as http://HOST:8000/v1"
        )
    return key


def place_of(settings: ChatSettings) -> str:
    """The endpoint's address without a user name, password or query that may stand in it."""
    parts = urlsplit(settings.base_url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def told_by(error: openai.APIStatusError) -> str:
    """The status of an answer, and its code where that is a word; a code may be any text, or the key."""
    code = error.code or error.type
    sent = error.request.headers.get("authorization", "")
    if isinstance(code, str) and re.fullmatch(r"[A-Za-z][\w.-]{1,49}", code) and code not in sent:
        return f"{error.status_code} {code}"
    return str(error.status_code)


def what_to_mend(settings: ChatSettings, error: openai.APIStatusError) -> str:
    """What an error status that no further attempt can mend says to a person."""
    told = told_by(error)
    if error.status_code in (401, 403):
        key = f"the key in {settings.api_key_env}" if settings.api_key_env else "a request without a key"
        return f"{place_of(settings)}: refused {key} ({told}); see {settings.section}.api_key_env."
    if error.status_code == 404:
        return (
            f"{place_of(settings)}: knows no model {settings.model!r}, or no chat completions ({told}); see "
            f"{settings.section}.model and {settings.section}.base_url."
        )
    section = settings.section
    return f"{place_of(settings)}: answered {told}; see {section}.base_url, {section}.model and {section}.extra_body."
