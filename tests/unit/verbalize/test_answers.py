"""Answers from a file: every bad line is refused by name, every failure is kept and counted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsgen_dist.calibrate.simplex import softmax
from clsgen_dist.errors import DataError
from clsgen_dist.records import UNLABELLED
from clsgen_dist.verbalize.answers import (
    Answers,
    average_said,
    check_apart,
    name_groups,
    read_answers,
    split_answers,
)
from clsgen_dist.verbalize.parsing import Said

LABELS = ("no", "yes")
GOOD: dict[str, Any] = {"id": "a", "label": "yes", "answer": "no: 20%, yes: 80%\nno: 20%\nyes: 80%"}


def read(folder: Path, *lines: Any, labels: tuple[str, ...] = LABELS) -> Answers:
    path = folder / "answers.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return read_answers(path, labels, sum_tolerance=0.02)


def line(id: Any, **changes: Any) -> dict[str, Any]:
    return {**GOOD, "id": id, **changes}


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    answers = read(
        tmp_path,
        line("a", group="g", text="one"),
        line(7, label=0, group=3, text="two", answer='{"no": 0.5, "yes": 0.5}', model="ignored"),
        line("c", label=None, text="three", answer=None),
        line("d", label="1", text="four", answer="I'm sorry, I cannot help with that."),
    )
    assert answers.ids == ("a", "7", "c", "d")
    assert answers.labels_N.tolist() == [1, 0, UNLABELLED, 1]
    assert answers.groups_N.tolist() == ["group g", "group 3", "row c", "row d"]
    assert answers.texts == ("one", "two", "three", "four")
    np.testing.assert_allclose(answers.said_NK[:2], [[0.2, 0.8], [0.5, 0.5]])
    assert np.isnan(answers.said_NK[2:]).all()
    assert answers.parse_rate == 0.5
    assert answers.count_failures() == {"no_answer": 1, "refusal": 1}


def test_groups_and_texts_are_optional(tmp_path: Path) -> None:
    answers = read(tmp_path, line("a"), line("b"))
    assert answers.texts is None
    assert len(set(answers.groups_N.tolist())) == 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", r"answers\.jsonl:2: not JSON"),
        ("[1]", r"answers\.jsonl:2: expected a JSON object"),
        ({"label": "yes", "answer": ""}, r"answers\.jsonl:2: 'id' is missing"),
        (line(None), r"answers\.jsonl:2: 'id' is empty"),
        (line(True), r"answers\.jsonl:2: 'id' is bool"),
        ({"id": "b", "answer": ""}, r"answers\.jsonl:2: no 'label'"),
        (line("b", label="maybe"), r"answers\.jsonl:2: unknown label 'maybe'"),
        (line("b", label=2), r"answers\.jsonl:2: unknown label '2'"),
        (line("b", label=0.5), r"answers\.jsonl:2: unknown label '0.5'"),
        (line("b", label=[1]), r"answers\.jsonl:2: unknown label"),
        ({"id": "b", "label": 0}, r"answers\.jsonl:2: no 'answer'"),
        (line("b", answer={"no": 1}), r"answers\.jsonl:2: 'answer' is dict"),
        (line("b", answer=0.7), r"answers\.jsonl:2: 'answer' is float"),
        (line("b", group=[1]), r"answers\.jsonl:2: the group is list"),
        (line("b", text=5), r"answers\.jsonl:2: the text is int"),
        (line("b", text="t"), r"answers\.jsonl:2: a text, unlike .*answers\.jsonl:1"),
        (line("a"), r"answers\.jsonl:2: has the id 'a', as .*answers\.jsonl:1 has"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, GOOD, bad)


def test_numbers_and_words_are_one_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the id '7'"):
        read(tmp_path, line(7), line("7"))


def test_a_missing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "none.jsonl", LABELS, sum_tolerance=0.02)
    with pytest.raises(DataError, match="no answers in it"):
        read(tmp_path, "", "")


def test_names_win_over_numbers(tmp_path: Path) -> None:
    answers = read(tmp_path, line("a", label="0"), line("b", label=1), labels=("1", "0"))
    assert answers.labels_N.tolist() == [1, 0]


def test_no_words_of_an_answer_or_a_text_reach_a_message(tmp_path: Path) -> None:
    secret = "The patient is called Miller."
    for bad in (line("b", label="x", answer=secret, text=secret), line("b", answer=[secret]), line("b", text=[secret])):
        with pytest.raises(DataError) as error:
            read(tmp_path, line("a", text=secret), bad)
        assert "Miller" not in str(error.value)


@pytest.mark.parametrize("texts", [False, True])
def test_halves_share_nothing_and_have_the_same_mix(make_answers: Callable[..., Answers], texts: bool) -> None:
    answers = make_answers(400, failing=0.3, texts=texts)
    fit, test = split_answers(answers, seed=1)
    check_apart(fit, test)
    assert sorted(fit.ids + test.ids) == sorted(answers.ids)
    assert abs(len(fit) - len(test)) <= 8
    assert abs((fit.labels_N == 1).mean() - (test.labels_N == 1).mean()) < 0.02
    assert abs(fit.parse_rate - test.parse_rate) < 0.02
    again, _ = split_answers(answers, seed=1)
    other, _ = split_answers(answers, seed=2)
    assert again.ids == fit.ids
    assert other.ids != fit.ids


def test_rows_of_one_text_are_not_parted(make_answers: Callable[..., Answers]) -> None:
    answers = replace(make_answers(40), texts=tuple(f"Text {i % 20}" for i in range(40)))
    answers = replace(answers, groups_N=name_groups(answers.ids, [None] * 40))
    fit, test = split_answers(answers, seed=0)
    assert fit.texts is not None
    assert test.texts is not None
    assert not set(fit.texts) & set(test.texts)


def test_one_group_cannot_be_halved(make_answers: Callable[..., Answers]) -> None:
    answers = make_answers(30)
    with pytest.raises(DataError, match="one group or text"):
        split_answers(replace(answers, groups_N=name_groups(answers.ids, ["g"] * 30)), seed=0)


def test_rows_to_fit_on_are_no_rows_to_test_on(make_answers: Callable[..., Answers]) -> None:
    a, b = make_answers(20, name="a", texts=True), make_answers(20, name="b", texts=True)
    check_apart(a, b)
    with pytest.raises(DataError, match=r"a\.jsonl and b\.jsonl share 1 ids"):
        check_apart(a, replace(b, ids=("a3", *b.ids[1:])))
    with pytest.raises(DataError, match="share 1 groups"):
        check_apart(a, replace(b, groups_N=np.array(["group a0", *b.groups_N[1:]])))
    check_apart(a, replace(b, groups_N=np.array(["group a0", *b.groups_N[1:]])), allow_shared_groups=True)
    assert a.texts is not None
    assert b.texts is not None
    with pytest.raises(DataError, match="share 1 texts"):
        check_apart(a, replace(b, texts=(a.texts[0].upper() + "  ", *b.texts[1:])))
    with pytest.raises(DataError, match="has the labels"):
        check_apart(a, replace(b, labels=("yes", "no")))


def test_the_fingerprint_knows_rows_not_their_order(make_answers: Callable[..., Answers]) -> None:
    answers = make_answers(30)
    prints = {answers.fingerprint(), answers.take(np.arange(30)[::-1]).fingerprint()}
    assert len(prints) == 1
    flipped = replace(answers, labels_N=1 - answers.labels_N)
    renamed = replace(answers, labels=("a", "b"))
    others = {rows.fingerprint() for rows in (answers.take(np.arange(29)), flipped, renamed)}
    assert not prints & others
    assert len(others) == 3


def test_taking_rows_takes_all_of_them(make_answers: Callable[..., Answers]) -> None:
    answers = make_answers(10, texts=True, tokens=True)
    mask = np.arange(10) % 3 == 0
    for part in (answers.take(mask), answers.take(np.flatnonzero(mask))):
        assert part.ids == ("a0", "a3", "a6", "a9")
        assert part.texts is not None
        assert len(part.texts) == len(part.said) == 4
        np.testing.assert_array_equal(part.labels_N, answers.labels_N[mask])
        np.testing.assert_array_equal(
            part.token_probabilities["label_tokens"], answers.token_probabilities["label_tokens"][mask]
        )
    assert len(answers.take(np.zeros(10, dtype=bool))) == 0


def test_paraphrases_are_averaged_over_those_understood() -> None:
    no = Said(None, None, "refusal", None)
    per_prompt = [
        [Said((0.2, 0.8), 1.0, None, "json"), no, no],
        [Said((0.6, 0.4), 1.0, None, "json"), Said((0.0, 1.0), 1.0, None, "json"), Said(None, None, "bad_sum", None)],
    ]
    said, floor = average_said(per_prompt, num_labels=2, floor=0.01)
    assert floor == 0.01
    logs = np.log([[0.2, 0.8], [0.6, 0.4]]).mean(axis=0)
    assert said[0].probabilities == pytest.approx(softmax(logs[None])[0])
    assert said[1].probabilities == pytest.approx([0.01 / 1.01, 1 / 1.01])
    assert said[2] == no
    assert average_said(per_prompt, num_labels=2, floor=None)[1] == pytest.approx(0.02)
    assert average_said([[no], [no]], num_labels=2, floor=None) == ((no,), 0.0)
