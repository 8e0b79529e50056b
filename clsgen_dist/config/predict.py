"""The section `predict` of a run configuration: how probabilities and explanations are made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from clsgen_dist.config.sections import Count, Section


class Predict(Section):
    explain: Literal["all", "none"] = Field("all", description="rows that get an explanation")
    max_new_tokens: Count = Field(128, description="tokens of verdict and explanation, at most")
    token_budget: Count = Field(8192, description="tokens of a batch on one worker, padding counted, at most")
