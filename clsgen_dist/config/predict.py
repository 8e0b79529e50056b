"""The section `predict` of a run configuration: how probabilities and explanations are made."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from clsgen_dist.config.sections import Count, Fraction, Section


class Predict(Section):
    explain: Literal["all", "uncertain", "none"] = Field(
        "all", description="rows that get an explanation; uncertain: those that predict.uncertain_margin names"
    )
    uncertain_margin: Fraction | None = Field(
        None,
        description="a row is uncertain whose calibrated probability of the last of two labels lies at most so far "
        "from the operating threshold, or whose two most probable of more labels lie at most so far apart",
    )
    max_new_tokens: Count = Field(128, description="tokens of verdict and explanation, at most")
    token_budget: Count = Field(8192, description="tokens of a batch on one worker, padding counted, at most")
    num_workers: Count | None = Field(
        None,
        description="actors of launchers/predict.py on a Ray cluster, one a GPU or share of its CPUs; null: its own "
        "process",
    )
