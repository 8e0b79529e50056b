"""The pictures: there, not empty, the same twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from clsgen_dist.verbalize.answers import Answers
from clsgen_dist.verbalize.plots import write_study_plots
from clsgen_dist.verbalize.study import Study

Drawn = dict[str, dict[str, Path]]


@pytest.fixture(scope="module")
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """The pictures of each study, by name."""
    studies = {name: request.getfixturevalue(name) for name in ("two_labels", "three_labels", "mostly_silent")}
    return {name: write_study_plots(tmp_path_factory.mktemp(name), study) for name, study in studies.items()}


@pytest.mark.parametrize("name", ["two_labels", "three_labels", "mostly_silent"])
def test_both_pictures_are_drawn(name: str, drawn: Drawn) -> None:
    assert set(drawn[name]) == {"reliability", "thresholds"}
    for path in drawn[name].values():
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 400
        assert (pixels[..., :3].min(axis=2) < 0.9).mean() > 0.01
        assert len(list(path.parent.iterdir())) == 2


def test_the_same_study_gives_the_same_bytes(two_labels: Study, drawn: Drawn, tmp_path: Path) -> None:
    for name, path in write_study_plots(tmp_path, two_labels).items():
        assert path.read_bytes() == drawn["two_labels"][name].read_bytes()


def test_re_softmax_is_drawn_where_there_are_answers_only(drawn: Drawn) -> None:
    def has_baseline(path: Path) -> bool:
        baseline = np.array([0xCC, 0x79, 0xA7]) / 255
        return bool((np.abs(imread(path)[..., :3] - baseline).max(axis=2) < 0.02).any())

    assert has_baseline(drawn["two_labels"]["reliability"])
    assert not has_baseline(drawn["mostly_silent"]["reliability"])


def test_where_nothing_was_scaled_nothing_is_drawn(two_labels: Study, tmp_path: Path) -> None:
    bare = replace(two_labels, metrics=two_labels.metrics | {"before": None, "after": None})
    assert write_study_plots(tmp_path, bare) == {}
    assert not list(tmp_path.iterdir())


def test_two_distinct_values_are_enough(
    make_answers: Callable[..., Answers], run_study: Callable[..., Study], tmp_path: Path
) -> None:
    fit, test = (make_answers(60, name=name, sharpness=100.0, bias=0.0) for name in "ab")
    assert len(write_study_plots(tmp_path, run_study(fit, test))) == 2
