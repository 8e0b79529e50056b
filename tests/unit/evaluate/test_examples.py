"""Which rows a report shows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from clsgen_dist.evaluate.examples import CONTRADICTORY, RIGHT, UNSURE, WRONG, choose_examples, to_example
from clsgen_dist.records import Prediction, Row
from tests.support.evaluated import Split

NO_YES = ["no", "yes"]


@pytest.fixture(scope="module")
def split(make_split: Callable[..., Split]) -> Split:
    return make_split(300, NO_YES, threshold=0.4)


def with_explanations(predictions: list[Prediction], own: str | None, free: str | None) -> Prediction:
    return replace(predictions[0], explanation=own, free_explanation=free, free_verdict=predictions[0].predicted)


def test_examples_are_right_wrong_unsure_and_contradictory_three_each(split: Split) -> None:
    kinds = dict(choose_examples(*split, 0.4))
    assert list(kinds) == [RIGHT, WRONG, UNSURE, CONTRADICTORY]
    assert [len(kind) for kind in kinds.values()] == [3, 3, 3, 3]
    assert all(p.label == p.predicted for p, _ in kinds[RIGHT])
    assert all(p.label is not None and p.label != p.predicted for p, _ in kinds[WRONG])
    assert all(abs(p.probability["yes"] - 0.4) < 0.05 for p, _ in kinds[UNSURE])
    assert all(p.free_verdict not in (None, p.predicted) for p, _ in kinds[CONTRADICTORY])
    assert {p.predicted for p, _ in kinds[RIGHT]} == {"no", "yes"}
    everyone = [pair for kind in kinds.values() for pair in kind]
    assert len({p.id for p, _ in everyone}) == 12
    assert all(p.id == row.id and p.explanation is not None for p, row in everyone)


def test_a_kind_that_is_missing_leaves_its_places_to_the_others(split: Split) -> None:
    predictions, rows = split
    agreeing = [replace(p, free_verdict=p.predicted) for p in predictions if p.label == p.predicted]
    kinds = dict(choose_examples(agreeing, rows, 0.4))
    assert {kind: len(chosen) for kind, chosen in kinds.items()} == {RIGHT: 6, UNSURE: 6}


def test_few_rows_are_each_shown_once(split: Split) -> None:
    predictions, rows = split
    kinds = choose_examples(predictions[:5], rows, 0.4)
    assert sorted(p.id for _, chosen in kinds for p, _ in chosen) == [f"r{n}" for n in range(5)]


def test_an_explanation_that_is_the_same_when_left_alone_is_shown_once(split: Split) -> None:
    predictions, rows = split
    assert to_example(with_explanations(predictions, "A fever.", "A fever. "), rows[0]).free_explanation is None
    other = to_example(with_explanations(predictions, "A fever.", "A cough."), rows[0])
    assert other.free_explanation is not None
    assert not other.contradicts


def test_a_contradiction_is_shown_even_in_the_same_words(split: Split) -> None:
    predictions, rows = split
    said = with_explanations(predictions, "A fever.", "A fever.")
    example = to_example(replace(said, free_verdict="no" if said.predicted == "yes" else "yes"), rows[0])
    assert example.contradicts
    assert example.free_explanation is not None


def test_a_row_that_nobody_explained_has_no_marks(split: Split) -> None:
    predictions, _ = split
    example = to_example(with_explanations(predictions, None, None), Row(id="r0", text="a fever"))
    assert example.explanation is None
    assert [piece.source for piece in example.text] == [None]
