"""Settings of probabilities that a language model says in words: who is asked, how, and how its answers are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.config.sections import Count

#: Settings that say how answers are read, whoever gave them; all others say who is asked, and how.
READING = ("sum_tolerance", "floor", "constant")


class Verbalize(ChatSettings):
    section = "verbalize"

    source: Literal["bundle", "endpoint", "local"] = Field(
        "bundle",
        description="who is asked; bundle: the language model of this run's bundle; endpoint: an OpenAI-compatible "
        "server; local: a model on this machine",
    )
    prompt: Literal["incremental", "direct"] = Field(
        "incremental",
        description="incremental: choose, assess the confidence, give the distribution; direct: the distribution alone",
    )
    num_prompts: Annotated[int, Field(ge=1, le=6)] = Field(
        1, description="paraphrases of the prompt; their distributions are averaged as logarithms"
    )
    guided: bool = Field(
        False,
        description="hold answers to the form: an endpoint is asked for JSON (response_format json_schema); a model on "
        "this machine can write nothing but whole percents that sum to 100",
    )
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(0.0, description="of the answers; 0 is greedy")
    token_probabilities: bool = Field(
        True, description="also read probabilities off the tokens, of labels and of said numbers; needs open weights"
    )
    max_rows: Count | None = Field(None, description="rows of the calibration and the test split, the first; null: all")
    sum_tolerance: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.05, description="how far the said probabilities of a row may sum from 1; they are divided by their sum"
    )
    floor: Annotated[float, Field(gt=0, lt=0.5)] | None = Field(
        None, description="smallest probability that a said 0 is taken for; null: from the grid of the said values"
    )
    constant: Literal["centred", "zero"] = Field(
        "centred", description="constant of the inverted softmax; no temperature depends on it"
    )
