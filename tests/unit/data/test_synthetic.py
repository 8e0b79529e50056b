"""The vignettes: seeded, disjoint, honest, and learnable from their text alone."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from clsgen_dist.data.synthetic import (
    ASPECTS,
    BASE_LOG_ODDS,
    INTERACTIONS,
    MAX_ROWS,
    bayes_probability,
    vignettes,
)
from clsgen_dist.records import SPLITS, Row

Findings = dict[str, str]


def read_findings(text: str) -> Findings:
    """Reads the findings back out of a text, by its phrases alone."""
    return {aspect: _read_aspect(aspect, text.lower()) for aspect in ASPECTS}


def _read_aspect(aspect: str, text: str) -> str:
    said = [name for name, pattern in PATTERNS[aspect].items() if pattern.search(text)]
    assert len(said) <= 1, f"{aspect} is said as {said} in: {text}"
    return said[0] if said else ""


def _pattern(phrase: str) -> str:
    words = re.escape(phrase.lower()).replace(r"\{person\}", "(?:man|woman)").replace(r"\{n\}", r"[\d.]+")
    return r"(?<![a-z])" + words + r"(?![a-z\d])" if not phrase.startswith((" ", ",")) else words


PATTERNS = {
    aspect: {f.name: re.compile("|".join(map(_pattern, f.phrases))) for f in findings if f.name}
    for aspect, findings in ASPECTS.items()
}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(vignettes(20_000, seed=11, split="test"))


@pytest.fixture(scope="module")
def labels(rows: list[Row]) -> np.ndarray:
    return np.array([row.label for row in rows])


@pytest.fixture(scope="module")
def probabilities(rows: list[Row]) -> np.ndarray:
    return np.array([row.true_probability for row in rows])


def test_rows_are_reproducible() -> None:
    assert list(vignettes(300, seed=5, split="train")) == list(vignettes(300, seed=5, split="train"))


def test_a_known_row_is_the_same_on_every_platform() -> None:
    row = next(vignettes(1, seed=1, split="train"))
    assert row == Row(
        id="vignette-train-000001",
        text=(
            "A middle-aged woman of 47 reports pain in the stomach. She was always healthy and is on a blood thinner. "
            "Oxygen is low at 90 % and blood pressure is normal at 115."
        ),
        label=0,
        explanation="Despite a low oxygen, this can wait because of no earlier illness and a normal blood pressure.",
        true_probability=0.214165,
    )


def test_seeds_differ() -> None:
    texts = [{row.text for row in vignettes(300, seed=seed, split="train")} for seed in (1, 2)]
    assert not texts[0] & texts[1]


def test_more_rows_begin_with_the_fewer_rows() -> None:
    assert list(vignettes(700, seed=5, split="train"))[:40] == list(vignettes(40, seed=5, split="train"))


def test_rows_come_one_at_a_time() -> None:
    first = list(itertools.islice(vignettes(MAX_ROWS, seed=5, split="train"), 3))
    assert [row.id for row in first] == [f"vignette-train-{number:06d}" for number in (1, 2, 3)]


def test_no_rows_are_no_rows() -> None:
    assert list(vignettes(0, seed=5, split="train")) == []


@pytest.mark.parametrize(("num_rows", "split"), [(-1, "train"), (MAX_ROWS + 1, "train"), (1, "dev")])
def test_arguments_out_of_range_are_refused_before_the_first_row(num_rows: int, split: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        vignettes(num_rows, seed=1, split=split)


@pytest.mark.parametrize("seeds", [(3, 3, 3, 3), (1, 2, 3, 4)])
def test_no_text_stands_in_two_splits_nor_twice_in_one(seeds: tuple[int, ...]) -> None:
    """Compared as splits are elsewhere: without case, spaces and punctuation."""
    texts = [
        re.sub(r"[^a-z0-9]+", " ", row.text.lower())
        for split, seed in zip(SPLITS, seeds, strict=True)
        for row in vignettes(2000, seed=seed, split=split)
    ]
    assert len(set(texts)) == len(texts) == 8000


def test_probabilities_are_calibrated(labels: np.ndarray, probabilities: np.ndarray) -> None:
    edges = np.quantile(probabilities, np.linspace(0, 1, 11)[1:-1])
    for part in range(10):
        inside = np.digitize(probabilities, edges) == part
        expected = probabilities[inside]
        standard_error = math.sqrt(float((expected * (1 - expected)).sum())) / inside.sum()
        assert abs(labels[inside].mean() - expected.mean()) < 4 * standard_error


def test_base_rate_and_bayes_auroc(labels: np.ndarray, probabilities: np.ndarray) -> None:
    assert 0.4 < labels.mean() < 0.5
    assert 0.88 < roc_auc_score(labels, probabilities) < 0.93


def test_lengths(rows: list[Row]) -> None:
    assert 28 <= np.median([len(row.text.split()) for row in rows]) <= 45
    assert 12 <= np.median([len((row.explanation or "").split()) for row in rows]) <= 20


def test_shares_of_findings_are_as_declared(rows: list[Row]) -> None:
    found = [read_findings(row.text) for row in rows[:8000]]
    for aspect, findings in ASPECTS.items():
        total = sum(finding.share for finding in findings)
        for finding in findings:
            share = np.mean([patient[aspect] == finding.name for patient in found])
            assert share == pytest.approx(finding.share / total, abs=0.02), (aspect, finding.name)


def test_the_text_determines_the_probability(rows: list[Row]) -> None:
    for row in rows[8000:]:
        assert row.true_probability == bayes_probability(read_findings(row.text)), row.text


def test_every_finding_and_every_interaction_moves_the_probability() -> None:
    calm = dict.fromkeys(ASPECTS, "") | {"age": "middle-aged", "complaint": "back pain"}
    for aspect, findings in ASPECTS.items():
        probabilities = [bayes_probability(calm | {aspect: finding.name}) for finding in findings]
        assert len(set(probabilities)) == len(findings), aspect
    for (aspect, name), (other_aspect, other_name), extra, _ in INTERACTIONS:
        both = _log_odds(calm | {aspect: name, other_aspect: other_name})
        one, other = _log_odds(calm | {aspect: name}), _log_odds(calm | {other_aspect: other_name})
        assert both - one - other + _log_odds(calm) == pytest.approx(extra, abs=1e-3)


def test_probability_is_the_documented_formula() -> None:
    findings = dict.fromkeys(ASPECTS, "") | {"age": "elderly", "complaint": "chest pain", "oxygen": "low oxygen"}
    assert _log_odds(findings) == pytest.approx(BASE_LOG_ODDS + 0.8 + 0.8 + 1.8 + 1.0, abs=1e-4)


def _log_odds(findings: Findings) -> float:
    probability = bayes_probability(findings)
    return math.log(probability / (1 - probability))


def test_the_label_is_not_in_the_text_beyond_the_probability(
    rows: list[Row], labels: np.ndarray, probabilities: np.ndarray
) -> None:
    """Phrases, numbers and orders within a finding carry nothing: what is left after p is noise."""
    residual = labels - probabilities
    for sign in (" Measured: ", " reports ", " man", " is on ", " known ", ", severe from"):
        inside = np.array([sign in row.text for row in rows])
        standard_error = math.sqrt(float((probabilities * (1 - probabilities))[inside].sum())) / inside.sum()
        assert abs(residual[inside].mean()) < 4 * standard_error, sign


def test_explanations_name_findings_of_their_text(rows: list[Row]) -> None:
    """Every reason that an explanation gives is true of its text, and it gives at least one."""
    reasons = {f.reason: {(aspect, f.name)} for aspect, options in ASPECTS.items() for f in options if f.reason}
    reasons |= {reason: {one, other} for one, other, _, reason in INTERACTIONS}
    longest_first = sorted(reasons, key=len, reverse=True)
    for row in rows[:4000]:
        explanation, findings, num_named = (row.explanation or "").lower(), read_findings(row.text), 0
        for reason in longest_first:
            if reason in explanation:
                assert all(findings[aspect] == name for aspect, name in reasons[reason]), row
                explanation, num_named = explanation.replace(reason, ""), num_named + 1
        assert num_named >= 1, row


def test_explanations_argue_for_the_drawn_label(rows: list[Row]) -> None:
    """The strongest finding for the label is named, and what is conceded speaks against it."""
    weights = {f.reason: f.weight for options in ASPECTS.values() for f in options if f.reason}
    num_conceded = 0
    for row in rows[:4000]:
        sign = 1 if row.label else -1
        explanation = row.explanation or ""
        conceded = re.match(r"(?:Although|Despite) (.*?)(?: may (?:worry|reassure))?, ", explanation)
        if conceded:
            num_conceded += 1
            assert sign * weights.get(conceded[1], 1.0) < 0 or conceded[1] not in weights, row
            explanation = explanation[conceded.end() :]
        if "may still" not in explanation:
            findings = read_findings(row.text)
            named = [w for reason, w in weights.items() if reason in explanation]
            assert any(sign * weight > 0 for weight in named) or any(r in explanation for *_, r in INTERACTIONS), row
            assert len(findings) == len(ASPECTS)
    assert 0.2 < num_conceded / 4000 < 0.9


def test_last_resort_explanations_are_rare(rows: list[Row]) -> None:
    assert np.mean(["may still" in (row.explanation or "") for row in rows]) < 0.01


def test_a_bag_of_words_reads_the_label_off_the_explanation(rows: list[Row], labels: np.ndarray) -> None:
    explanations = [row.explanation or "" for row in rows[:4000]]
    vectorizer = TfidfVectorizer()
    model = LogisticRegression().fit(vectorizer.fit_transform(explanations[:2000]), labels[:2000])
    scores = model.predict_proba(vectorizer.transform(explanations[2000:]))[:, 1]
    assert roc_auc_score(labels[2000:4000], scores) > 0.9


def test_a_bag_of_word_pairs_comes_near_bayes(rows: list[Row], labels: np.ndarray, probabilities: np.ndarray) -> None:
    """The additive part of the task is learnable from the words; the rest are the interactions."""
    texts = [row.text for row in rows]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=5)
    model = LogisticRegression(C=3.0, max_iter=300).fit(vectorizer.fit_transform(texts[:6000]), labels[:6000])
    scores = model.predict_proba(vectorizer.transform(texts[-4000:]))[:, 1]
    assert roc_auc_score(labels[-4000:], probabilities[-4000:]) - roc_auc_score(labels[-4000:], scores) < 0.04
