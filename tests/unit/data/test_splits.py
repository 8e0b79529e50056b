"""Splits share nothing: carved from one source they keep groups and texts whole, and given ones are refused if not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.data.splits import Survey, assign, check_splits, normalised, survey
from clsgen_dist.errors import DataError
from clsgen_dist.records import SPLITS, UNLABELLED, Row

LABELS = ["no", "yes"]
FRACTIONS = {"validation": 0.1, "calibration": 0.15, "test": 0.2}


@pytest.fixture(autouse=True, scope="module")
def surveys_go_away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("surveys"))
    yield
    tempfile.tempdir = before


def look(rows: Sequence[Row], source: str = "rows.jsonl") -> Survey:
    places = ((f"{source}:{number}", row) for number, row in enumerate(rows, 1))
    return survey(source, places, Path(tempfile.mkdtemp()) / "survey")


def some(name: str, **changes: Any) -> list[Row]:
    """Four rows of both labels, all their own; `changes` of the second one."""
    rows = [Row(id=f"{name}{n}", text=f"{name} {n}", label=n % 2, explanation="so") for n in range(4)]
    second = {key: getattr(rows[1], key) for key in Row.__dataclass_fields__} | changes
    return [rows[0], Row(**second), *rows[2:]]


def refused(splits: dict[str, list[Row]], labels: list[str] = LABELS, *, needs_explanations: bool = False) -> str:
    surveys = {split: look(rows, f"{split}.jsonl") for split, rows in splits.items()}
    with pytest.raises(DataError) as error:
        check_splits(surveys, labels, needs_explanations=needs_explanations)
    return str(error.value)


rows_strategy = st.lists(
    st.tuples(
        st.integers(0, 40),  # text
        st.one_of(st.none(), st.integers(0, 12)),  # group
        st.sampled_from([None, 0, 1, 2]),
    ),
    min_size=1,
    max_size=120,
).map(
    lambda drawn: [
        Row(id=str(n), text=f"Text {text}", group=None if group is None else str(group), label=label)
        for n, (text, group, label) in enumerate(drawn)
    ]
)


@given(rows_strategy, st.integers(0, 5))
@settings(max_examples=60)
def test_no_group_and_no_text_is_dealt_to_two_splits(rows: list[Row], seed: int) -> None:
    chosen = assign(look(rows), FRACTIONS, seed=seed)
    assert chosen.shape == (len(rows),)
    assert set(chosen.tolist()) <= set(range(len(SPLITS)))
    for key in ("text", "group"):
        owners: dict[str, int] = {}
        for row, split in zip(rows, chosen.tolist(), strict=True):
            if getattr(row, key) is not None:
                assert owners.setdefault(getattr(row, key), split) == split
    assert (assign(look(rows), FRACTIONS, seed=seed) == chosen).all()


@given(st.lists(st.integers(1, 6), min_size=8, max_size=60), st.integers(0, 5), st.data())
@settings(max_examples=60)
def test_shares_of_labels_hold_as_far_as_groups_allow(sizes: list[int], seed: int, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.sampled_from([0, 1]), min_size=len(sizes), max_size=len(sizes)))
    rows = [
        Row(id=f"{g}-{n}", text=f"{g}-{n}", group=str(g), label=labels[g])
        for g in range(len(sizes))
        for n in range(sizes[g])
    ]
    looked = look(rows)
    chosen = assign(looked, FRACTIONS, seed=seed)
    for label in (0, 1):
        total = int((looked.column("labels") == label).sum())
        for split, share in (FRACTIONS | {"train": 0.55}).items():
            found = int(((looked.column("labels") == label) & (chosen == SPLITS.index(split))).sum())
            assert share * total - 3 * max(sizes) <= found <= share * total + max(sizes)


def test_shares_of_single_rows_are_exact() -> None:
    rows = [Row(id=str(n), text=str(n), label=int(n % 5 == 0)) for n in range(2000)]
    chosen = assign(look(rows), FRACTIONS, seed=3)
    for label in (0, 1):
        dealt = np.bincount(chosen[[row.label == label for row in rows]])
        total = dealt.sum()
        assert dealt == pytest.approx([0.55 * total, 0.1 * total, 0.15 * total, 0.2 * total], abs=2)


def test_large_groups_are_dealt_before_the_rows_that_even_them_out() -> None:
    rows = [Row(id=str(n), text=str(n), label=n % 2, group="large" if n >= 70 else None) for n in range(100)]
    assert np.bincount(assign(look(rows), FRACTIONS, seed=0)) == pytest.approx([55, 10, 15, 20], abs=2)


def test_the_seed_deals_the_rows() -> None:
    looked = look([Row(id=str(n), text=str(n), label=n % 2) for n in range(200)])
    assert (assign(looked, FRACTIONS, seed=1) != assign(looked, FRACTIONS, seed=2)).any()


def test_only_missing_splits_are_carved() -> None:
    looked = look([Row(id=str(n), text=str(n), label=n % 2) for n in range(100)])
    chosen = assign(looked, {"test": 0.2}, seed=0)
    assert np.bincount(chosen, minlength=4).tolist() == [80, 0, 0, 20]


def test_rows_are_linked_through_texts_and_groups_in_chains() -> None:
    chain = [Row(id=str(n), text=f"t{n // 2}", group=f"g{(n + 1) // 2}", label=n % 2) for n in range(40)]
    assert len(set(assign(look(chain), FRACTIONS, seed=0).tolist())) == 1


def test_a_survey_holds_a_few_numbers_a_row_and_no_text() -> None:
    row = Row(id="a", text="Ms Quill", label=None, explanation="so", group=None)
    looked = look([row, Row(id="b", text="x", label=1, group="g")])
    assert looked.column("labels").tolist() == [UNLABELLED, 1]
    assert looked.column("explained").tolist() == [True, False]
    assert (looked.column("groups") == 0).tolist() == [True, False]
    assert looked.place(1) == "rows.jsonl:2"
    kept = looked.take(np.array([1]))
    assert (len(kept), kept.place(0), kept.column("labels").tolist()) == (1, "rows.jsonl:2", [1])
    assert all(b"Quill" not in file.read_bytes() for file in looked.folder.iterdir())


def test_rows_beyond_one_block_are_surveyed_in_their_order() -> None:
    looked = look([Row(id=str(n), text=str(n), label=n % 3) for n in range(9000)])
    assert looked.column("lines").tolist() == list(range(1, 9001))
    assert looked.column("labels").tolist() == [n % 3 for n in range(9000)]


@pytest.mark.parametrize(("one", "other"), [("A  b\n", "a B"), ("Straße", "STRASSE"), (" x", "x ")])
def test_texts_are_compared_without_case_and_space(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    found = refused({"train": some("a", text=one), "test": some("b", text=other)})
    assert (
        found
        == "train.jsonl:2 (train) and test.jsonl:2 (test) have the same text (case and spacing aside); 1 such pair(s)"
    )


def test_splits_that_share_nothing_are_fine() -> None:
    surveys = {split: look(some(split), split) for split in SPLITS}
    check_splits(surveys, LABELS, needs_explanations=True)


def test_a_text_may_stand_twice_in_one_split() -> None:
    surveys = {"train": look(some("a", text="a 0")), "test": look(some("b"))}
    check_splits(surveys, LABELS, needs_explanations=True)


@pytest.mark.parametrize("split", ["train", "test"])
def test_duplicate_ids(split: str) -> None:
    splits = {"train": some("a"), "test": some("b")}
    splits[split] = some(split[0], id=f"{split[0]}3") if split == "train" else some("b", id="a0")
    assert "have the same id; 1 such pair(s)" in refused(splits)


def test_a_group_in_two_splits() -> None:
    splits = {"train": some("a", group="p"), "validation": some("b"), "test": some("c", group="p")}
    assert refused(splits) == "train.jsonl:2 (train) and test.jsonl:2 (test) have the same group; 1 such pair(s)"


def test_groups_may_be_shared_where_that_is_asked_for_and_texts_never() -> None:
    splits = {"train": some("a", group="p"), "test": some("c", group="p")}
    surveys = {split: look(rows, f"{split}.jsonl") for split, rows in splits.items()}
    check_splits(surveys, LABELS, needs_explanations=False, allow_shared_groups=True)
    surveys["test"] = look(some("c", text="a 0"), "test.jsonl")
    with pytest.raises(DataError, match="the same text"):
        check_splits(surveys, LABELS, needs_explanations=False, allow_shared_groups=True)


def test_rows_are_dealt_one_by_one_where_groups_may_be_shared() -> None:
    rows = [Row(id=str(n), text=f"t{n // 2}", label=n // 2 % 2, group="all") for n in range(80)]
    assert len(set(assign(look(rows), FRACTIONS, seed=0).tolist())) == 1
    chosen = assign(look(rows), FRACTIONS, seed=0, by_group=False)
    assert np.bincount(chosen) == pytest.approx([44, 8, 12, 16], abs=4)
    assert (chosen[::2] == chosen[1::2]).all(), "rows of one text stay together"


def test_places_name_the_file_of_a_source_of_several() -> None:
    places = ["a.csv:2", "a.csv:3", "b.csv:2"]
    rows = ((place, Row(id=place, text=place, label=0)) for place in places)
    looked = survey("*.csv", rows, Path(tempfile.mkdtemp()) / "survey")
    assert [looked.place(n) for n in range(3)] == places
    assert looked.take(np.array([2])).place(0) == "b.csv:2"


def test_every_pair_that_clashes_is_counted() -> None:
    train = [Row(id=f"a{n}", text=f"a {n}", label=n % 2, group=f"g{n}") for n in range(300)]
    test = [Row(id=f"b{n}", text=f"b {n}", label=n % 2, group=f"g{n}") for n in range(100, 500)]
    assert refused({"train": train, "test": test}).endswith("have the same group; 200 such pair(s)")


def test_no_group_is_no_common_group() -> None:
    check_splits({"train": look(some("a")), "test": look(some("b"))}, LABELS, needs_explanations=False)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(("label", "found"), [(1, "only 'yes'"), (None, "no label at all")])
def test_one_class_only(split: str, label: int | None, found: str) -> None:
    splits = {"train": some("a"), "validation": some("b")}
    splits[split] = [Row(id=f"x{n}", text=f"x{n}", label=label) for n in range(3)]
    assert refused(splits) == f"{split}.jsonl ({split}): found {found}, expected rows of at least two labels"


def test_a_label_without_a_training_row() -> None:
    found = refused({"train": some("a"), "test": some("b")}, [*LABELS, "maybe"])
    assert found == "train.jsonl (train): no row with label 'maybe'; add rows, or take it from task.labels"


def test_explanations_in_no_row() -> None:
    bare = [Row(id=row.id, text=row.text, label=row.label) for row in some("a")]
    found = refused({"train": bare, "test": some("b")}, needs_explanations=True)
    assert found.startswith("train.jsonl (train): no row has an explanation while objective.w_gen > 0")
    check_splits({"train": look(bare), "test": look(some("b"))}, LABELS, needs_explanations=False)
