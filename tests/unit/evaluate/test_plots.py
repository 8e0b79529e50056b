"""Pictures of an evaluation show what they are of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from clsgen_dist.errors import DataError
from tests.support.evaluated import Split, draw

NO_YES = ["no", "yes"]


@pytest.fixture(scope="module")
def split(make_split: Callable[..., Split]) -> Split:
    return make_split(300, NO_YES, threshold=0.4)


def test_pictures_show_something_and_name_no_software(split: Split, tmp_path: Path) -> None:
    paths = draw(tmp_path, split, NO_YES, 0.4)
    assert list(paths) == ["reliability", "scores", "roc", "precision_recall", "risk_coverage", "decision_curve"]
    for path in paths.values():
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 400
        assert np.unique(pixels[::2, ::2].reshape(-1, pixels.shape[2]), axis=0).shape[0] > 50
        assert b"Software" not in path.read_bytes()


def test_the_threshold_the_calibration_and_the_truth_show_in_the_pictures(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    uncalibrated = [replace(p, probability=p.raw_probability) for p in predictions]
    unknown = [replace(row, true_probability=None) for row in rows]
    changes: list[tuple[tuple[str, ...], Split, float | None]] = [
        (("scores", "roc", "precision_recall"), split, None),
        (("reliability", "decision_curve", "risk_coverage"), (uncalibrated, rows), 0.4),
        (("roc", "precision_recall"), (predictions, unknown), 0.4),
    ]
    before = {name: path.read_bytes() for name, path in draw(tmp_path, split, NO_YES, 0.4).items()}
    for names, changed, threshold in changes:
        paths = draw(tmp_path, changed, NO_YES, threshold)
        assert all(paths[name].read_bytes() != before[name] for name in names)


def test_rows_without_labels_cannot_be_drawn(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    unlabelled = [replace(p, label=None) for p in predictions], [replace(r, label=None) for r in rows]
    with pytest.raises(DataError, match="no labelled rows"):
        draw(tmp_path, unlabelled, NO_YES, 0.4)
