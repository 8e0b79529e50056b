"""Checkpoints of a run: a folder a step, there when it is whole, the newest few kept.

    checkpoints/step_00000200/
      rank_00000.safetensors   what that rank held of weights and moments, by name of the parameter, see fragments.py
      manifest.json            step, state of the loop, shapes, size and sha256 of every other file

A folder is written beside its place and renamed when its manifest stands, so whoever dies while writing leaves nothing
that looks like a checkpoint. Ranks tell each other of what they wrote by small files in that folder and not by
collectives, so writing may go on while training does. Safe files only: no pickle is written or read.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.errors import CheckpointError
from clsgen_dist.integrity import sha256_of

MANIFEST = "manifest.json"
FORMAT = 2
#: Seconds between looks at what other ranks have written.
_PAUSE_SECONDS = 0.02


class CheckpointWriter:
    """Writes the checkpoints of one attempt at a run. All ranks make it and call it alike."""

    def __init__(
        self, folder: Path, ranks: Ranks, *, keep: int, background: bool, required: bool, warn: Callable[[str], None]
    ) -> None:
        """Opens a run's folder of checkpoints.

        Args:
            folder: the folder.
            ranks: the group.
            keep: newest checkpoints to keep.
            background: whether training goes on while one is written.
            required: whether one that cannot be written ends the run.
            warn: hears on rank 0 of one that could not be written and was not required.
        """
        self._folder, self._ranks, self._keep = folder, ranks, keep
        self._background, self._required, self._warn = background, required, warn
        self._attempt = str(ranks.from_leader(uuid.uuid4().hex[:12] if ranks.leads else None))
        self._writing: _Writing | None = None
        if ranks.leads:
            for unfinished in folder.glob(".*.partial"):  # of attempts that died
                shutil.rmtree(unfinished, ignore_errors=True)

    def save(self, engine: Engine, step: int, state: dict[str, Any]) -> None:
        """Writes the checkpoint of a step, or begins to.

        Raises:
            CheckpointError: on all ranks: this one, or in the background the one before, cannot be written.
        """
        self.settle()
        tensors: dict[str, torch.Tensor] = {}
        starts: dict[str, int] = {}
        for fragment in engine.fragments():
            starts[fragment.name] = fragment.start
            for part, view in fragment.parts.items():
                tensors[f"{part}/{fragment.name}"] = view.to("cpu", copy=True)
        facts = {
            "format": FORMAT,
            "attempt": self._attempt,
            "step": step,
            "optimizer_steps": engine.optimizer_steps(),
            "world_size": self._ranks.world_size,
            "state": state,
            "shapes": engine.shapes(),
        }
        self._writing = _Writing(self._folder, self._ranks, facts, tensors, starts, self._keep)
        if not self._background:
            self.settle()

    def settle(self) -> None:
        """Waits until what was begun is written. Raises CheckpointError as `save` does."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        own = writing.wait_for_own()
        faults = [f"rank {rank}: {fault}" for rank, fault in enumerate(self._ranks.gather(own)) if fault]
        fault = self._ranks.from_leader(writing.finish(faults) if self._ranks.leads else None)
        if fault is None:
            return
        last = next(iter(complete_checkpoints(self._folder)[::-1]), None) if self._ranks.leads else None
        stands = f"{last.name} stays the newest whole one" if last else "there is none yet"
        message = self._ranks.from_leader(f"{self._folder / writing.name}: cannot be written ({fault}); {stands}")
        if self._required:
            raise CheckpointError(
                f"{message}. Make room there and start the same command again; checkpoint.required: false would have "
                "gone on without it"
            )
        if self._ranks.leads:
            self._warn(f"{message}; training goes on, as checkpoint.required is false")


class _Writing:
    """One checkpoint that is being written, by a thread."""

    def __init__(
        self,
        folder: Path,
        ranks: Ranks,
        facts: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        starts: dict[str, int],
        keep: int,
    ) -> None:
        self.name = f"step_{facts['step']:08d}"
        self._folder, self._ranks, self._facts, self._keep = folder, ranks, facts, keep
        self._partial = folder / f".{self.name}.{facts['attempt']}.partial"
        self._tensors, self._starts = tensors, starts
        self._own_fault: str | None = None
        self._fault: str | None = None
        self._has_own = threading.Event()
        self._is_abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"checkpoint-{self.name}", daemon=True)
        self._thread.start()

    def wait_for_own(self) -> str | None:
        """What kept this rank from writing its file, once it is known."""
        self._has_own.wait()
        return self._own_fault

    def finish(self, faults: list[str]) -> str | None:
        """On rank 0, once all ranks are done with their files: what kept the checkpoint from becoming whole."""
        if faults:
            self._is_abandoned.set()
        self._thread.join()
        fault = "; ".join(faults) or self._fault
        if fault:
            shutil.rmtree(self._partial, ignore_errors=True)
        return fault

    def _run(self) -> None:
        try:
            self._write_own()
        except (OSError, SafetensorError) as error:
            self._own_fault = _reason(error)
        finally:
            self._tensors = {}
            self._has_own.set()
        if self._ranks.leads and self._own_fault is None:
            try:
                self._make_whole()
            except (OSError, ValueError) as error:
                self._fault = _reason(error)

    def _write_own(self) -> None:
        self._partial.mkdir(parents=True, exist_ok=True)
        path = self._partial / f"rank_{self._ranks.rank:05d}.safetensors"
        known = {
            "attempt": self._facts["attempt"],
            "step": str(self._facts["step"]),
            "starts": json.dumps(self._starts),
        }
        save_file(self._tensors, path, metadata=known)
        _sync(path)
        _write_whole(path.with_suffix(".json"), {"size": path.stat().st_size, "sha256": sha256_of(path)})

    def _make_whole(self) -> None:
        """Waits for the files of all ranks, writes the manifest, and puts the folder into its place."""
        files: dict[str, Any] = {}
        for rank in range(self._ranks.world_size):
            told = self._partial / f"rank_{rank:05d}.json"
            while not told.exists():
                if self._is_abandoned.is_set():
                    return
                time.sleep(_PAUSE_SECONDS)
            files[f"rank_{rank:05d}.safetensors"] = json.loads(told.read_text(encoding="utf-8"))
            told.unlink()
        _write_whole(self._partial / MANIFEST, {**self._facts, "files": files})
        _sync(self._partial)
        place = self._folder / self.name
        replaced = place.with_name(f".{self.name}.replaced.partial")
        if place.exists():  # damaged, or the run would have gone on from it
            os.replace(place, replaced)
        os.replace(self._partial, place)
        _sync(self._folder)
        shutil.rmtree(replaced, ignore_errors=True)
        complete = complete_checkpoints(self._folder)
        for old in complete[: -self._keep]:
            shutil.rmtree(old)


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    _sync(temporary)
    os.replace(temporary, path)


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, onto the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def checkpoint_folders(folder: Path) -> list[Path]:
    """What stands in the place of a checkpoint, whole or not, oldest first."""
    return sorted(folder.glob("step_*"))


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints whose manifest stands and whose files have the sizes it says, oldest first."""
    return [path for path in checkpoint_folders(folder) if fault_of(path) is None]


def read_facts(path: Path) -> dict[str, Any]:
    """What the manifest of a checkpoint says. Raises CheckpointError where it says nothing of use."""
    try:
        facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: {MANIFEST} cannot be read ({_reason(error)})") from None
    needed = {"format": int, "step": int, "optimizer_steps": int, "state": dict, "shapes": dict, "files": dict}
    if not isinstance(facts, dict) or any(not isinstance(facts.get(key), kind) for key, kind in needed.items()):
        raise CheckpointError(f"{path.name}: {MANIFEST} is none of this version")
    if facts["format"] != FORMAT or path.name != f"step_{facts['step']:08d}":
        raise CheckpointError(f"{path.name}: {MANIFEST} is of format {facts['format']}, step {facts['step']}")
    return facts


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint as far as names and sizes show, or None."""
    try:
        files = read_facts(path)["files"]
    except CheckpointError as error:
        return str(error)
    for name, known in files.items():
        try:
            size = (path / Path(name).name).stat().st_size
        except OSError:
            return f"{path.name}: {name} is missing"
        if not isinstance(known, dict) or size != known.get("size"):
            return f"{path.name}: {name} has {size:,} bytes, its manifest says otherwise"
    return None


def altered_file(path: Path, rank: int, world_size: int) -> str | None:
    """The first file, of this rank's share to look at, whose bytes are not those that were written."""
    files = read_facts(path)["files"]
    for name in sorted(files)[rank::world_size]:
        if sha256_of(path / Path(name).name) != files[name].get("sha256"):
            return f"{path.name}: {name} was altered, its sha256 is not that of the manifest"
    return None
