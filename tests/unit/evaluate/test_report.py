"""Pictures and the report: self-contained, safe, the same twice."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from clsgen_dist.errors import DataError
from clsgen_dist.evaluate.evaluation import evaluate
from clsgen_dist.evaluate.plots import write_plots
from clsgen_dist.evaluate.report import choose_examples, write_report
from clsgen_dist.records import Prediction, Row

Split = tuple[list[Prediction], list[Row]]

NO_YES = ["no", "yes"]
MANY = ["supported", "a $\\bad$ sign", "_hidden", "<b>bold</b>"]


def metrics_of(split: Split, labels: list[str], threshold: float | None) -> dict[str, Any]:
    return evaluate(
        *split,
        labels=labels,
        threshold=threshold,
        calibrated=True,
        language={"distinct_2": 0.512, "num_words": 12},
        num_bootstrap=100,
        num_bins=10,
        seed=0,
    )


def render(folder: Path, split: Split, labels: list[str], threshold: float | None) -> str:
    plots = write_plots(folder, *split, labels=labels, threshold=threshold, num_bins=10)
    write_report(
        folder / "report.html",
        metrics_of(split, labels, threshold),
        *split,
        plots,
        {"Run": "demo <1>", "Backbone": "a small one"},
    )
    return (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects tags and the addresses that they name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


@pytest.fixture(scope="module")
def split(make_split: Callable[..., Split]) -> Split:
    return make_split(300, NO_YES, threshold=0.4)


@pytest.fixture(scope="module")
def page(split: Split, tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(tmp_path_factory.mktemp("report"), split, NO_YES, 0.4)


def test_pictures_and_report_are_the_same_bytes_twice(split: Split, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        render(tmp_path / name, split, NO_YES, 0.4)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["reliability.png", "report.html", "roc_pr.png", "scores.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_pictures_show_something_and_name_no_software(split: Split, tmp_path: Path) -> None:
    for path in write_plots(tmp_path, *split, labels=NO_YES, threshold=0.4, num_bins=10).values():
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 400
        assert np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0).shape[0] > 50
        assert b"Software" not in path.read_bytes()


def test_the_threshold_the_calibration_and_the_truth_show_in_the_pictures(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    uncalibrated = [replace(p, probability=p.raw_probability) for p in predictions]
    unknown = [replace(row, true_probability=None) for row in rows]
    changes = {
        "scores": (predictions, rows, None),
        "reliability": (uncalibrated, rows, 0.4),
        "roc_pr": (predictions, unknown, 0.4),
    }
    full = write_plots(tmp_path, predictions, rows, labels=NO_YES, threshold=0.4, num_bins=10)
    before = {name: path.read_bytes() for name, path in full.items()}
    for name, (some_predictions, some_rows, threshold) in changes.items():
        write_plots(tmp_path, some_predictions, some_rows, labels=NO_YES, threshold=threshold, num_bins=10)
        assert (tmp_path / f"{name}.png").read_bytes() != before[name]


def test_many_labels_with_awkward_names(make_split: Callable[..., Split], tmp_path: Path) -> None:
    page = render(tmp_path, make_split(300, MANY, threshold=None), MANY, None)
    assert "The largest probability decides." in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold</b>" not in page


def test_rows_without_labels_cannot_be_drawn(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    unlabelled = [replace(p, label=None) for p in predictions], [replace(r, label=None) for r in rows]
    with pytest.raises(DataError, match="no labelled rows"):
        write_plots(tmp_path, *unlabelled, labels=NO_YES, threshold=0.4, num_bins=10)


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    tags = parse(page)
    assert "script" not in tags.names
    assert "link" not in tags.names
    assert tags.names.count("img") == 3
    assert all(address.startswith("data:image/png;base64,") for address in tags.addresses)
    assert not re.search(r"https?://|@import|url\(", page)
    assert 'name="viewport"' in page


def test_the_page_says_the_numbers(page: str, split: Split) -> None:
    metrics = metrics_of(split, NO_YES, 0.4)
    text = " ".join(parse(page).text.split())
    for key in ("auroc", "f1", "nll", "ece"):
        low, high = metrics["calibrated"][f"{key}_ci"]
        assert f"{metrics['calibrated'][key]:.3f}" in text
        assert f"{low:.3f} to {high:.3f}" in text
    for value in (metrics["bayes"]["nll"], metrics["bayes"]["mean_abs_error_calibrated"], 0.4, 0.512):
        assert f"{value:.3f}" in text
    assert f"{metrics['explanation']['kappa']:.3f}" in text
    assert "These rows are simulated" in text
    assert "demo <1>" in text
    assert "What this should not be used for" in text


def test_a_page_about_real_rows_says_nothing_of_a_truth(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    real = predictions, [replace(row, true_probability=None) for row in rows]
    text = parse(render(tmp_path, real, NO_YES, 0.4)).text
    assert "simulated" not in text
    assert "true probability" not in text.lower()


def test_markup_in_a_text_shows_as_text(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    evil = "<script>alert(1)</script><img src=http://x.example/y onerror=alert(2)>"
    page = render(
        tmp_path,
        (
            [replace(p, explanation=evil if p.explanation else None) for p in predictions],
            [replace(row, text=f"{row.text} {evil}") for row in rows],
        ),
        NO_YES,
        0.4,
    )
    tags = parse(page)
    assert "script" not in tags.names
    assert tags.names.count("img") == 3
    assert "<script>alert(1)</script>" in tags.text
    assert page.count("&lt;script&gt;") >= 12


def test_long_texts_are_cut_and_say_so(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    page = render(tmp_path, (predictions, [replace(row, text="x" * 2000) for row in rows]), NO_YES, 0.4)
    assert "[1100 more characters]" in page
    assert "x" * 901 not in page


def test_examples_are_right_wrong_and_unsure(split: Split) -> None:
    (_, right), (_, wrong), (_, unsure) = choose_examples(*split, 0.4)
    assert [len(kind) for kind in (right, wrong, unsure)] == [4, 4, 4]
    assert all(p.label == p.predicted for p, _ in right)
    assert all(p.label is not None and p.label != p.predicted for p, _ in wrong)
    assert all(abs(p.probability["yes"] - 0.4) < 0.05 for p, _ in unsure)
    assert {p.predicted for p, _ in right} == {"no", "yes"}
    chosen = [p.id for p, _ in (*right, *wrong, *unsure)]
    assert len(set(chosen)) == 12
    assert all(p.id == row.id for p, row in (*right, *wrong, *unsure))
    assert all(p.explanation is not None for p, _ in (*right, *wrong, *unsure))


def test_without_wrong_answers_there_is_no_such_kind(split: Split) -> None:
    predictions, rows = split
    right = [p for p in predictions if p.label == p.predicted][:3]
    kinds = choose_examples(right, rows, 0.4)
    assert [(title, len(chosen)) for title, chosen in kinds] == [("Surest right answers", 3)]


def test_without_explanations_the_page_says_so(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    silent = [replace(p, explanation=None, free_verdict=None) for p in predictions], rows
    assert "No explanations were asked for." in render(tmp_path, silent, NO_YES, 0.4)
