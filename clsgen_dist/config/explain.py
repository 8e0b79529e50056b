"""Settings of the stage that writes explanations: the teacher, what it may spend, and the checks of its reasons."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator

from clsgen_dist.config.sections import Count, Fraction, Section, Weight


class Checks(Section):
    """What a reason must pass. Tokens are words and marks, counted without any model's tokenizer."""

    agreement: bool = Field(
        True,
        description="ask the teacher for the label first, without telling it; where it says another one, keep a reason "
        "only if a reader who does not see the text finds the label in it",
    )
    leak: bool = Field(
        True,
        description="refuse a reason that says it was told the answer, repeats the request, names only a label, or "
        "declines",
    )
    form: bool = Field(True, description="refuse a reason by length, repetition, copied text, language, characters")
    min_tokens: Count = Field(4, description="words and marks of a reason, at least")
    max_tokens: Count = Field(200, description="words and marks of a reason, at most")
    max_repeated_share: Fraction = Field(0.3, description="share of word 4-grams that stood in the reason before")
    max_copied_share: Fraction = Field(0.9, description="share of word 8-grams that stand in the text word for word")
    max_duplicate_share: Fraction = Field(
        0.02, description="share of reasons that may be nearly the same words; later ones are refused; 1: any"
    )
    drop_written: bool = Field(
        False,
        description="refuse reasons that people wrote, too, where their words fail a check; else they are counted",
    )
    language: str | None = Field(
        None, description="language of the reasons, ISO 639-1 as en; null: any", pattern=r"^[a-z]{2}$"
    )


class Explain(Section):
    teacher: Literal["column", "evidence", "endpoint", "local"] = Field(
        "column",
        description="who writes the explanations; column: people, in data.explanation_column; evidence: phrases that "
        "speak for the label by a linear model; endpoint: an OpenAI-compatible server; local: a model on this machine",
    )
    model: str | None = Field(None, description="teacher model: its name at the endpoint, or a folder or Hub name")
    base_url: str | None = Field(None, description="endpoint, as http://HOST:8000/v1", pattern=r"^https?://\S+$")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="environment variable that holds the endpoint's key; null: it takes none"
    )
    guidance: str = Field("", description="further wishes for the reasons, told to the teacher")
    extra_body: dict[str, JsonValue] | None = Field(
        None, description="further fields of each request, as {reasoning_effort: low}"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(0.7, description="of the reasons; labels are asked at 0")
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
    batch_size: Count = Field(16, description="requests that the local teacher answers at one time")
    num_workers: Count | None = Field(
        None, description="local teachers on a Ray cluster, one a GPU; null: one in this process, without Ray"
    )
    tries: Count = Field(3, description="attempts at the reason of one row")
    rescue_tries: int = Field(
        3, ge=0, description="further attempts at failed rows of classes that keep a smaller share"
    )
    num_samples: Count = Field(1, description="reasons an attempt; the one that its label is best read from is kept")
    checks: Checks = Field(Checks())

    @field_validator("extra_body")
    @classmethod
    def _extra_fields_are_not_ours(cls, extra: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        own = {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "seed", "n", "stream"}
        taken = sorted(own & set(extra or ()))
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by settings of their own")
        return extra
