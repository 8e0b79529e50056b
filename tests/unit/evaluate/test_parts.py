"""Calibration of parts of a split: by column, by confidence, by traits of the text."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clsgen_dist.errors import DataError
from clsgen_dist.evaluate import parts
from clsgen_dist.evaluate.columns import to_columns
from clsgen_dist.evaluate.parts import TRAITS, describe_parts
from clsgen_dist.records import Prediction, Row

Split = tuple[list[Prediction], list[Row]]

NO_YES = ["no", "yes"]


@pytest.fixture(scope="module")
def split(make_split: Callable[..., Split]) -> Split:
    return make_split(400, NO_YES, threshold=0.4)


def describe(split: Split, labels: list[str] = NO_YES) -> dict[str, list[dict[str, Any]]]:
    return describe_parts(to_columns(*split, labels), num_bins=10, num_bootstrap=100, seed=0)


def with_columns(split: Split, name: Callable[[int], tuple[tuple[str, str], ...]]) -> Split:
    predictions, rows = split
    return predictions, [replace(row, subgroups=name(n)) for n, row in enumerate(rows)]


def test_a_column_has_its_parts_of_the_labelled_rows(split: Split) -> None:
    found = describe(with_columns(split, lambda n: (("site", "ab"[n % 2]), ("sex", "f"))))
    assert list(found) == ["site", "sex", *TRAITS]
    labelled = [row for row in split[1] if row.label is not None]
    assert [(part["name"], part["num_rows"]) for part in found["sex"]] == [("f", len(labelled))]
    sizes = {part["name"]: part["num_rows"] for part in found["site"]}
    # Row 9, 19, 29 ... has no label, and these are odd.
    assert sizes == {"a": 200, "b": 160}
    probabilities = [p.probability["yes"] for n, p in enumerate(split[0]) if n % 2 == 0]
    part = next(part for part in found["site"] if part["name"] == "a")
    assert part["mean_probability"] == pytest.approx(np.mean(probabilities))


def test_regions_are_of_the_answer_and_not_of_the_last_label(split: Split) -> None:
    regions = describe(split)["region"]
    assert [part["name"].split()[0] for part in regions] == ["high", "middle", "low"]
    labelled = [p for p in split[0] if p.label is not None]
    sure = [p for p in labelled if max(p.probability.values()) >= 0.9]
    right = [max(p.probability, key=p.probability.__getitem__) == p.label for p in sure]
    assert regions[0]["num_rows"] == len(sure)
    assert regions[0]["share_positive"] == pytest.approx(np.mean(right))
    assert regions[0]["mean_probability"] >= 0.9


def test_traits_are_those_of_the_texts(split: Split) -> None:
    predictions, rows = split
    words = "He does not cough. It may be a cold.", "A cold."
    found = describe((predictions, [replace(row, text=words[n % 2]) for n, row in enumerate(rows)]))
    for trait in ("negation", "hedging"):
        assert {part["name"]: part["num_rows"] for part in found[trait]} == {
            f"with {trait}": 200,
            f"without {trait}": 160,
        }
    assert [part["name"] for part in found["length"]] == ["short (words 2)", "middle (words 9)"]


def test_a_column_that_is_called_like_a_trait_keeps_both(split: Split) -> None:
    found = describe(with_columns(split, lambda n: (("length", "x"),)))
    assert [part["name"] for part in found["length (column)"]] == ["x"]
    assert found["length"][0]["name"] != "x"


def test_more_labels_look_at_the_answer(make_split: Callable[..., Split]) -> None:
    labels = ["supported", "refuted", "unclear"]
    split = make_split(300, labels, threshold=None)
    part = describe(with_columns(split, lambda n: (("site", "x"),)), labels)["site"][0]
    labelled = [p for p in split[0] if p.label is not None]
    assert part["share_positive"] == pytest.approx(np.mean([p.predicted == p.label for p in labelled]))


def test_rows_with_other_columns_are_refused(split: Split) -> None:
    mixed = with_columns(split, lambda n: (("site", "x"),) if n != 7 else ())
    with pytest.raises(DataError, match="row r7 has other columns of subgroups than row r0"):
        describe(mixed)


def test_of_very_much_text_some_rows_are_read(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = describe(split)
    monkeypatch.setattr(parts, "MAX_TRAIT_CHARACTERS", sum(len(r.text) for r in split[1] if r.label is not None) // 2)
    half = describe(split)
    assert sum(part["num_rows"] for part in half["length"]) in (179, 180)
    assert half["region"] == whole["region"]
    assert describe(split) == half
    monkeypatch.setattr(parts, "MAX_TRAIT_CHARACTERS", 10)
    assert list(describe(split)) == ["region"]
