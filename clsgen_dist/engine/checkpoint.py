"""Checkpoints of a run: a folder a step, there when it is whole, the newest few kept.

    checkpoints/step_00000200/
      rank_00000.safetensors   what that rank held of weights and moments, by name of the parameter, see fragments.py
      manifest.json            step, state of the loop, shapes, size and sha256 of every other file

Each rank writes its file and hands it in; when all have, rank 0 makes them a checkpoint, see places.py. Whoever dies
while writing leaves nothing that looks like one. Safe files only: no pickle is written or read.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.engine.manifest import FORMAT
from clsgen_dist.engine.places import Place, sync_file
from clsgen_dist.errors import CheckpointError
from clsgen_dist.integrity import sha256_of

#: Seconds between looks at what other ranks have written.
_PAUSE_SECONDS = 0.02


class CheckpointWriter:
    """Writes the checkpoints of one attempt at a run. All ranks make it and call it alike."""

    def __init__(
        self, place: Place, ranks: Ranks, *, keep: int, background: bool, required: bool, warn: Callable[[str], None]
    ) -> None:
        """Makes nothing yet.

        Args:
            place: of the run's checkpoints.
            ranks: the group.
            keep: newest checkpoints to keep.
            background: whether training goes on while one is written.
            required: whether one that cannot be written ends the run.
            warn: hears on rank 0 of one that could not be written and was not required.
        """
        self._place, self._ranks, self._keep = place, ranks, keep
        self._background, self._required, self._warn = background, required, warn
        self._attempt = str(ranks.from_leader(uuid.uuid4().hex[:12] if ranks.leads else None))
        self._writing: _Writing | None = None
        if ranks.leads:
            with contextlib.suppress(OSError):
                place.clean()

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
        self._writing = _Writing(self._place, self._ranks, facts, tensors, starts, self._keep)
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
        message = self._ranks.from_leader(
            f"{self._place.name}/{writing.name}: cannot be written ({fault}); {self._what_stands()}"
            if self._ranks.leads
            else None
        )
        if self._required:
            raise CheckpointError(
                f"{message}. Make room there and start the same command again; checkpoint.required: false would have "
                "gone on without it"
            )
        if self._ranks.leads:
            self._warn(f"{message}; training goes on, as checkpoint.required is false")

    def _what_stands(self) -> str:
        try:
            whole = list(self._place.whole())
        except OSError:
            return "what stands there cannot be read"
        return f"{whole[-1]} stays the newest whole one" if whole else "there is none yet"


class _Writing:
    """One checkpoint that is being written, by a thread."""

    def __init__(
        self,
        place: Place,
        ranks: Ranks,
        facts: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        starts: dict[str, int],
        keep: int,
    ) -> None:
        self.name = f"step_{facts['step']:08d}"
        self._place, self._ranks, self._facts, self._keep = place, ranks, facts, keep
        self._partial = f"{self.name}.{facts['attempt']}"
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
            self._place.abandon(self._partial)
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
        rank = self._ranks.rank
        path = self._place.working_folder(self._partial) / f"rank_{rank:05d}.safetensors"
        known = {
            "attempt": self._facts["attempt"],
            "step": str(self._facts["step"]),
            "starts": json.dumps(self._starts),
        }
        save_file(self._tensors, path, metadata=known)
        sync_file(path)
        self._place.hand_in(self._partial, rank, path, {"size": path.stat().st_size, "sha256": sha256_of(path)})

    def _make_whole(self) -> None:
        """Waits for the files of all ranks, and makes them a checkpoint."""
        files: dict[str, Any] = {}
        for rank in range(self._ranks.world_size):
            while (known := self._place.handed_in(self._partial, rank)) is None:
                if self._is_abandoned.is_set():
                    return
                time.sleep(_PAUSE_SECONDS)
            files[f"rank_{rank:05d}.safetensors"] = known
        self._place.complete(self._partial, self.name, {**self._facts, "files": files}, self._keep)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
