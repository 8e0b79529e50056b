"""Task and text as words, and the verdict read back out of what a model wrote."""

from __future__ import annotations

import pytest

from clsgen_dist.config.sections import Task
from clsgen_dist.data.prompts import prompt_frame, split_frame, split_verdict, verdict


def task(**changes: object) -> Task:
    return Task.model_validate({"question": "Urgent?", "labels": ["no", "yes"], **changes})


def test_the_frame_is_the_template_around_the_text() -> None:
    before, after = split_frame(prompt_frame(task(prompt_template="{question} ({labels})\n{text}\n{x} {} Answer:")))
    assert before == "Urgent? (no, yes)\n"
    assert after == "\n{x} {} Answer:"


def test_braces_in_a_question_are_its_own() -> None:
    before, after = split_frame(
        prompt_frame(task(question="Is {text} of {labels}?", prompt_template="{question} {text}."))
    )
    assert before == "Is {text} of {labels}? "
    assert after == "."


def test_a_verdict_is_the_label_in_its_template() -> None:
    assert verdict(task(), 1) == "yes."
    assert verdict(task(verdict_template="So: {label}!"), 0) == "So: no!"


@pytest.mark.parametrize(
    ("written", "label", "words"),
    [
        ("yes. Because", 1, "Because"),
        (" \n YES. x ", 1, "x"),
        ("no.", 0, ""),
        ("yes", None, "yes"),
        (" maybe yes.", None, "maybe yes."),
        ("", None, ""),
    ],
)
def test_a_verdict_is_read_where_it_opens_the_text(written: str, label: int | None, words: str) -> None:
    assert split_verdict(task(), written) == (label, words)


def test_the_longer_of_two_verdicts_is_read() -> None:
    labels = task(labels=["not", "not sure", "sure"], verdict_template="{label}")
    assert [split_verdict(labels, text) for text in ("not", "not sure at all", "sure")] == [
        (0, ""),
        (1, "at all"),
        (2, ""),
    ]


def test_letters_that_fold_to_two_are_cut_off_whole() -> None:
    streets = task(labels=["Stra\u00dfe", "Weg"])
    assert split_verdict(streets, "STRASSE. Dort.") == (0, "Dort.")
    assert split_verdict(streets, "stra\u00dfe. Dort.") == (0, "Dort.")
