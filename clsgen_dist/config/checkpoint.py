"""The section `checkpoint` of a run configuration: how checkpoints are written."""

from __future__ import annotations

from pydantic import Field

from clsgen_dist.config.sections import Section


class Checkpoint(Section):
    background: bool = Field(
        True,
        description="write while training goes on; each worker holds a copy of its share of trainable weights and "
        "optimizer state until it is written",
    )
    required: bool = Field(
        True, description="end the run when a checkpoint cannot be written; false: warn, and go on without it"
    )
