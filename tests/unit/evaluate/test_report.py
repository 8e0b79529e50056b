"""The report: self-contained, safe, the same twice."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.evaluate.evaluation import evaluate
from tests.support.evaluated import Split, everything_measured, metrics_of, render

NO_YES = ["no", "yes"]
MANY = ["supported", "a $\\bad$ sign", "_hidden", "<b>bold</b>"]


class Tags(HTMLParser):
    """Collects tags and the addresses that they name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.text += " " if tag == "small" else ""
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        self.text += " " if tag in ("td", "th", "p", "small") else ""

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
    return render(tmp_path_factory.mktemp("report"), split, NO_YES, 0.4, with_pictures=True)


def test_pictures_and_report_are_the_same_bytes_twice(split: Split, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        render(tmp_path / name, split, NO_YES, 0.4, with_pictures=True)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        *("decision_curve.png", "precision_recall.png", "reliability.png", "report.html", "risk_coverage.png"),
        *("roc.png", "scores.png"),
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_many_labels_with_awkward_names(make_split: Callable[..., Split], tmp_path: Path) -> None:
    page = render(tmp_path, make_split(300, MANY, threshold=None), MANY, None, with_pictures=True)
    assert "The largest probability decides." in page
    assert "Worth acting on" not in page
    assert not (tmp_path / "decision_curve.png").exists()
    assert (tmp_path / "reliability_labels.png").exists()
    assert 'alt="reliability labels"' in page
    assert "Too low by (calibration in the large)<" not in page, "undefined for more than two labels"
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold</b>" not in page


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    tags = parse(page)
    assert "script" not in tags.names
    assert "link" not in tags.names
    assert tags.names.count("img") == 6
    outside = [address for address in tags.addresses if not address.startswith("#")]
    assert len(outside) == 6
    assert all(address.startswith("data:image/png;base64,") for address in outside)
    assert {f'id="{address[1:]}"' in page for address in tags.addresses if address.startswith("#")} == {True}
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
    assert "Reference explanations 1.250" in text
    assert "Distinct 2 0.512" in text
    assert "Too low by (calibration in the large)" in text
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
    assert "img" not in tags.names
    assert "<script>alert(1)</script>" in tags.text
    assert page.count("&lt;script&gt;") >= 12


def test_long_texts_are_cut_and_say_so(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    page = render(tmp_path, (predictions, [replace(row, text="x" * 2000) for row in rows]), NO_YES, 0.4)
    assert "[1,100 more characters]" in page
    assert "x" * 901 not in page


def test_without_explanations_the_page_says_so(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    silent = [replace(p, explanation=None, free_verdict=None, free_explanation=None) for p in predictions], rows
    assert "No explanations were asked for." in render(tmp_path, silent, NO_YES, 0.4)


def test_the_error_of_a_perfect_model_stands_beside_the_error(page: str, split: Split) -> None:
    own = metrics_of(split, NO_YES, 0.4)["calibrated"]
    text = " ".join(parse(page).text.split())
    low, high = own["ece_null_ci"]
    assert f"perfect model: {own['ece_null']:.3f}" in text
    assert f"{own['ece_null']:.3f} on as many rows ({low:.3f} to {high:.3f})" in text
    for name in ("calibration_slope", "calibration_intercept", "brier_reliability", "brier_resolution", "mce"):
        ends = own[f"{name}_ci"]
        assert f"{own[name]:.3f}".replace("-0.000", "0.000") in text
        assert f"{ends[0]:.3f} to {ends[1]:.3f}".replace("-0.000", "0.000") in text


def test_the_page_says_what_decisions_bring(page: str, split: Split, tmp_path: Path) -> None:
    decisions = metrics_of(split, NO_YES, 0.4)["decisions"]
    text = " ".join(parse(page).text.split())
    at, sure = decisions["at_threshold"], decisions["answer_when_sure"]
    for name in ("precision", "recall", "share_flagged"):
        assert f"{at[name]:.3f} {at[f'{name}_ci'][0]:.3f} to {at[f'{name}_ci'][1]:.3f}" in text
    assert f"{100 * sure['share_answered']:.1f} % of the rows are answered" in text
    assert "Mean cost a row" not in text
    costly = evaluate_with_costs(split)
    text = " ".join(parse(render(tmp_path, split, NO_YES, 0.4, decisions=costly)).text.split())
    assert f"Least expected cost {costly['expected_cost']['bayes']:.3f}" in text


def evaluate_with_costs(split: Split) -> dict[str, Any]:
    settings: dict[str, Any] = {"threshold": 0.4, "calibrated": True, "sure_probability": 0.9}
    settings |= {"num_bootstrap": 100, "num_bins": 10, "seed": 0, "costs": [[0.0, 1.0], [3.0, 0.0]]}
    decisions: dict[str, Any] = evaluate(*split, labels=NO_YES, **settings)["decisions"]
    return decisions


def test_where_nothing_is_sure_the_page_says_so(split: Split, tmp_path: Path) -> None:
    decisions = metrics_of(split, NO_YES, 0.4)["decisions"]
    nothing = {"num_answered": 0, "share_answered": 0.0, "accuracy": None, "accuracy_ci": None}
    silent = decisions | {"answer_when_sure": decisions["answer_when_sure"] | nothing}
    assert "no row is answered" in render(tmp_path, split, NO_YES, 0.4, decisions=silent)


def test_each_column_and_trait_has_its_table(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    sites = [replace(row, subgroups=(("<site>", "north" if n % 3 else f"rare {n}"),)) for n, row in enumerate(rows)]
    text = " ".join(parse(render(tmp_path, (predictions, sites), NO_YES, 0.4)).text.split())
    found = metrics_of((predictions, sites), NO_YES, 0.4)["subgroups"]
    north, pooled = found["<site>"]
    assert "<site>" in text
    assert f"north {north['num_rows']}" in text
    assert f"(fewer than 50 rows) {pooled['num_rows']}" in text
    assert pooled["num_rows"] > 50
    for title in ("Confidence: the largest probability", "Length of the text", "Hedging in the text"):
        assert title in text


FITTED: dict[str, Any] = {
    "calibrator": Calibrator("temperature", {"temperature": (1.7321,)}, 640).to_json(),
    "asked": "auto",
    "num_rows": 640,
    "candidates": [
        {"method": "none", "num_parameters": 0, "mean_nll": 0.701, "standard_error": 0.02, "weight": 0.0},
        {"method": "temperature", "num_parameters": 1, "mean_nll": 0.612, "standard_error": 0.0, "weight": 1.0},
    ],
    "threshold_rule": "precision",
    "threshold_value": 0.8,
    "threshold_ci": [0.31, 0.47],
    "warnings": ["the temperature ran to its bound"],
}


def test_the_page_says_how_the_bundle_came_to_decide(split: Split, tmp_path: Path) -> None:
    text = " ".join(parse(render(tmp_path, split, NO_YES, 0.4, decision=FITTED)).text.split())
    assert "temperature: all logits divided by one number (temperature 1.732), from 640 calibration rows" in text
    assert "temperature 1 0.612 0.000 1.000" in text
    assert "One was chosen" in text
    assert "the lowest threshold with a precision of at least 0.8" in text
    assert "between 0.310 and 0.470" in text
    assert "the temperature ran to its bound." in text


def test_the_page_says_that_candidates_were_averaged_even_where_one_has_all_the_weight(
    split: Split, tmp_path: Path
) -> None:
    average = Calibrator("average", {"weight": (1.0,), "slope": (0.5,), "intercept": (0.0,)}, 60)
    decision = FITTED | {"calibrator": average.to_json()}
    text = parse(render(tmp_path, split, NO_YES, 0.4, decision=decision)).text
    assert "candidates are averaged" in text
    assert "One was chosen" not in text


def test_a_prior_is_said_instead_of_a_verdict(split: Split, tmp_path: Path) -> None:
    decision = FITTED | {"prior": {"no": 0.95, "yes": 0.05}}
    text = " ".join(parse(render(tmp_path, split, NO_YES, 0.4, decision=decision)).text.split())
    assert "other shares of labels (no 0.95, yes 0.05) than these rows have" in text
    assert "expected to be off" in text
    assert "no calibration error beyond chance" not in text
    assert "off by more than chance" not in text
    labels = [row.label for row in split[1] if row.label is not None]
    share = sum(labels) / len(labels)
    same = FITTED | {"prior": {"no": 1 - share, "yes": share}}
    text = " ".join(parse(render(tmp_path, split, NO_YES, 0.4, decision=same)).text.split())
    assert "other shares" not in text
    assert "no calibration error beyond chance" in text or "off by more than chance" in text


def test_confusions_are_counted_at_the_threshold(page: str, split: Split) -> None:
    predictions, _ = split
    text = " ".join(parse(page).text.split())
    found = sum(p.label == p.predicted == "yes" for p in predictions)
    missed = sum(p.label == "yes" and p.predicted == "no" for p in predictions)
    assert (
        f"truly yes {missed} {100 * missed / (missed + found):.1f} % {found} {100 * found / (missed + found):.1f} %"
        in text
    )


def test_what_was_measured_of_explanations_and_language_is_said(split: Split, tmp_path: Path) -> None:
    measured = everything_measured(metrics_of(split, NO_YES, 0.4)["explanation"])
    page = render(tmp_path, split, NO_YES, 0.4, **measured)
    text = " ".join(parse(page).text.split())
    assert "left alone 0.712 0.801 to 0.912" in text
    assert "reads 87.1 % (84.0 % to 90.0 %) of 1,200 training explanations" in text
    assert "no endpoint is set; see evaluate.judge <here>" in text
    assert "0.5 to 0.6 25.0 %" in text
    assert "Repeated runs of four 0.4 % 0.4 %" in text
    assert "Of 64 rows, 92.2 % (82.7 % to 97.4 %) have an explanation" in text
    assert "is 0.215 nats a token in the mean (0.151 to 0.281); its rank correlation" in text
    assert "left alone 31.4; following the decision 32.9; to the references of another row 17.2" in text
    assert "General text 3.157 2.889 +9.3 %" in text
    assert "4,096 tokens, change +8.1 % to +10.4 % (95 %)" in text
    assert "Some general language is lost" in text
    assert "Num reference rows" not in text
    assert "By what this evaluation found:" in text


def test_parts_that_nobody_measured_are_left_out(page: str) -> None:
    text = parse(page).text
    for title in ("Contradictions by confidence", "hang on the verdict", "by people"):
        assert title not in text
    assert "Nothing to compare with" not in text


def test_a_model_without_a_base_at_hand_says_why(split: Split, tmp_path: Path) -> None:
    language = {"general_text_nll": 3.1, "base": "all weights were trained, and <the base> is not loaded"}
    text = " ".join(parse(render(tmp_path, split, NO_YES, 0.4, language=language)).text.split())
    assert "General text 3.100" in text
    assert "Nothing to compare with: all weights were trained, and <the base> is not loaded" in text
    assert "language is lost" not in text


def test_words_that_an_explanation_uses_are_marked(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    text = "Fever & <b>chills</b> since Monday, no cough"
    spoken = [replace(p, explanation="The <b>chills</b>.", free_explanation="A cough.") for p in predictions]
    page = render(tmp_path, (spoken, [replace(row, text=text) for row in rows]), NO_YES, 0.4)
    marked = "Fever &amp; &lt;b&gt;<mark>chills</mark>&lt;/b&gt; since Monday, no "
    assert f'{marked}<mark class="free">cough</mark>' in page
    assert "which need not be what the decision rests on" in parse(page).text
