"""Checkpoints in a folder and in an object store: what is written, what is kept, and what is never loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.engine.checkpoint import CheckpointWriter
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.fragments import PARTS, Fragment
from clsgen_dist.engine.loading import load_newest
from clsgen_dist.engine.manifest import complete_checkpoints
from clsgen_dist.engine.object_place import ObjectPlace
from clsgen_dist.engine.places import Place, SharedFolder
from clsgen_dist.errors import CheckpointError
from clsgen_dist.objects import Objects

ALONE = Ranks(0, 1, torch.device("cpu"))

#: Set by the fixture: each test runs with both, and a store that is a folder can be damaged as a folder can.
PLACE: dict[str, Callable[[Path], Place]] = {}


@pytest.fixture(autouse=True, params=["folder", "objects"])
def _kind_of_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    def folder(path: Path) -> Place:
        return SharedFolder(path, ALONE)

    def objects(path: Path) -> Place:
        node = tmp_path_factory.mktemp("node")  # another one each time: what is not in the store is lost
        return ObjectPlace(Objects(f"file://{path}"), node, ALONE, [0], lambda: None)

    PLACE["of"] = {"folder": folder, "objects": objects}[request.param]


def names(folder: Path) -> set[str]:
    """What stands in a folder and has files in it."""
    return {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}


class Held:
    """An engine of one rank as a checkpoint sees it: names, pieces, a count of updates."""

    def __init__(self, value: float, names: tuple[str, ...] = ("head.weight", "lora.A")) -> None:
        self.parts = {name: {part: torch.full((8,), value + n) for n, part in enumerate(PARTS)} for name in names}
        self.steps = 0

    def fragments(self) -> Iterator[Fragment]:
        return (Fragment(name, 0, parts) for name, parts in self.parts.items())

    def shapes(self) -> dict[str, list[int]]:
        return {name: [2, 4] for name in self.parts}

    def optimizer_steps(self) -> int:
        return self.steps

    def restored(self, num_steps: int) -> None:
        self.steps = num_steps


def written(folder: Path, *steps: int, keep: int = 2, background: bool = False, required: bool = True) -> list[str]:
    """Writes a checkpoint a step, all its values those of the step; returns the warnings."""
    warnings: list[str] = []
    writer = CheckpointWriter(
        PLACE["of"](folder), ALONE, keep=keep, background=background, required=required, warn=warnings.append
    )
    for step in steps:
        held: Any = Held(float(step))
        held.steps = step
        writer.save(held, step, {"step": step})
    writer.settle()
    return warnings


def loaded(folder: Path, engine: Held | None = None) -> tuple[Any, list[str], Any]:
    """State, warnings and engine after going on from the newest whole checkpoint."""
    warnings: list[str] = []
    held: Any = engine or Held(-1.0)
    return load_newest(held, ALONE, PLACE["of"](folder), warnings.append), warnings, held


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def mix(path: Path) -> None:
    shutil.copy(path.parent.with_name("step_00000001") / path.name, path)


def edit(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


SHARD, MANIFEST = "rank_00000.safetensors", "manifest.json"

DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "torn": (MANIFEST, Path.unlink, "manifest.json cannot be read"),
    "manifest cut": (MANIFEST, cut, "manifest.json cannot be read"),
    "truncated": (SHARD, cut, "its manifest says otherwise"),
    "byte flipped": (SHARD, flip, "was altered, its sha256 is not that of the manifest"),
    "shard missing": (SHARD, Path.unlink, "rank_00000.safetensors is missing"),
    "of another attempt": (SHARD, mix, "was altered, its sha256 is not that of the manifest"),
    "manifest of another step": (MANIFEST, mix, "manifest.json is of format 2, step 1"),
    "of the first format": (MANIFEST, edit(format=1), "manifest.json is of format 1"),
    "files no object": (MANIFEST, edit(files=[]), "manifest.json is none of this version"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoint_is_named_and_the_one_before_is_used(name: str, tmp_path: Path) -> None:
    file, damage, words = DAMAGES[name]
    written(tmp_path, 1, 2)

    damage(tmp_path / "step_00000002" / file)
    state, warnings, held = loaded(tmp_path)

    assert state == {"step": 1}
    assert held.steps == 1
    assert all(float(held.parts["lora.A"][part][0]) == 1.0 + n for n, part in enumerate(PARTS))
    assert len(warnings) == 1
    assert warnings[0].startswith("passed over: step_00000002: ")
    assert words in warnings[0]


def test_nothing_is_loaded_where_none_is_whole(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    for path in tmp_path.glob("*/" + SHARD):
        flip(path)
    held = Held(-1.0)

    with pytest.raises(CheckpointError, match=r"no checkpoint is whole .*step_00000002.*step_00000001"):
        loaded(tmp_path, held)

    assert all(bool((parts[part] == -1.0 + n).all()) for parts in held.parts.values() for n, part in enumerate(PARTS))


def test_whole_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 1)

    with pytest.raises(CheckpointError, match="its parameters are not those of this model"):
        loaded(tmp_path, Held(0.0, ("head.weight",)))


def test_the_beginning_where_nothing_was_written(tmp_path: Path) -> None:
    assert loaded(tmp_path / "none")[:2] == (None, [])


@pytest.mark.parametrize("background", [False, True])
def test_newest_ones_are_kept_and_of_damaged_ones_none_counts(background: bool, tmp_path: Path) -> None:
    written(tmp_path, 1, 2, 3, background=background)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_00000002", "step_00000003"]
    cut(tmp_path / "step_00000003" / SHARD)

    written(tmp_path, 4, keep=1, background=background)

    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_00000004"]
    written(tmp_path, 5, background=background)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_00000004", "step_00000005"]


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path: Path) -> None:
    written(tmp_path, 1)
    (tmp_path / "step_00000001").rename(tmp_path / ".step_00000002.aaaa.partial")
    assert loaded(tmp_path)[0] is None

    written(tmp_path, 2)

    assert names(tmp_path) == {"step_00000002"}


def test_step_that_was_damaged_is_written_anew(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    flip(tmp_path / "step_00000002" / SHARD)

    written(tmp_path, 2)

    assert loaded(tmp_path)[:2] == ({"step": 2}, [])
    assert names(tmp_path) == {"step_00000001", "step_00000002"}


@pytest.mark.parametrize("background", [False, True])
def test_unwritable_folder(background: bool, tmp_path: Path) -> None:
    """A file stands where the folder should: the same error of the system as that of a full or read-only disk."""
    written(tmp_path / "run", 1)
    blocked = tmp_path / "run" / "blocked"
    blocked.write_text("")

    with pytest.raises(CheckpointError, match=r"cannot be written \(rank 0: .*checkpoint.required: false"):
        written(blocked, 2, background=background)
    (warning,) = written(blocked, 2, background=background, required=False)

    assert "training goes on, as checkpoint.required is false" in warning


def test_memory_that_changes_while_it_is_written_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    """Training goes on at once, so what is written is a copy of the step that was saved."""
    held: Any = Held(7.0)
    writer = CheckpointWriter(PLACE["of"](tmp_path), ALONE, keep=2, background=True, required=True, warn=print)

    writer.save(held, 1, {"step": 1})
    for parts in held.parts.values():
        for tensor in parts.values():
            tensor.fill_(99.0)
    writer.settle()

    assert float(loaded(tmp_path)[2].parts["head.weight"]["master"][0]) == 7.0
