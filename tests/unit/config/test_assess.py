"""Settings of an evaluation of a finished bundle."""

from __future__ import annotations

import pytest

from clsgen_dist.config.assess import assess_config
from clsgen_dist.config.sections import Task
from clsgen_dist.errors import ConfigError

TASK = Task(question="Urgent?", labels=["no", "yes"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--evaluate.readers", "[judge]"], r"--evaluate\.readers: .* without evaluate\.judge\.base_url"),
        (["--evaluate.judge.model", "m"], "nobody is asked"),
        (["--evaluate.costs", "[[0, 1], [5, 6]]"], "one line a true label"),
    ],
)
def test_combinations_that_cannot_work_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assess_config(TASK, "x", {}, overrides)


def test_readers_are_settings_of_an_evaluation() -> None:
    judged = ["--evaluate.judge.model", "m", "--evaluate.judge.base_url", "http://localhost:1/v1"]
    config = assess_config(TASK, "x", {}, ["--evaluate.readers", "[text, judge]", *judged])
    assert (config.evaluate.readers, config.evaluate.judge.model) == (["text", "judge"], "m")
