"""Probabilities that no bundle gave: word counts, and rows of which nothing is thought."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsgen_dist.compare.forecasts import Forecast, as_predictions, measure, with_base_rate
from clsgen_dist.compare.word_counts import forecast_word_counts
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.data.store import write_rows
from clsgen_dist.errors import DataError
from clsgen_dist.evaluate.metrics import auroc
from clsgen_dist.progress import silent
from clsgen_dist.records import Row
from tests.support.tiny import tiny_config, tiny_rows


def rows_of(num_rows: int, prefix: str, **changes: Any) -> list[Row]:
    return [
        Row(**{"id": r["id"], "text": r["text"], "label": r["label"], **changes})
        for r in tiny_rows(num_rows, prefix=prefix)
    ]


def stored(folder: RunFolder, train: list[Row]) -> None:
    for split, rows in (("train", train), *((s, rows_of(40, s)) for s in ("validation", "calibration", "test"))):
        write_rows(folder.rows(split), rows)


def test_word_counts_find_the_word_that_decides(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    stored(folder, rows_of(120, "train"))
    fit, test = forecast_word_counts(tiny_config(tmp_path), folder, silent)
    assert [row.id for row in fit.rows] == [f"calibration-{n}" for n in range(40)]
    assert auroc(test.raw_NK, np.array([row.label for row in test.rows])) > 0.95
    assert test.raw_NK.sum(axis=1) == pytest.approx(np.ones(40))
    assert np.exp(test.logits_NK) == pytest.approx(test.raw_NK)
    assert folder.resources.is_file()


def test_word_counts_give_a_label_that_nobody_trained_on_next_to_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    stored(folder, rows_of(120, "train"))
    _, test = forecast_word_counts(tiny_config(tmp_path, **{"task.labels": ["no", "yes", "unsure"]}), folder, silent)
    assert test.raw_NK.shape == (40, 3)
    assert test.raw_NK[:, 2].max() < 1e-5


@pytest.mark.parametrize(("changes", "message"), [({"label": 1}, "of 1 label"), ({"text": "..."}, "no words to count")])
def test_rows_that_cannot_be_counted_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = RunFolder(tmp_path / "run")
    stored(folder, rows_of(30, "train", **changes))
    with pytest.raises(DataError, match=message):
        forecast_word_counts(tiny_config(tmp_path), folder, silent)


def test_rows_of_which_nothing_is_thought_get_the_base_rate(tmp_path: Path) -> None:
    rows = rows_of(4, "test")
    logits_NK = np.array([[0.0, 1.0], [np.nan, np.nan], [1.0, 0.0], [np.nan, np.nan]])
    forecast = Forecast(rows, logits_NK, logits_NK)
    probability_NK = with_base_rate(forecast, lambda own_NK: own_NK, np.array([0.25, 0.75]))
    assert probability_NK.tolist() == [[0, 1], [0.25, 0.75], [1, 0], [0.25, 0.75]]
    raw_NK = np.tile([0.5, 0.5], (4, 1))
    said = as_predictions(forecast, ["no", "yes"], raw_NK, np.tile([0.25, 0.75], (4, 1)), np.array([1, 1, 0, 1]))
    assert [p.predicted for p in said] == ["yes", "yes", "no", "yes"]
    assert said[1].logits == pytest.approx(np.log([0.25, 0.75]).tolist())
    assert (said[0].label, said[0].explanation) == ("no", None)
    numbers = measure(rows, np.array([[0.9, 0.1], [0.2, 0.8]] * 2), np.array([0, 1, 0, 1]), tiny_config(tmp_path))
    assert (numbers["auroc"], numbers["f1"]) == (1.0, 1.0)
    assert numbers["nll"] == pytest.approx(-np.log([0.9, 0.8]).mean())
    assert numbers["auroc_ci"] == [1.0, 1.0]
