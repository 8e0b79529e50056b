"""What a comparison says of its time."""

from __future__ import annotations

from pathlib import Path

from clsgen_dist.compare.arms import Job
from clsgen_dist.compare.running import _time_left
from clsgen_dist.config.compare import Arm
from tests.support.tiny import tiny_config


def test_the_time_left_is_that_of_trainings(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    waiting = [Job(Arm(name="joint"), config), Job(Arm(name="floor", kind="bag_of_words"), config)]
    assert _time_left([], waiting) == ""
    assert _time_left([60.0, 180.0], waiting) == ", about 2 min left"
    assert _time_left([60.0, 180.0], [waiting[0], waiting[0]]) == ", about 4 min left"
    assert _time_left([60.0], waiting[1:]) == ""
