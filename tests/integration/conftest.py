"""Ranks that live as long as the test session, and one worker for all that starts processes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ranks import RankPool

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, these follow one another: each keeps two cores busy, and they share the ranks."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.xdist_group("integration"))


@pytest.fixture(scope="session")
def one_rank() -> Iterator[RankPool]:
    """One process that is a group of its own."""
    yield from _pool(1)


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[RankPool]:
    """Two processes of one group."""
    yield from _pool(2)


def _pool(world_size: int) -> Iterator[RankPool]:
    pool = RankPool(world_size)
    yield pool
    pool.close()
