"""What is said where a cluster has no room for all workers any more."""

from __future__ import annotations

import pytest

from clsgen_dist.orchestrate.room import Room


@pytest.mark.parametrize(
    ("least", "slots", "said"),
    [
        (None, [4, 4], []),
        (None, [9], []),
        (
            None,
            [3, 3, 4],
            [
                "the Ray cluster has room for 3 of 4 workers: waiting for the others (ray.min_workers lets a run go on "
                "with fewer)",
                "the Ray cluster has room for 4 of 4 workers again",
            ],
        ),
        (
            2,
            [3, 1, 2],
            [
                "the Ray cluster has room for 3 of 4 workers: the run goes on with these from its newest checkpoint",
                "the Ray cluster has room for 1 of 4 workers: waiting for ray.min_workers, 2",
                "the Ray cluster has room for 2 of 4 workers: the run goes on with these from its newest checkpoint",
            ],
        ),
    ],
)
def test_each_change_is_told_once(
    least: int | None, slots: list[int], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    room = Room(4, least)
    for found in slots:
        room.look(found)
    assert [record.getMessage() for record in caplog.records] == said
