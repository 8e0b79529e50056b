"""Settings of an evaluation: what is measured of probabilities, explanations and language, and on how many rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.config.sections import Count, Fraction, Section, Weight


class Judge(ChatSettings):
    """A chat model that reads explanations."""

    section = "evaluate.judge"

    max_tokens: Count = Field(16, description="tokens of one answer, thinking included, at most")


class Evaluate(Section):
    num_bootstrap: Annotated[int, Field(ge=100)] = Field(1000, description="resamples behind each 95 % interval")
    num_bins: Annotated[int, Field(ge=2)] = Field(15, description="bins of the calibration error")
    max_explained_rows: Count | None = Field(
        None, description="test rows that get an explanation, the first; null: all"
    )
    readers: list[Literal["verdict", "text", "judge"]] = Field(
        ["verdict", "text"],
        description="who says which label an explanation argues for; verdict: the label that it opens with; text: a "
        "classifier fitted on training explanations, label words masked; judge: the chat model of evaluate.judge",
    )
    judge: Judge = Field(Judge(), description="chat model that reads explanations, for the reader judge")
    max_language_rows: int = Field(
        200,
        ge=0,
        description="test rows, the first, whose explanations are scored by the tuned and by the base model; 0: no "
        "metrics of the language kept",
    )
    costs: list[list[Weight]] | None = Field(
        None, description="cost of saying a label (column) of a row of each label (line), in the order of task.labels"
    )
    sure_probability: Fraction = Field(
        0.9, description="largest probability from which an answer counts as sure, where unsure ones go to a person"
    )
