"""The entries to what a run folder holds: altered files of a run, of its checkpoints, of what it tells MLflow."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.corpus import Case
from tests.hostile.doors import Doors, change, made, told


def run_folder(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """A file of a run folder that was altered; then the same command again."""
    from clsgen_dist.prepare import prepare
    from tests.support.tiny import tiny_config

    place = doors.folder / "runs" / "tiny"
    if not place.exists():
        prepare(tiny_config(doors.folder))
    asked = tiny_config(doors.folder, **{"run.output_dir": str(folder)})
    change(case, Path(shutil.copytree(place, asked.folder)))
    return told(lambda: prepare(asked))


def tracking(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """What a run folder says of its MLflow run, altered; then what is missing there is sent."""
    from clsgen_dist.tracking.sync import sync_tracking

    (folder / "tracking").mkdir()
    (folder / "tracking.json").write_text(json.dumps({"uri": f"sqlite:///{folder}/mlflow.db"}))
    made(case, folder)
    return told(lambda: sync_tracking(folder, None))


def checkpoint(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """The only checkpoint of a run, altered; then the same command again, which must not begin anew."""
    import torch

    from clsgen_dist.engine.collectives import Ranks
    from clsgen_dist.engine.loading import load_newest
    from clsgen_dist.engine.manifest import FORMAT
    from clsgen_dist.engine.places import SharedFolder

    place, ranks = folder / "step_00000002", Ranks(0, 1, torch.device("cpu"))
    place.mkdir()
    (place / "rank_00000.safetensors").write_bytes(b"weights")
    known = {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    facts = {"format": FORMAT, "step": 2, "optimizer_steps": 2, "state": {}, "shapes": {}}
    manifest = {**facts, "files": {"rank_00000.safetensors": known}}
    (place / "manifest.json").write_text(json.dumps(manifest))
    change(case, place)
    engine: Any = None  # nothing that is not whole comes near it
    return told(lambda: load_newest(engine, ranks, SharedFolder(folder, ranks), lambda words: None))


RUN_DOORS: dict[str, Callable[[Doors, Case, Path], tuple[str, str]]] = {
    "run_folder": run_folder,
    "tracking": tracking,
    "checkpoint": checkpoint,
}
