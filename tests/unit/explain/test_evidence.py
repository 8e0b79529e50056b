"""The teacher without a language model: honest quotes, folds that keep memory out, and bounded work."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from clsgen_dist.config.sections import Task
from clsgen_dist.data.synthetic import vignettes
from clsgen_dist.errors import DataError
from clsgen_dist.explain import evidence
from clsgen_dist.explain.evidence import NUM_FOLDS, EvidenceTeacher, fit_evidence, fold_of
from clsgen_dist.records import Row
from tests.support.tiny import ROOT

ESNLI = ROOT.parent / "shared" / "data" / "esnli_binary_train.jsonl"
TRIAGE = Task(question="Urgent?", labels=["not urgent", "urgent"])
COLOURS = Task(question="Which?", labels=["red", "green", "blue"])


@pytest.fixture(scope="module")
def triage_rows() -> list[Row]:
    return list(vignettes(600, seed=1, split="train"))


@pytest.fixture(scope="module")
def triage(triage_rows: list[Row]) -> EvidenceTeacher:
    return fit_evidence(lambda: triage_rows, TRIAGE, seed=0)


def reason_for(teacher: EvidenceTeacher, row: Row, attempt: int = 0) -> str:
    reason, fault = asyncio.run(teacher.give_reason(row, attempt=attempt, fault=None))
    assert (fault is None) == bool(reason)
    return reason


def blind(teacher: EvidenceTeacher, row: Row) -> int | None:
    return asyncio.run(teacher.answer_blind(row))


def read(teacher: EvidenceTeacher, reason: str) -> int | None:
    return asyncio.run(teacher.read(reason))


def quotes(reason: str) -> list[str]:
    return re.findall(r'"([^"]*)"', reason)


def share(hits: Iterable[bool]) -> float:
    return float(np.mean(list(hits)))


def coloured(num_rows: int, num_labels: int = 3) -> list[Row]:
    """Rows whose label one word tells; the words about it are the same for all labels."""
    draw = np.random.default_rng(0)
    signs = ["Cherry pie", "Meadow grass", "Ocean waves"]
    fillers = ["today", "again", "quietly", "nearby", "later", "slowly", "twice", "outside"]
    rows = []
    for number in range(num_rows):
        label = number % num_labels
        before, after = draw.choice(fillers, 3), draw.choice(fillers, 3)
        text = f"{' '.join(before)} {signs[label]} {' '.join(after)}."
        rows.append(Row(id=f"c{number}", text=text, label=label))
    return rows


def test_quotes_stand_in_the_text_as_they_are(triage: EvidenceTeacher, triage_rows: list[Row]) -> None:
    for row in triage_rows[:200]:
        quoted = quotes(reason_for(triage, row))
        assert 1 <= len(quoted) <= 4
        assert all(quote in row.text for quote in quoted)
        places = sorted((row.text.index(quote), row.text.index(quote) + len(quote)) for quote in quoted)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))


def test_most_reasons_are_read_as_their_label(triage: EvidenceTeacher, triage_rows: list[Row]) -> None:
    rows = triage_rows[:300]
    assert share(read(triage, reason_for(triage, row)) == row.label for row in rows) > 0.95
    # As good as the words allow: the label was drawn, so no model is always right.
    best = share((row.true_probability or 0.0) >= 0.5 == bool(row.label) for row in rows)
    assert share(blind(triage, row) == row.label for row in rows) > max(0.7, best - 0.15)


def test_the_reading_hears_the_quotes_and_not_the_name_of_the_label(triage: EvidenceTeacher) -> None:
    assert read(triage, 'The wording "seems confused" and "getting worse" speaks most for not urgent.') == 1
    assert read(triage, 'The wording "getting better" and "mild" speaks most for urgent.') == 0
    assert read(triage, "It is urgent.") is None
    assert read(triage, 'The wording "zygomorphic" speaks for urgent.') is None


def test_the_words_of_a_label_in_quotes_are_no_phrase() -> None:
    task = Task(question="?", labels=['the "Cherry pie" one', "{phrases}", "blue"])
    rows = coloured(60)
    teacher = fit_evidence(lambda: rows, task, seed=0)
    assert all("Cherry pie" not in quotes(reason_for(teacher, replace(row, label=1))) for row in rows[1:60:3])
    assert "{phrases}" in reason_for(teacher, rows[1])


def test_the_sentence_names_the_label_and_varies(triage: EvidenceTeacher, triage_rows: list[Row]) -> None:
    rows = triage_rows[:200]
    reasons = [reason_for(triage, row) for row in rows]
    for row, reason in zip(rows, reasons, strict=True):
        assert TRIAGE.labels[row.label or 0] in reason.lower()
        assert reason[0].isupper()
        assert reason.endswith(".")
    frames = {re.sub(r'"[^"]*"(?:, "[^"]*")*(?: and "[^"]*")?', "...", reason).lower() for reason in reasons}
    assert len(frames) >= 8
    assert len(set(reasons)) > 180


def test_the_same_row_and_attempt_have_the_same_words(triage: EvidenceTeacher, triage_rows: list[Row]) -> None:
    again = fit_evidence(lambda: reversed(triage_rows), TRIAGE, seed=0)
    other_seed = fit_evidence(lambda: triage_rows, TRIAGE, seed=5)
    rows = triage_rows[:40]
    reasons = [reason_for(triage, row) for row in rows]
    assert [reason_for(again, row) for row in rows] == reasons
    assert [reason_for(other_seed, row) for row in rows] != reasons


def test_another_attempt_gives_other_words(triage: EvidenceTeacher, triage_rows: list[Row]) -> None:
    rows = triage_rows[:100]
    assert share(len({reason_for(triage, row, attempt) for attempt in range(3)}) > 1 for row in rows) > 0.95
    further = share(set(quotes(reason_for(triage, row))) != set(quotes(reason_for(triage, row, 1))) for row in rows)
    assert further > 0.5


def test_a_label_that_the_model_itself_does_not_give_is_argued_for_with_less_certainty() -> None:
    rows = [
        Row(id=f"m{n}", text="cherry cherry jam with cherry pie" if n % 2 else "ocean waves", label=n % 2)
        for n in range(40)
    ]
    teacher = fit_evidence(lambda: rows, Task(question="?", labels=["sea", "fruit"]), seed=0)
    mixed = Row(id="x", text="cherry pie, cherry jam and cherry, ocean", label=0)
    assert blind(teacher, mixed) == 1
    reason = reason_for(teacher, mixed)
    assert "most" not in reason
    assert quotes(reason) == ["ocean"]
    assert read(teacher, reason) == 0


def test_no_phrase_that_speaks_for_the_label_means_no_reason() -> None:
    rows = coloured(60)
    teacher = fit_evidence(lambda: rows, COLOURS, seed=0)
    for text in ("Entirely unknown vocabulary.", "", "the of and", "12 !?"):
        row = Row(id="x", text=text, label=0)
        assert asyncio.run(teacher.give_reason(row, attempt=0, fault=None)) == ("", "no evidence")
        assert blind(teacher, row) is None
    only_blue = Row(id="y", text="Ocean waves", label=0)
    assert asyncio.run(teacher.give_reason(only_blue, attempt=0, fault=None)) == ("", "no evidence")


def test_three_labels() -> None:
    rows = coloured(90)
    teacher = fit_evidence(lambda: rows, COLOURS, seed=0)
    for row in rows:
        assert blind(teacher, row) == row.label
        reason = reason_for(teacher, row)
        assert any(sign in reason for sign in ("Cherry pie", "Meadow grass", "Ocean waves"))
        assert read(teacher, reason) == row.label


def test_a_label_that_no_row_has_is_neither_given_nor_argued_for() -> None:
    rows = coloured(60, num_labels=2)
    teacher = fit_evidence(lambda: rows, COLOURS, seed=0)
    assert all(blind(teacher, row) == row.label for row in rows)
    assert all(reason_for(teacher, replace(row, label=2)) == "" for row in rows)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("No fever at night.", "No fever"),  # a negation is quoted with what it denies
        ("Pain of the CHEST today.", "Pain of the CHEST"),  # joined over stop words, in its own case
        ("Fever. Chest pain.", None),  # not across the end of a sentence
        ("Fever\nChest pain.", None),  # nor of a line
    ],
)
def test_how_phrases_are_joined(text: str, span: str | None) -> None:
    words = evidence._words(text)
    placed = evidence._terms(words)
    weights = {"fever": 1.0, "pain": 1.0, "chest": 0.9, "no fever": 0.5}
    found = [text[words[a].start : words[b].end] for a, b in evidence._phrases(words, placed, weights)]
    assert found == ([span] if span else ["Chest pain", "Fever"])


def test_a_phrase_whose_words_speak_against_the_label_as_a_whole_is_not_quoted() -> None:
    words = evidence._words("a severe pain, and mild fever")
    placed = evidence._terms(words)
    weights = {"severe": 0.5, "severe pain": -0.9, "pain": 0.3, "mild": 0.4}
    found = [tuple(w.form for w in words[a : b + 1]) for a, b in evidence._phrases(words, placed, weights)]
    assert set(found) == {("severe",), ("pain",), ("mild",)} or set(found) == {("severe",), ("mild",)}


def test_terms_are_weighed_as_scikit_learn_weighs_them(triage: EvidenceTeacher, triage_rows: list[Row]) -> None:
    vectorizer = TfidfVectorizer(
        analyzer=lambda text: [term for term, _ in evidence._terms(evidence._words(text))],
        sublinear_tf=True,
        min_df=2,
        max_df=0.95,
        max_features=50_000,
    )
    vectorizer.fit(row.text for row in triage_rows)
    assert vectorizer.vocabulary_ == triage._vocabulary
    text = f"{triage_rows[0].text} {triage_rows[1].text}"
    _, terms, values = triage._tf_idf(evidence._terms(evidence._words(text)))
    expected = vectorizer.transform([text])
    assert dict(zip(terms.tolist(), values.tolist(), strict=True)) == pytest.approx(
        dict(zip(expected.indices.tolist(), expected.data.tolist(), strict=True))
    )


def test_a_row_is_answered_by_a_model_that_was_not_fitted_on_it() -> None:
    """Labels are noise, and every text has words of its own: only memory could be right."""
    draw = np.random.default_rng(3)
    rows = [
        Row(
            id=f"r{n}",
            text=f"own{n} word{n} {' '.join(draw.choice(list('pqrstuvw'), 3))}",
            label=int(draw.random() < 0.5),
        )
        for n in range(90)  # fewer than 100, so that a word of one row is a term
    ]
    teacher = fit_evidence(lambda: rows, TRIAGE, seed=0)
    whole = [
        teacher._whole.decide(*teacher._tf_idf(evidence._terms(evidence._words(row.text)))[1:]) == row.label
        for row in rows
    ]
    assert share(whole) > 0.95
    assert share(blind(teacher, row) == row.label for row in rows) < 0.7
    assert not any(re.search(r"\b(?:own|word)\d", reason_for(teacher, row)) for row in rows)


def test_folds_follow_the_group_and_nothing_else() -> None:
    rows = [Row(id=f"r{n}", text="t", group=None if n % 2 else f"g{n // 10}") for n in range(1000)]
    assert {fold_of(row) for row in rows} == set(range(NUM_FOLDS))
    assert fold_of(Row(id="a", text="1", group="g")) == fold_of(Row(id="b", text="2", group="g", label=1))
    counts = np.bincount([fold_of(row) for row in rows if row.group is None])
    assert counts.min() > 60


def test_a_label_with_one_row_still_has_a_reason() -> None:
    rows = [row for row in coloured(60) if row.label != 2]
    rows.append(Row(id="rare", text="today Ocean waves again.", label=2))
    teacher = fit_evidence(lambda: rows, COLOURS, seed=0)
    assert blind(teacher, rows[-1]) == 2
    assert "Ocean waves" in reason_for(teacher, rows[-1])


def test_four_rows_are_enough() -> None:
    rows = coloured(4, num_labels=2)
    teacher = fit_evidence(lambda: rows, COLOURS, seed=0)
    assert all(read(teacher, reason_for(teacher, row)) in (row.label, None) for row in rows)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "found 0 training rows of 0 label"),
        ([Row(id="a", text="x y", label=1), Row(id="b", text="z", label=None)], "found 1 training rows of 1 label"),
        ([Row(id="a", text="?!", label=0), Row(id="b", text="", label=1)], "no word that only some of 2"),
    ],
)
def test_rows_that_nothing_can_be_learned_from(rows: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_evidence(lambda: rows, TRIAGE, seed=0)


def test_only_a_sample_is_fitted_whatever_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = coloured(400)

    def sampled(stream: Iterable[Row], seed: int = 0, most: int = 50) -> list[str]:
        return [text for text, _, _ in evidence._draw_sample(stream, seed, most)]

    forward = sampled(rows)
    assert len(forward) == 50
    assert sampled(reversed(rows)) == forward
    assert sampled(rows, seed=1) != forward
    assert len(sampled(rows, most=400)) == 400
    monkeypatch.setattr(evidence, "MAX_SAMPLE_CHARACTERS", 500)
    few = sampled(rows)
    assert 300 < sum(map(len, few)) <= 500
    assert set(few) <= set(forward)


def test_the_stream_is_never_held(triage_rows: list[Row]) -> None:
    alive = 0
    most = 0

    class Counted(str):
        def __new__(cls, text: str) -> Counted:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, text)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[Row]:
        for n in range(5000):
            yield Row(id=f"s{n}", text=Counted(triage_rows[n % 600].text), label=n % 2)

    fit_evidence(stream, TRIAGE, seed=0, max_rows=100)
    assert most <= 200


def test_a_text_of_a_million_words_is_looked_at_in_part() -> None:
    rows = coloured(60)
    teacher = fit_evidence(lambda: rows, COLOURS, seed=0)
    endless = Row(id="x", text="Cherry pie " * 500_000, label=0)
    assert quotes(reason_for(teacher, endless))[0].startswith("Cherry pie")
    assert len(reason_for(teacher, endless)) < 500


@pytest.mark.real_data
def test_real_sentence_pairs() -> None:
    if not ESNLI.is_file():
        pytest.skip(f"no working sets at {ESNLI.parent}")
    records: list[dict[str, Any]] = []
    with ESNLI.open(encoding="utf-8") as file:
        for line in file:
            records.append(json.loads(line))
            if len(records) == 500:
                break
    # A premise comes with both labels. In one group, so that it is not learnt as speaking against the other row.
    rows = [Row(id=r["id"], text=r["text"], label=r["label"], group=r["premise"]) for r in records]
    task = Task(question="Does it follow?", labels=["contradiction", "entailment"])
    teacher = fit_evidence(lambda: rows, task, seed=0)
    assert share(blind(teacher, row) == row.label for row in rows) > 0.57
    reasons = [reason_for(teacher, row) for row in rows]
    assert share(map(bool, reasons)) > 0.9
    told = [(row, reason) for row, reason in zip(rows, reasons, strict=True) if reason]
    assert share(read(teacher, reason) == row.label for row, reason in told) > 0.9
    assert all(quote in row.text for row, reason in told for quote in quotes(reason))
    assert not any("Premise" in quote or "Hypothesis" in quote for _, reason in told for quote in quotes(reason))
