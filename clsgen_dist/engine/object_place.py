"""Checkpoints in an object store.

checkpoints/step_00000200/rank_00000.safetensors, ...; manifest.json comes last and makes it a checkpoint
checkpoints/best_00000150/                             what best.py keeps of that step; state.json comes last
checkpoints/.step_00000200.ATTEMPT/rank_00000.json     what ranks say of their files, as long as it is written
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.manifest import MANIFEST, fault_of, fault_of_sizes, parsed_facts
from clsgen_dist.engine.places import altered
from clsgen_dist.errors import CheckpointError
from clsgen_dist.objects import Objects, Stored, reason

#: The file of a best step that says of the others that they are there.
_BEST_LAST = "state.json"


class ObjectPlace:
    """Objects of a store. Nothing can be renamed there, so the manifest that comes last makes a checkpoint whole.

    Each node reads a checkpoint from a copy in its own folder, which needs room for the whole of one.
    """

    def __init__(
        self, objects: Objects, folder: Path, ranks: Ranks, mates: Sequence[int], along: Callable[[], None]
    ) -> None:
        """All ranks make it, before any of them writes.

        Args:
            objects: the checkpoints of the run.
            folder: of this node, for the files on their way and the best step.
            ranks: the group.
            mates: ranks that see the same folder, in order; they share a copy and the work on it.
            along: called on rank 0 before a checkpoint is whole: brings what must not be behind it to the store.
        """
        self._objects, self._folder, self._ranks, self._along = objects, folder, ranks, along
        self._part, self._num_parts = mates.index(ranks.rank), len(mates)
        self._best: _Sending | None = None
        if self._part == 0:
            for left in (*folder.glob(".step_*.partial"), *folder.glob(".copy_*"), *folder.glob(".best_*.sending")):
                shutil.rmtree(left, ignore_errors=True)

    @property
    def name(self) -> str:
        return self._objects.uri

    def clean(self) -> None:
        for name in self._objects.listing():
            if name.startswith("."):
                self._objects.delete(name)

    def working_folder(self, partial: str) -> Path:
        folder = self._folder / f".{partial}.{self._ranks.rank}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def hand_in(self, partial: str, rank: int, file: Path, known: dict[str, Any]) -> None:
        step = partial.partition(".")[0]
        self._objects.upload(file, f"{step}/{file.name}")
        self._objects.write(f".{partial}/rank_{rank:05d}.json", json.dumps(known).encode())
        shutil.rmtree(file.parent, ignore_errors=True)

    def handed_in(self, partial: str, rank: int) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(self._objects.read(f".{partial}/rank_{rank:05d}.json"))
        except FileNotFoundError:
            return None
        return known

    def complete(self, partial: str, step: str, facts: dict[str, Any], keep: int) -> None:
        if self._best is not None:
            self._best.wait()
        known = facts["state"].get("best_step", -1)
        if known >= 0 and not self._objects.has(f"{_best_name(known)}/{_BEST_LAST}"):
            raise OSError(f"the best step that it knows of, {known}, is not there")
        try:
            self._along()
        except CheckpointError as error:
            raise OSError(str(error)) from None
        self._objects.write(f"{step}/{MANIFEST}", json.dumps(facts, indent=2).encode())
        self._objects.below(f".{partial}").delete_all()
        whole = self.whole()
        for old in list(whole)[:-keep]:
            self._objects.delete(f"{old}/{MANIFEST}")  # first: without it the rest is no checkpoint
            self._objects.below(old).delete_all()
        best = {_best_name(facts["state"].get("best_step", -1)) for facts in list(whole.values())[-keep:]}
        for name in self._objects.listing():
            folder = name.partition("/")[0]
            if folder.startswith("best_") and folder not in best and not self._is_sending(folder):
                self._objects.delete(name)

    def abandon(self, partial: str) -> None:
        shutil.rmtree(self.working_folder(partial), ignore_errors=True)
        for objects in (self._objects.below(f".{partial}"), self._objects.below(partial.partition(".")[0])):
            try:
                objects.delete_all()
            except OSError:
                continue  # without a manifest it is nothing, and the next attempt takes it away or replaces it

    def whole(self) -> dict[str, dict[str, Any]]:
        listed = self._objects.listing()
        found = {}
        for step in _steps_of(listed):
            try:
                facts = parsed_facts(self._objects.read(f"{step}/{MANIFEST}"), step)
            except (FileNotFoundError, CheckpointError):
                continue
            if fault_of_sizes(step, facts, _sizes(listed, step)) is None:
                found[step] = facts
        return found

    def found(self) -> list[str]:
        return _steps_of(self._objects.listing())

    def bring(self, step: str) -> tuple[Path, str | None]:
        copy, ranks = self._folder / f".copy_{step}" / step, self._ranks
        fault = self._download(step, copy) if self._part == 0 else None
        fault = next((told for told in ranks.gather(fault) if told), None)
        if fault is None:
            own = altered(copy, ranks.rank, self._part, self._num_parts)
            fault = next((told for told in ranks.gather(own) if told), None)
        return copy, fault

    def release(self) -> None:
        self._ranks.barrier()
        if self._part == 0:
            for copy in self._folder.glob(".copy_*"):
                shutil.rmtree(copy, ignore_errors=True)

    def keep_best(self, folder: Path, step: int) -> None:
        if self._best is not None:
            self._best.wait_quietly()
        self._best = _Sending(self._objects, folder, _best_name(step))

    def find_best(self, folder: Path, step: int) -> None:
        for other in folder.parent.glob("best*"):
            shutil.rmtree(other)  # of another attempt on this node
        objects = self._objects.below(_best_name(step))
        listed = objects.listing()
        if _BEST_LAST not in listed:
            return
        for name in sorted(listed, key=lambda name: name == _BEST_LAST):
            objects.download(name, folder / Path(name).name)

    def _download(self, step: str, copy: Path) -> str | None:
        """Fills this node's copy; returns what is wrong with it as far as names and sizes show."""
        try:
            shutil.rmtree(copy.parent, ignore_errors=True)
            copy.mkdir(parents=True)
            objects = self._objects.below(step)
            for name in objects.listing():
                objects.download(name, copy / Path(name).name)
        except OSError as error:
            return f"{step}: cannot be brought to {socket.gethostname()} ({reason(error)})"
        return fault_of(copy)

    def _is_sending(self, name: str) -> bool:
        return self._best is not None and self._best.name == name


class _Sending:
    """The best step, on its way to the store in a thread; training may put another in its place meanwhile."""

    def __init__(self, objects: Objects, folder: Path, name: str) -> None:
        self.name = name
        self._objects = objects.below(name)
        self._copy = folder.with_name(f".{name}.sending")
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(folder, self._copy, copy_function=_link)
        self._fault: OSError | None = None
        self._thread = threading.Thread(target=self._run, name=f"send-{name}", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until it is there. Raises OSError where it could not be written."""
        self._thread.join()
        if self._fault is not None:
            raise self._fault

    def wait_quietly(self) -> None:
        """Waits until it is there or has failed: a better step takes its place."""
        self._thread.join()

    def _run(self) -> None:
        try:
            for path in sorted(self._copy.iterdir(), key=lambda path: path.name == _BEST_LAST):
                self._objects.upload(path, path.name)
        except OSError as error:
            self._fault = error
        finally:
            shutil.rmtree(self._copy, ignore_errors=True)


def _best_name(step: int) -> str:
    return f"best_{step:08d}"


def _link(source: str, target: str) -> None:
    """The same bytes under another name; what is written anew under the first one does not change them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _steps_of(listed: Mapping[str, Stored]) -> list[str]:
    return sorted({name.partition("/")[0] for name in listed if name.startswith("step_")})


def _sizes(listed: Mapping[str, Stored], step: str) -> dict[str, int]:
    return {name.partition("/")[2]: stored.size for name, stored in listed.items() if name.startswith(f"{step}/")}
