"""What an object store has of a run besides the checkpoints themselves: best steps, and what goes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.object_place import ObjectPlace
from clsgen_dist.objects import Objects

ALONE = Ranks(0, 1, torch.device("cpu"))


class Store:
    """A store, nodes that use it, and what stood in it when something was to go along."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.objects = folder, Objects(f"file://{folder}/store")
        self.seen_along: list[set[str]] = []

    def node(self, name: str) -> ObjectPlace:
        return ObjectPlace(self.objects, self.folder / name, ALONE, [0], self._along)

    def _along(self) -> None:
        self.seen_along.append(set(self.objects.listing()))

    def best(self, node: str, text: str) -> Path:
        """A best step as best.py keeps it."""
        folder = self.folder / node / "best"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("trainable.safetensors", "logits.npy", "state.json"):
            (folder / name).write_text(text)
        return folder


def complete(place: ObjectPlace, step: int, best_step: int, *, keep: int = 2) -> None:
    name = f"step_{step:08d}"
    file = place.working_folder(f"{name}.a") / "rank_00000.safetensors"
    file.write_text("weights")
    place.hand_in(f"{name}.a", 0, file, {"size": 7})
    assert place.handed_in(f"{name}.a", 0) == {"size": 7}
    facts: dict[str, Any] = {
        "format": 2,
        "step": step,
        "optimizer_steps": step,
        "state": {"best_step": best_step},
        "shapes": {},
        "files": {"rank_00000.safetensors": {"size": 7}},
    }
    place.complete(f"{name}.a", name, facts, keep)


def test_another_node_finds_the_best_step_that_a_checkpoint_knows(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = store.node("one")
    one.keep_best(store.best("one", "of step 4"), 4)
    complete(one, 5, best_step=4)
    one.keep_best(store.best("one", "of step 6"), 6)  # which no checkpoint knows

    stale = store.best("other", "of another attempt")
    store.node("other").find_best(stale, 4)

    assert {path.name: path.read_text() for path in stale.iterdir()} == dict.fromkeys(
        ("trainable.safetensors", "logits.npy", "state.json"), "of step 4"
    )
    assert one._best is not None
    one._best.wait()  # it is sent in a thread
    assert not list((tmp_path / "one").glob(".best*"))


def test_a_best_step_that_is_gone_leaves_nothing_to_be_taken_for_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stale = store.best("one", "of another attempt")
    store.node("one").find_best(stale, 4)
    assert not stale.exists()


def test_what_goes_along_goes_before_the_checkpoint_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    complete(store.node("one"), 5, best_step=-1)
    (seen,) = store.seen_along
    assert "step_00000005/rank_00000.safetensors" in seen
    assert "step_00000005/manifest.json" not in seen
    assert set(store.node("one").whole()) == {"step_00000005"}


def test_a_checkpoint_is_not_whole_before_the_best_step_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    one = store.node("one")

    def fails(self: Objects, path: Path, name: str) -> None:
        raise OSError("the network")

    with monkeypatch.context() as patched:
        patched.setattr(Objects, "upload", fails)
        one.keep_best(store.best("one", "of step 4"), 4)
        with pytest.raises(OSError, match="the network"):
            one._best.wait()  # type: ignore[union-attr]
    with pytest.raises(OSError, match="the network"):
        complete(one, 5, best_step=4)
    with pytest.raises(OSError, match="the best step that it knows of, 4, is not there"):
        complete(store.node("one"), 5, best_step=4)
    assert store.node("one").whole() == {}


def test_best_steps_go_with_the_checkpoints_that_knew_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = store.node("one")
    for step in (1, 2, 3):
        one.keep_best(store.best("one", f"of step {step}"), step)
        complete(one, step, best_step=step)
    left = {name.partition("/")[0] for name in store.objects.listing()}
    assert left == {"step_00000002", "step_00000003", "best_00000002", "best_00000003"}
