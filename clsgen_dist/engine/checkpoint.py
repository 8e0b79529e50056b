"""Checkpoints of a run: a folder a step, complete when its manifest stands, the newest few kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.errors import CheckpointError

_MANIFEST = "manifest.json"


def save_checkpoint(engine: Engine, ranks: Ranks, folder: Path, *, step: int, state: dict[str, Any], keep: int) -> Path:
    """Writes the checkpoint of a step, its manifest last, then removes older ones. All ranks call it.

    Args:
        engine: what is saved.
        ranks: the group.
        folder: the run's folder of checkpoints.
        step: optimizer steps done.
        state: numbers to hand back on loading.
        keep: newest checkpoints to keep, this one included.
    """
    tag = f"step_{step:08d}"
    if ranks.leads:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / tag, ignore_errors=True)  # of an attempt that died while it wrote
    ranks.barrier()
    engine.save(folder, tag, state)
    ranks.barrier()
    if ranks.leads:
        files = sorted(p for p in (folder / tag).rglob("*") if p.is_file())
        manifest = {
            "step": step,
            "world_size": ranks.world_size,
            "files": {str(p.relative_to(folder / tag)): p.stat().st_size for p in files},
        }
        temporary = folder / tag / (_MANIFEST + ".tmp")
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, folder / tag / _MANIFEST)
        for old in complete_checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    ranks.barrier()
    return folder / tag


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints whose manifest stands and whose files have the sizes it says, oldest first."""
    return [path for path in sorted(folder.glob("step_*")) if _is_complete(path)]


def _is_complete(path: Path) -> bool:
    try:
        files = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return all((path / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def load_newest(engine: Engine, ranks: Ranks, folder: Path) -> dict[str, Any] | None:
    """Restores the newest complete checkpoint; returns its state, or None where there is none.

    Raises:
        CheckpointError: it was written by another number of workers, or cannot be read.
    """
    newest = ranks.from_leader(next(iter(complete_checkpoints(folder)[::-1]), None))
    if newest is None:
        return None
    num_writers = json.loads((newest / _MANIFEST).read_text(encoding="utf-8"))["world_size"]
    if num_writers != ranks.world_size:
        raise CheckpointError(
            f"{newest}: written by {num_writers} workers, this run has {ranks.world_size}; "
            f"start it with {num_writers} workers, or under a new run.name"
        )
    return engine.load(folder, newest.name)
