"""Settings of the stage that writes explanations: the teacher, what it may spend, and the checks of its reasons."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.config.sections import Count, Fraction, Section


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


class Explain(ChatSettings):
    section = "explain"

    teacher: Literal["column", "evidence", "endpoint", "local"] = Field(
        "column",
        description="who writes the explanations; column: people, in data.explanation_column; evidence: phrases that "
        "speak for the label by a linear model; endpoint: an OpenAI-compatible server; local: a model on this machine",
    )
    guidance: str = Field("", description="further wishes for the reasons, told to the teacher")
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(0.7, description="of the reasons; labels are asked at 0")
    num_workers: Count | None = Field(
        None, description="local teachers on a Ray cluster, one a GPU; null: one in this process, without Ray"
    )
    tries: Count = Field(3, description="attempts at the reason of one row")
    rescue_tries: int = Field(
        3, ge=0, description="further attempts at failed rows of classes that keep a smaller share"
    )
    num_samples: Count = Field(1, description="reasons an attempt; the one that its label is best read from is kept")
    checks: Checks = Field(Checks())

    @property
    def asks_a_model(self) -> bool:
        """Whether a chat model writes the reasons."""
        return self.teacher in ("endpoint", "local")
