"""Said probabilities as an arm: what was understood, on which floor, and what stands in for the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clsgen_dist.compare.untrained import read_said
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.data.store import write_rows
from clsgen_dist.records import Row
from tests.support.tiny import tiny_config

SAID = {
    "calibration": {"a": ['{"no": 0.8, "yes": 0.2}'], "b": ["I would not know."]},
    "test": {"c": ['{"no": 0.5, "yes": 0.5}', '{"no": 0.9, "yes": 0.1}'], "d": ['{"no": 1.0, "yes": 0.0}', "Hm."]},
}


def folder_of(place: Path) -> RunFolder:
    folder = RunFolder(place / "run")
    folder.verbalized.mkdir(parents=True)
    lines = []
    for split, answers in SAID.items():
        # A row that nobody was asked about stands in no arm's numbers.
        write_rows(folder.rows(split), [Row(id=id, text=id, label=0) for id in (*answers, "unasked")])
        lines += [{"split": split, "id": id, "answers": said} for id, said in answers.items()]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder.verbalized / "answers.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_answers_are_read_averaged_and_left_out_where_there_is_nothing(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"verbalize.floor": 0.01, "verbalize.constant": "zero"})
    fit, test = read_said(config, folder_of(tmp_path))
    assert [row.id for row in fit.rows] == ["a", "b"]
    assert [row.id for row in test.rows] == ["c", "d"]
    assert fit.raw_NK[0] == pytest.approx([0.8, 0.2])
    assert np.isnan(fit.raw_NK[1]).all()
    assert fit.there_N.tolist() == [True, False]
    # The mean of the log-odds of 1 and 9 is that of 3.
    assert test.raw_NK[0] == pytest.approx([0.75, 0.25])
    assert test.logits_NK[0] == pytest.approx([math.log(0.75), math.log(0.25)])
    # A said 0 is the floor: 0.01 to 1.
    assert test.raw_NK[1] == pytest.approx([1 / 1.01, 0.01 / 1.01])


def test_without_a_floor_that_of_the_calibration_answers_is_taken(tmp_path: Path) -> None:
    _, test = read_said(tiny_config(tmp_path), folder_of(tmp_path))
    assert 0 < test.raw_NK[1, 1] <= 0.02
