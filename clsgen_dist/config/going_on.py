"""What may differ when a run goes on: where it is tracked and how it is spread, not what it computes."""

from __future__ import annotations

from clsgen_dist.config.chat import FREE_TO_CHANGE
from clsgen_dist.config.run import RunConfig, differing_keys

#: Settings of `explain` that say how and how fast the teacher is asked, not what comes of it.
HOW_ONLY = (*FREE_TO_CHANGE, "num_workers")

#: Beginnings of the names of settings that may differ.
_FREE = (
    *("tracking.", "ray.", "verbalize.", "checkpoint.", "run.output_dir", "run.storage"),
    *("train.num_workers", "train.cpu_threads", "train.collective", "train.on_nonfinite", "train.max_skipped_steps"),
    *(
        "train.stop_grace_seconds",
        "train.hang_seconds",
        "train.stall_seconds",
        "train.dry_batch",
        "model.gradient_checkpointing",
    ),
    "model.activation_offload",
    *(f"explain.{name}" for name in HOW_ONLY),
)


def changed_settings(config: RunConfig, before: RunConfig) -> list[str]:
    """Dotted names of the settings whose change makes it another run."""
    changed = [key for key in differing_keys(config, before) if not key.startswith(_FREE)]
    if (config.run.storage is None) != (before.run.storage is None):
        changed.append("run.storage")  # another store may hold the same run, a folder alone does not
    return changed
