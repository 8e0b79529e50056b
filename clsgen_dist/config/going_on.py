"""What may differ when a run goes on: where it is tracked and how it is spread, not what it computes."""

from __future__ import annotations

from clsgen_dist.config.chat import FREE_TO_CHANGE
from clsgen_dist.config.run import RunConfig, differing_keys

#: Settings of `explain` that say how and how fast the teacher is asked, not what comes of it.
HOW_ONLY = (*FREE_TO_CHANGE, "num_workers")

#: Beginnings of the names of settings that may differ.
_FREE = (
    *("tracking.", "ray.", "verbalize.", "checkpoint.", "run.output_dir"),
    *("train.num_workers", "train.cpu_threads", "train.collective", "train.on_nonfinite", "train.max_skipped_steps"),
    *("train.stop_grace_seconds", "train.hang_seconds", "train.dry_batch"),
    *(f"explain.{name}" for name in HOW_ONLY),
)


def changed_settings(config: RunConfig, before: RunConfig) -> list[str]:
    """Dotted names of the settings whose change makes it another run."""
    return [key for key in differing_keys(config, before) if not key.startswith(_FREE)]
