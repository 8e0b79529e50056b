"""Ranks that share a folder, and ranks that only think they do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import ConfigError
from clsgen_dist.objects import Objects
from clsgen_dist.train.storage import check_objects, check_storage


class Threads:
    """What threads of one process tell each other, in the place of a process group."""

    def __init__(self, world_size: int) -> None:
        self.world_size, self.barrier = world_size, threading.Barrier(world_size, timeout=20)
        self.box: dict[int, Any] = {}

    def rank(self, number: int) -> Ranks:
        threads = self

        class OfThreads(Ranks):
            def gather(self, value: Any) -> list[Any]:
                threads.barrier.wait()
                threads.box[number] = value
                threads.barrier.wait()
                return [threads.box[n] for n in range(threads.world_size)]

            def barrier(self) -> None:
                threads.barrier.wait()

            def from_leader(self, value: Any) -> Any:
                return self.gather(value)[0]

        return OfThreads(number, self.world_size, torch.device("cpu"))


def told(folders: list[Path], check: Callable[[Path, Ranks], None] | None = None) -> list[str]:
    threads = Threads(len(folders))
    found = ["never came back"] * len(folders)
    check = check or (lambda folder, rank: check_storage(folder, rank, patience_seconds=0.3))

    def look(number: int) -> None:
        try:
            check(folders[number], threads.rank(number))
            found[number] = ""
        except ConfigError as error:
            found[number] = str(error)

    running = [threading.Thread(target=look, args=(number,)) for number in range(len(folders))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(timeout=30)
    return found


def test_a_shared_folder_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    assert told([tmp_path / "run"] * 3) == ["", "", ""]
    assert not any(tmp_path.iterdir())


def test_a_folder_of_each_node_is_refused_on_all_ranks(tmp_path: Path) -> None:
    for node in ("a", "b"):
        (tmp_path / node).mkdir()
    found = told([tmp_path / node / "run" for node in ("a", "b")])
    for message in found:
        assert "is not one folder that all nodes see" in message
        assert "does not see what rank 1 wrote; rank 1 on " in message
    assert not list(tmp_path.glob("*/.*"))


def test_a_node_without_the_folder_is_named(tmp_path: Path) -> None:
    found = told([tmp_path / "run", tmp_path / "absent" / "run"])
    for message in found:
        assert message.count("rank ") == 1
        assert "cannot write there (No such file or directory)" in message


def test_one_rank_needs_no_probe(tmp_path: Path) -> None:
    check_storage(tmp_path / "absent" / "run", Ranks(0, 1, torch.device("cpu")))


def check_store(folder: Path, rank: Ranks) -> None:
    check_objects(Objects(f"file://{folder}"), rank)


def test_a_store_that_all_can_use_passes_and_is_left_as_it_was(tmp_path: Path) -> None:
    assert told([tmp_path / "store"] * 3, check_store) == ["", "", ""]
    assert Objects(f"file://{tmp_path}/store").listing() == {}


def test_a_rank_that_cannot_use_the_store_is_named_on_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file in its place")
    for message in told([tmp_path / "store", tmp_path / "blocked"], check_store):
        assert "not all nodes can use it (rank 1 on " in message
        assert "cannot write there (" in message
    for message in told([tmp_path / "one", tmp_path / "other"], check_store):
        assert message.count("cannot read there (") == 2, "each sees a store of its own"


def test_one_rank_looks_at_a_store_too(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file in its place")
    with pytest.raises(ConfigError, match="rank 0 on "):
        check_store(tmp_path / "blocked", Ranks(0, 1, torch.device("cpu")))
