"""Settings that every section with a chat model shares: which one, how fast it is asked, and what it may cost."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator

from clsgen_dist.config.passed_on import is_secret
from clsgen_dist.config.sections import Count, Section, Weight

#: Settings that only an endpoint has a use for, and those that only a model on this machine has.
ENDPOINT_ONLY = (
    *("base_url", "api_key_env", "extra_body", "requests_in_flight", "requests_per_minute", "tokens_per_minute"),
    *("timeout_seconds", "max_retries", "budget_tokens", "budget_cost", "input_price", "output_price"),
)
LOCAL_ONLY = ("batch_size",)

#: Settings that say how and how fast a model is asked, not what it answers.
FREE_TO_CHANGE = (*(name for name in ENDPOINT_ONLY if name != "extra_body"), *LOCAL_ONLY)


class ChatSettings(Section):
    #: Name of the section in a configuration, for messages.
    section: ClassVar[str]

    model: str | None = Field(None, description="chat model: its name at the endpoint, or a folder or Hub name")
    base_url: str | None = Field(None, description="endpoint, as http://HOST:8000/v1")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="environment variable that holds the endpoint's key; null: it takes none"
    )
    extra_body: dict[str, JsonValue] | None = Field(
        None, description="further fields of each request, as {reasoning_effort: low}"
    )
    max_tokens: Count = Field(1024, description="tokens of one answer, thinking included, at most")
    requests_in_flight: Count = Field(16, description="requests that wait for the endpoint at one time")
    requests_per_minute: Count | None = Field(None, description="requests a minute, at most; null: no limit")
    tokens_per_minute: Count | None = Field(None, description="tokens a minute, at most; null: no limit")
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(120.0, description="longest wait for one answer")
    max_retries: int = Field(
        8, ge=0, description="further attempts at one request after a fault of network or endpoint"
    )
    budget_tokens: Count | None = Field(None, description="tokens to spend, at most; null: no limit")
    budget_cost: Annotated[float, Field(gt=0)] | None = Field(
        None, description="money to spend, in the currency of the prices; null: no limit"
    )
    input_price: Weight = Field(0.0, description="price of a million prompt tokens")
    output_price: Weight = Field(0.0, description="price of a million answer tokens, thinking included")
    batch_size: Count = Field(16, description="requests that a local model answers at one time")

    @field_validator("base_url")
    @classmethod
    def _no_secret_in_the_address(cls, base_url: str | None) -> str | None:
        """A configuration is copied into run folder, manifest, report and MLflow."""
        if base_url is None:
            return None
        try:
            parts = urlsplit(base_url)
        except ValueError:
            raise ValueError("found no address of a server, expected one as http://HOST:8000/v1") from None
        if not re.fullmatch(r"https?://\S+", base_url):  # which is not said again: it may hold a password
            raise ValueError("is no address of a server, expected one as http://HOST:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query:
            raise ValueError("holds a user, a password or a query; keys belong into the variable of api_key_env")
        return base_url

    @field_validator("api_key_env")
    @classmethod
    def _the_name_and_not_the_key(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise ValueError("expected the name of an environment variable, as OPENAI_API_KEY, and not the key itself")
        return name

    @field_validator("extra_body")
    @classmethod
    def _extra_fields_are_not_ours(cls, extra: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        own = {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "n", "stream"}
        taken = sorted(own & set(extra or ()))
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by settings of their own")
        secret = sorted(name for name in extra or () if is_secret(name))
        if secret:
            raise ValueError(f"{', '.join(secret)}: a configuration holds no keys; see api_key_env")
        return extra

    def changed(self, names: tuple[str, ...]) -> list[str]:
        """Those of the named settings that differ from their defaults."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].get_default()]
