"""The page of a study: self-contained, without scripts, safe, and plain about what to use."""

import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import pytest

from clsgen_dist.verbalize.plots import write_study_plots
from clsgen_dist.verbalize.report import write_study_report
from clsgen_dist.verbalize.study import Study
from clsgen_dist.verbalize.titles import title_of
from clsgen_dist.verbalize.verdict import find_warnings, say_verdict

STUDIES = ("two_labels", "three_labels", "mostly_silent")


class Tags(HTMLParser):
    """Collects tags, the addresses that they name, and the words between them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


FACTS = {"Run": "demo <1>", "Model": "a <script>small</script> one"}


@pytest.fixture(scope="module")
def pages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The page of each study, by name."""
    written = {}
    for name in STUDIES:
        folder, study = tmp_path_factory.mktemp(name), request.getfixturevalue(name)
        write_study_report(folder / "report.html", study.metrics, write_study_plots(folder, study), FACTS)
        written[name] = (folder / "report.html").read_text(encoding="utf-8")
    return written


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(name: str, pages: dict[str, str]) -> None:
    tags = parse(pages[name])
    assert not {"script", "iframe", "object", "embed", "link", "form", "base", "b1"} & set(tags.names)
    assert not [a for a in tags.attributes if a.startswith("on")]
    assert len(tags.addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in tags.addresses)
    assert "demo <1>" in tags.text
    assert not re.search(r"\bnan\b|\bNone\b|\{\{|\\u20", tags.text)


@pytest.mark.parametrize("name", STUDIES)
def test_every_method_stands_in_the_table(name: str, pages: dict[str, str], request: pytest.FixtureRequest) -> None:
    study, text = request.getfixturevalue(name), parse(pages[name]).text
    for method, entry in study.metrics["all_rows"].items():
        assert title_of(method) in text
        assert f"{entry['nll']:.3f}" in text
        assert f"perfect: {entry['ece_null']:.3f}" in text
    for cause, count in study.metrics["failures"].items():
        of_fit = study.metrics["failures_fit"].get(cause, 0)
        assert re.search(rf"{cause.replace('_', ' ')}.*?{of_fit}\s*{count}\s", text, re.DOTALL)
    assert str(study.metrics["num_distinct_values"]) in text


def test_names_of_labels_are_escaped(pages: dict[str, str]) -> None:
    assert "&lt;b&gt;joy&lt;/b&gt;" in pages["three_labels"]
    assert "<b>joy</b>" not in pages["three_labels"]


def test_no_text_of_a_row_is_on_the_page(two_labels: Study, pages: dict[str, str]) -> None:
    page = pages["two_labels"]
    assert two_labels.test.texts is not None
    assert not any(text in page for text in two_labels.test.texts)
    assert "Case b" not in page


def test_the_same_study_gives_the_same_page(two_labels: Study, pages: dict[str, str], tmp_path: Path) -> None:
    write_study_report(tmp_path / "report.html", two_labels.metrics, write_study_plots(tmp_path, two_labels), FACTS)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == pages["two_labels"]


def test_a_study_without_pictures_has_a_page(two_labels: Study, tmp_path: Path) -> None:
    metrics = two_labels.metrics | {"before": None, "after": None, "parts": {}, "thresholds": {}}
    write_study_report(tmp_path / "report.html", metrics, {}, {})
    assert "img" not in parse((tmp_path / "report.html").read_text(encoding="utf-8")).names


def test_the_verdict_names_the_method_and_its_likelihood(two_labels: Study, mostly_silent: Study) -> None:
    for study in (two_labels, mostly_silent):
        verdict, chosen = say_verdict(study.metrics), study.metrics["chosen"]
        assert verdict.startswith(f"Use \u201c{title_of(chosen)}\u201d")
        assert f"{study.metrics['all_rows'][chosen]['nll']:.3f}" in verdict
        assert "held out" in verdict


def test_the_verdict_follows_likelihood_whatever_the_calibration_errors(two_labels: Study) -> None:
    metrics = deepcopy(two_labels.metrics)
    for entry in (*metrics["all_rows"].values(), *(metrics[n] for n in metrics["sources"])):
        entry["ece"] = 1.0 - entry["ece"]
    assert say_verdict(metrics) == say_verdict(two_labels.metrics)


def test_the_verdict_says_so_where_scaling_does_not_pay(two_labels: Study) -> None:
    metrics = deepcopy(two_labels.metrics)
    assert "no 0 in it" in say_verdict(metrics | {"chosen": "raw_floored"})
    assert "ignores what the model says" in say_verdict(metrics | {"chosen": "base_rate"})
    assert "too few rows" in say_verdict(metrics | {"chosen": None, "choice": []})
    second = metrics["choice"][1]["name"]
    assert "standard errors of the least" in say_verdict(metrics | {"chosen": second})


def test_warnings_say_what_speaks_against_it(two_labels: Study, mostly_silent: Study) -> None:
    assert any("hold no distribution" in w for w in find_warnings(mostly_silent.metrics))
    assert any(w.startswith("Left out: ") and "Invert softmax + T" in w for w in find_warnings(mostly_silent.metrics))
    silent = mostly_silent.metrics | {"unavailable": {"raw": "no rows", "rank": "no rows", "learned": "no rows"}}
    assert "Shown with the base rate filled in only: \u201cAs said\u201d; no rows." in find_warnings(silent)
    left_out = "Left out: \u201cRanks of what was said\u201d, \u201cLearned, with the texts\u201d; no rows."
    assert left_out in find_warnings(silent)
    calm = two_labels.metrics | {
        "num_parsed_rows": two_labels.metrics["num_rows"],
        "unavailable": {},
        "warnings": [],
        "num_distinct_values": 21,
        "chosen": "rank",
    }
    assert find_warnings(calm) == []
    assert any("base rate" in w for w in find_warnings(calm | {"chosen": "base_rate"}))
    assert any("Only 3 distinct values" in w for w in find_warnings(calm | {"num_distinct_values": 3}))
    assert any("Only 50 labelled rows" in w for w in find_warnings(calm | {"num_labelled_rows": 50}))
    assert find_warnings(calm | {"warnings": ["rank: a bound was met"]}) == ["Ranks of what was said: a bound was met."]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("raw", "As said"),
        ("resoftmax_temperature", "Re-softmax + T"),
        ("platt", "Invert softmax + Platt"),
        ("label_tokens", "Tokens of the labels"),
        ("digit_expectation_temperature", "Tokens of the digits + T"),
        ("my_own_column", "my own column"),
        ("my_own_column_vector", "my own column + vector"),
    ],
)
def test_methods_have_names_for_people(name: str, title: str) -> None:
    assert title_of(name) == title
