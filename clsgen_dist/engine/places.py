"""Where the checkpoints of a run stand: in a folder that all ranks see; or in an object store, see object_place.py.

Ranks tell each other of what they wrote through the place and not by collectives, so writing goes on while training
does. Whatever a dying rank leaves there has no manifest, or one that its files do not match.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.manifest import (
    MANIFEST,
    altered_file,
    checkpoint_folders,
    complete_checkpoints,
    fault_of,
    read_facts,
)
from clsgen_dist.errors import CheckpointError


class Place(Protocol):
    """What the writer of checkpoints and those who go on from them ask of a place. OSError where it fails."""

    @property
    def name(self) -> str:
        """How it is called in messages."""
        ...

    def clean(self) -> None:
        """On rank 0, before anything is written: takes away what attempts left that died."""
        ...

    def working_folder(self, partial: str) -> Path:
        """Where a rank writes the file that it will hand in, made if need be; `partial` names one checkpoint."""
        ...

    def hand_in(self, partial: str, rank: int, file: Path, known: dict[str, Any]) -> None:
        """Gives the place the file of a rank, and says its size and hash."""
        ...

    def handed_in(self, partial: str, rank: int) -> dict[str, Any] | None:
        """What a rank said of its file, once it did."""
        ...

    def complete(self, partial: str, step: str, facts: dict[str, Any], keep: int) -> None:
        """On rank 0, when all files are there: makes them the checkpoint of a step; keeps so many."""
        ...

    def abandon(self, partial: str) -> None:
        """Takes away what was handed in. Never fails."""
        ...

    def whole(self) -> dict[str, dict[str, Any]]:
        """Facts of the checkpoints that are whole as far as names and sizes show, by name, oldest first."""
        ...

    def found(self) -> list[str]:
        """Names of what stands in the place of a checkpoint, whole or not, oldest first."""
        ...

    def bring(self, step: str) -> tuple[Path, str | None]:
        """Where this rank can read a checkpoint, and what is wrong with it on any rank. All ranks call it."""
        ...

    def release(self) -> None:
        """Says that what was brought is not read any more."""
        ...

    def keep_best(self, folder: Path, step: int) -> None:
        """On rank 0: sees that the best step so far outlives this node."""
        ...

    def find_best(self, folder: Path, step: int) -> None:
        """On rank 0: makes a folder the best step of that number, where the place has it."""
        ...


class SharedFolder:
    """A folder that all ranks see: what is written beside its place is renamed into it."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self._folder, self._ranks = folder, ranks

    @property
    def name(self) -> str:
        return str(self._folder)

    def clean(self) -> None:
        for unfinished in self._folder.glob(".*.partial"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def working_folder(self, partial: str) -> Path:
        folder = self._partial(partial)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def hand_in(self, partial: str, rank: int, file: Path, known: dict[str, Any]) -> None:
        _write_whole(file.with_suffix(".json"), known)

    def handed_in(self, partial: str, rank: int) -> dict[str, Any] | None:
        told = self._partial(partial) / f"rank_{rank:05d}.json"
        if not told.exists():
            return None
        known: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        told.unlink()
        return known

    def complete(self, partial: str, step: str, facts: dict[str, Any], keep: int) -> None:
        folder = self._partial(partial)
        _write_whole(folder / MANIFEST, facts)
        sync_file(folder)
        place = self._folder / step
        replaced = place.with_name(f".{step}.replaced.partial")
        if place.exists():  # damaged, or the run would have gone on from it
            os.replace(place, replaced)
        os.replace(folder, place)
        sync_file(self._folder)
        shutil.rmtree(replaced, ignore_errors=True)
        for old in complete_checkpoints(self._folder)[:-keep]:
            shutil.rmtree(old)

    def abandon(self, partial: str) -> None:
        shutil.rmtree(self._partial(partial), ignore_errors=True)

    def whole(self) -> dict[str, dict[str, Any]]:
        return {path.name: read_facts(path) for path in complete_checkpoints(self._folder)}

    def found(self) -> list[str]:
        return [path.name for path in checkpoint_folders(self._folder)]

    def bring(self, step: str) -> tuple[Path, str | None]:
        path, ranks = self._folder / step, self._ranks
        fault = ranks.from_leader(fault_of(path) if ranks.leads else None)
        if fault is None:
            own = altered(path, ranks.rank, ranks.rank, ranks.world_size)
            fault = next((told for told in ranks.gather(own) if told), None)
        return path, fault

    def release(self) -> None:
        """There is no copy."""

    def keep_best(self, folder: Path, step: int) -> None:
        """It is where all see it."""

    def find_best(self, folder: Path, step: int) -> None:
        """It is where it was kept."""

    def _partial(self, partial: str) -> Path:
        return self._folder / f".{partial}.partial"


def altered(path: Path, rank: int, part: int, num_parts: int) -> str | None:
    """What a rank finds wrong with its share of a checkpoint's bytes, see `altered_file`."""
    try:
        return altered_file(path, part, num_parts)
    except (OSError, CheckpointError) as error:
        return f"{path.name}: cannot be read by rank {rank} ({error})"


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sync_file(temporary)
    os.replace(temporary, path)


def sync_file(path: Path) -> None:
    """Brings a file, or the names in a folder, onto the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
