"""The classifier of words: what it reads, what it leaves, and what it says of itself."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clsgen_dist.config.sections import Task
from clsgen_dist.evaluate import text_reader
from clsgen_dist.evaluate.reading import Unavailable
from clsgen_dist.evaluate.text_reader import TextReader, choose_margin, fit_text_reader
from clsgen_dist.records import Row
from tests.support.tiny import ROOT

TASK = Task(question="Urgent?", labels=["routine", "urgent"])
SIGNS = (("calm", "normal", "healthy", "mild"), ("fever", "bleeding", "shock", "collapse"))
FILLER = ("patient", "ward", "note", "morning", "nurse", "bed", "visit", "clinic")

WORKING_SETS = ROOT.parent / "shared" / "data"


def explained_rows(num_rows: int, *, share_clear: float = 1.0, seed: int = 0, labels: int = 2) -> list[Row]:
    """Explanations of filler, most with a sign of their label, each naming the label too."""
    draw = np.random.default_rng(seed)
    signs = (*SIGNS, ("odd", "strange", "weird", "curious"))
    rows = []
    for number in range(num_rows):
        label = number % labels
        words = [*draw.choice(FILLER, 3), *([draw.choice(signs[label])] if draw.random() < share_clear else [])]
        rows.append(Row(id=f"r{number}", text="", label=label, explanation=f"Because {' '.join(words)}."))
    return rows


def fit(rows: list[Row], task: Task = TASK, seed: int = 0) -> TextReader | Unavailable:
    return fit_text_reader(rows, task, num_bootstrap=100, seed=seed)


def reader_of(rows: list[Row], task: Task = TASK) -> TextReader:
    found = fit(rows, task)
    assert isinstance(found, TextReader), found
    return found


def reason_of(rows: list[Row], task: Task = TASK) -> str:
    found = fit(rows, task)
    assert isinstance(found, Unavailable), found.facts
    return found.reason


def test_the_margin_by_hand() -> None:
    # Right readings from the widest margin on: r r w r r r r r; four right ones pay for a wrong one.
    margin = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    right = np.array([True, True, False, True, True, True, True, True])
    assert choose_margin(margin, right) == 0.2  # gains 2 down to 0.8, 3 down to 0.2
    assert choose_margin(margin[:7], right[:7]) == 0.3  # 2 down to 0.8, and 2 again down to 0.3: the smaller margin
    assert choose_margin(margin[:6], right[:6]) == 0.8
    assert choose_margin(margin[:2], ~right[:2]) == float("inf")
    assert choose_margin(np.empty(0), np.empty(0, dtype=bool)) == float("inf")
    # Equal margins are read together: 4 right ones and 1 wrong one gain nothing.
    assert choose_margin(np.full(5, 0.5), np.array([True] * 4 + [False])) == float("inf")


def test_it_reads_what_is_clear_and_says_so() -> None:
    reader = reader_of(explained_rows(200))
    labels, facts = reader.read(["The ward is calm, and she is healthy", "He has a fever and is bleeding"])
    assert labels.tolist() == [0, 1]
    assert (facts["accuracy"], facts["num_rows"]) == (1.0, 200)
    # The least sure one of all falls below the margin that the other folds chose.
    assert facts["coverage"] == 0.99
    # All 198 right: 0.025 ** (1 / 198).
    assert facts["accuracy_ci"] == [pytest.approx(0.98154, abs=1e-4), 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "urgent",
        "This is urgent.",
        "The answer is clearly not urgent",
        "Routine, routine.",
        "xyzzy",
        "note of morning",
    ],
)
def test_without_a_reason_a_text_is_unclear(text: str) -> None:
    assert reader_of(explained_rows(600, share_clear=0.6)).read([text])[0].tolist() == [-1]


def test_masking_matters() -> None:
    """Explanations that name their label and give no reason teach nothing, though the name would tell it always."""
    draw = np.random.default_rng(0)
    named = [
        replace(row, explanation=f"It is {TASK.labels[row.label or 0]}: {' '.join(draw.choice(FILLER, 4))}.")
        for row in explained_rows(200)
    ]
    assert "do not tell which label they argue for" in reason_of(named)
    # Other labels, so that these names are words like any other.
    assert reader_of(named, Task(question="?", labels=["a1", "b2"])).facts["accuracy"] == 1.0


def test_the_name_of_the_other_label_does_not_mislead() -> None:
    assert reader_of(explained_rows(200)).read(["Urgent. She is calm and healthy"])[0].tolist() == [0]


def test_what_is_unclear_in_training_is_left_and_counted() -> None:
    """Two in five explanations hold no sign, and are right by chance only."""
    reader = reader_of(explained_rows(600, share_clear=0.6))
    assert reader.facts["coverage"] == pytest.approx(0.6, abs=0.06)
    assert reader.facts["accuracy"] > 0.9
    fresh = explained_rows(400, share_clear=0.6, seed=1)
    labels, _ = reader.read([row.explanation or "" for row in fresh])
    truth = np.array([row.label for row in fresh])
    is_read = labels >= 0
    assert is_read.mean() == pytest.approx(0.6, abs=0.08)
    low, high = reader.facts["accuracy_ci"]
    assert low - 0.03 < (labels[is_read] == truth[is_read]).mean() <= min(1.0, high + 0.03)


def test_words_of_a_group_are_no_evidence_for_its_other_rows() -> None:
    """Each group has a word of its own and one label: across rows it tells all, across groups nothing."""
    names = [f"case{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(40)]
    rows = [
        Row(id=f"r{n}", text="", label=n % 40 % 2, explanation=f"Said of {names[n % 40]}", group=f"g{n % 40}")
        for n in range(400)
    ]
    assert "do not tell" in reason_of(rows)
    assert reader_of([replace(row, group=None) for row in rows]).facts["accuracy"] == 1.0


def test_three_labels() -> None:
    task = Task(question="?", labels=["routine", "urgent", "other"])
    reader = reader_of(explained_rows(300, labels=3), task)
    texts = ["calm and mild", "shock, collapse", "strange, odd", "calm shock"]
    assert reader.read(texts)[0].tolist() == [0, 1, 2, -1]
    assert reader.probabilities(texts).shape == (4, 3)
    np.testing.assert_allclose(reader.probabilities(texts).sum(axis=1), 1)


def test_a_rare_label_is_no_worse_a_reading() -> None:
    """Nine rows in ten are routine; filler alone is still unclear."""
    rows = explained_rows(800, share_clear=0.9)
    kept = [row for n, row in enumerate(rows) if row.label == 0 or n % 9 == 1]
    assert reader_of(kept).read(["patient in the ward", "fever", "calm"])[0].tolist() == [-1, 1, 0]


def test_too_few_explanations_are_said_in_words() -> None:
    rows = explained_rows(200)
    few = [row for row in rows if row.label == 0] + [row for row in rows if row.label == 1][:19]
    assert reason_of(few) == (
        "19 training explanations of 'urgent' in 19 groups, expected 20 or more of each label in 5 groups or more"
    )
    grouped = [replace(row, group=f"g{n % 8}") for n, row in enumerate(rows)]
    assert reason_of(grouped).startswith("100 training explanations of 'routine' in 4 groups")
    assert reason_of([]).startswith("0 training explanations of 'routine'")
    silent = [replace(row, explanation=None) for row in rows] + [replace(row, label=None) for row in rows]
    assert reason_of(silent).startswith("0 training explanations")
    single = [replace(row, explanation=f"w{chr(97 + n % 26)}{chr(97 + n // 26)}") for n, row in enumerate(rows)]
    assert reason_of(single).startswith("no word beside label names stands in two of 200")


def test_the_same_rows_give_the_same_reader() -> None:
    rows, texts = explained_rows(300, share_clear=0.8), ["calm ward", "fever ward", "ward"]
    one, other = reader_of(rows), reader_of(rows)
    assert one.facts == other.facts
    np.testing.assert_array_equal(one.probabilities(texts), other.probabilities(texts))


def test_of_too_many_explanations_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = explained_rows(400)
    total = sum(len(row.explanation or "") for row in rows)
    monkeypatch.setattr(text_reader, "MAX_CHARACTERS", total // 2)
    assert reader_of(rows).facts["num_rows"] == pytest.approx(200, abs=5)


def working_set(name: str, split: str, explanations: tuple[str, ...] = ("explanation",)) -> list[Row]:
    path = WORKING_SETS / f"{name}_{split}.jsonl"
    if not path.is_file():
        pytest.skip(f"no {path.name} in ../shared/data")
    records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Row(id=f"{r['id']}-{key}", text="", label=r["label"], explanation=r[key], group=r.get("premise", r["id"]))
        for r in records
        for key in explanations
        if r[key]
    ]


def measured(reader: TextReader, rows: list[Row]) -> dict[str, float]:
    texts, truth = [row.explanation or "" for row in rows], np.array([row.label for row in rows])
    labels, _ = reader.read(texts)
    is_read = labels >= 0
    return {
        "auroc": float(roc_auc_score(truth, reader.probabilities(texts)[:, 1])),
        "coverage": float(is_read.mean()),
        "accuracy": float((labels[is_read] == truth[is_read]).mean()),
    }


@pytest.mark.real_data
@pytest.mark.parametrize("labels", [["contradiction", "entailment"], ["no", "yes"]], ids=", ".join)
def test_people_s_reasons_for_sentence_pairs_are_read(labels: list[str]) -> None:
    """A bag of words without any mask reads the test explanations with an AUROC of 0.989."""
    every = ("explanation", "explanation_2", "explanation_3")
    rows = working_set("esnli_binary", "train", every)
    started = time.process_time()
    reader = reader_of(rows, Task(question="?", labels=labels))
    assert time.process_time() - started < 30
    found = measured(reader, working_set("esnli_binary", "test"))
    print(len(rows), dict(reader.facts), found)
    assert found["auroc"] > 0.985
    assert found["accuracy"] > 0.97
    assert found["coverage"] > 0.92
    # What it says of itself holds on rows that it has not seen, give or take their own error.
    assert reader.facts["accuracy"] == pytest.approx(found["accuracy"], abs=0.01)
    names = [f"{prefix}{name}." for name in labels for prefix in ("", "The answer is ", "This is clearly not ")]
    assert set(reader.read(names)[0].tolist()) == {-1}


@pytest.mark.real_data
def test_conclusions_of_abstracts_are_hard_to_read_and_the_reader_says_so() -> None:
    reader = reader_of(working_set("pubmedqa", "train"), Task(question="?", labels=["no", "yes"]))
    found = measured(reader, working_set("pubmedqa", "test"))
    print(dict(reader.facts), found)
    assert 0.74 < found["auroc"] < 0.86
    low, high = reader.facts["accuracy_ci"]
    assert reader.facts["coverage"] < 0.65
    assert low < found["accuracy"] < high < 0.95
