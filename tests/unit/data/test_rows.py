"""Rows of every kind of file, and one clear message for every way in which a file can be broken."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from clsgen_dist.config.sections import Data
from clsgen_dist.data import files as files_module
from clsgen_dist.data.files import MAX_TEXT_CHARACTERS
from clsgen_dist.data.rows import check_ids, label_numbers, read_rows
from clsgen_dist.errors import DataError
from clsgen_dist.records import Row
from tests.support.tiny import write_jsonl

LABELS = ["no", "yes"]

#: Stands for a patient's note: no message may hold it.
SECRET = "Ms Quill of Fenwick Street has a tremor"

RECORDS = [
    {"id": "a", "text": "one", "label": 0, "explanation": " because ", "group": "g"},
    {"id": 7, "text": "two", "label": "yes", "explanation": None, "group": None},
]
EXPECTED = [
    Row(id="a", text="one", label=0, explanation="because", group="g"),
    Row(id="7", text="two", label=1),
]


def read(source: Path | str, labels: list[str] | None = None, **columns: Any) -> list[Row]:
    return [row for _, row in read_rows(str(source), Data(**columns), labels or LABELS)]


def refused(source: Path | str, **columns: Any) -> str:
    with pytest.raises(DataError) as error:
        read(source, **columns)
    message = str(error.value)
    assert SECRET not in message
    assert "\n" not in message
    assert str(source) in message
    return message


def write_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


def write_parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def lines(path: Path, *texts: str | bytes) -> Path:
    path.write_bytes(b"".join((t if isinstance(t, bytes) else t.encode()) + b"\n" for t in texts))
    return path


GOOD = json.dumps({"text": "fine", "label": 0})
WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "rows.jsonl": write_jsonl,
    "rows.csv": write_csv,
    "rows.parquet": lambda path, records: write_parquet(
        path, [{k: str(v) if v is not None else None for k, v in r.items()} for r in records]
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert read(WRITERS[name](tmp_path / name, RECORDS)) == EXPECTED


def test_parquet_keeps_its_own_types(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [{"text": "one", "label": 1.0}, {"text": "two", "label": None}])
    assert [row.label for row in read(path)] == [1, None]


def test_rows_come_with_their_place_in_a_stream(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", GOOD, "", GOOD, "not JSON")
    stream = read_rows(str(path), Data(), LABELS)
    assert [next(stream)[0], next(stream)[0]] == [f"{path}:1", f"{path}:3"]
    with pytest.raises(DataError, match=f"{path}:4: not JSON"):
        next(stream)


def test_places_in_csv_count_lines_of_quoted_texts(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.csv", "text,label", '"one\ntwo",0', "three,9")
    assert f"{path}:4: unknown label '9'" in refused(path)
    assert read(lines(path, "text,label", '"one\ntwo",0'))[0].text == "one\ntwo"


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 0, "id": ""}])
    assert [row.id for row in read(path)] == ["rows-1", "rows-2"]


def test_a_mark_of_byte_order_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.csv", b"\xef\xbb\xbftext,label", "one,1")
    assert read(path) == [Row(id="rows-1", text="one", label=1)]
    assert read(lines(tmp_path / "rows.jsonl", b"\xef\xbb\xbf" + GOOD.encode()))[0].text == "fine"


def test_a_template_over_columns_makes_the_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"claim": "x {y}", "year": 2020, "abstract": "z", "label": 1}])
    template = "Claim: {claim} ({year})\n\nAbstract: {abstract}"
    assert read(path, text_template=template)[0].text == "Claim: x {y} (2020)\n\nAbstract: z"


def test_column_names_are_settings(tmp_path: Path) -> None:
    record = {"note": "one", "y": "no", "why": "so", "key": 3, "patient": 9, "p": "0.25", "text": "other"}
    path = write_jsonl(tmp_path / "rows.jsonl", [record])
    row = read(
        path,
        text_column="note",
        label_column="y",
        explanation_column="why",
        id_column="key",
        group_column="patient",
        true_probability_column="p",
    )[0]
    assert row == Row(id="3", text="one", label=0, explanation="so", group="9", true_probability=0.25)


def test_references_are_further_reasons_of_the_rows_that_have_them(tmp_path: Path) -> None:
    records = [
        {"text": "a", "label": 0, "explanation": "so", "why_2": " thus ", "why_3": ""},
        {"text": "b", "label": 0, "why_3": "hence"},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", records)
    assert [row.references for row in read(path, reference_columns=["why_2", "why_3"])] == [("thus",), ("hence",)]
    assert [row.references for row in read(path)] == [(), ()]
    write_jsonl(path, [{"text": SECRET, "label": 0, "why_2": 3}])
    assert ":1: the explanation is int, expected text" in refused(path, reference_columns=["why_2"])


def test_a_pattern_names_several_files(tmp_path: Path) -> None:
    write_csv(tmp_path / "b_set.csv", [{"text": "two", "label": 1}])
    write_csv(tmp_path / "a_set.csv", [{"text": "one", "label": 0}, {"text": "three", "label": 0}])
    write_csv(tmp_path / "other.csv", [{"text": "four", "label": 0}])
    pattern = str(tmp_path / "*_set.csv")
    found = list(read_rows(pattern, Data(), LABELS))
    assert [(place, row.id, row.text) for place, row in found] == [
        (f"{tmp_path}/a_set.csv:2", "a_set-1", "one"),
        (f"{tmp_path}/a_set.csv:3", "a_set-2", "three"),
        (f"{tmp_path}/b_set.csv:2", "b_set-1", "two"),
    ]
    assert refused(tmp_path / "*.tsv") == f"{tmp_path}/*.tsv: no file of such a name"
    (tmp_path / "c_set.csv").write_text("text,label\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"c_set.csv: no rows in it$"):
        read(pattern)


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows [1].csv", [{"text": "one", "label": 0}])
    write_csv(tmp_path / "rows 1.csv", [{"text": "two", "label": 0}])
    assert [row.text for row in read(tmp_path / "rows [1].csv")] == ["one"]


def test_subgroups_are_values_of_columns_as_text(tmp_path: Path) -> None:
    values = ["north", 3, 3.0, True, None, " ", float("nan"), ""]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": 0, "site": v, "sex": "f"} for v in values])
    found = read(path, subgroup_columns=["site", "sex"])
    assert [row.subgroups[0] for row in found] == [
        ("site", name) for name in ("north", "3", "3", "true", "(none)", "(none)", "(none)", "(none)")
    ]
    assert {row.subgroups[1] for row in found} == {("sex", "f")}
    assert read(path)[0].subgroups == ()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"note": SECRET}, ":1: no column 'site' (data.subgroup_columns); found text, label, note"),
        ({"site": [SECRET]}, ":1: column 'site' (data.subgroup_columns) holds a list, not a name"),
        ({"site": {"a": SECRET}}, ":1: column 'site' (data.subgroup_columns) holds a dict, not a name"),
        ({"site": SECRET * 10}, ":1: column 'site' (data.subgroup_columns) holds 390 characters, expected a name"),
    ],
)
def test_a_subgroup_that_is_none(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": 0, **record}])
    assert message in refused(path, subgroup_columns=["site"])


def test_no_column_of_explanations_and_groups(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", RECORDS)
    assert read(path, explanation_column=None, group_column=None)[0] == Row(id="a", text="one", label=0)


@pytest.mark.parametrize("value", [1, 1.0, "1", "yes"])
def test_a_label_is_a_number_or_a_name(tmp_path: Path, value: object) -> None:
    assert read(write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": value}]))[0].label == 1


def test_a_label_map_names_every_value(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": str(v), "label": v} for v in (1, 0, 2, "1", 2.0, None)])
    found = read(path, labels=["FALSE", "TRUE"], label_map={"1": "TRUE", "0": "FALSE", "2": "FALSE"})
    assert [row.label for row in found] == [1, 0, 0, 1, 0, None]


def test_a_label_map_replaces_names_and_numbers(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": SECRET, "label": "yes"}])
    assert "unknown label 'yes'; expected one of '+', '-'" in refused(path, label_map={"+": "yes", "-": "no"})


@pytest.mark.parametrize("value", [None, ""])
def test_a_row_may_lack_its_label(tmp_path: Path, value: object) -> None:
    assert read(write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": value}]))[0].label is None


def test_a_file_may_lack_labels_where_none_are_needed(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a"}])
    assert [row.label for _, row in read_rows(str(path), Data(), LABELS, need_labels=False)] == [None]
    assert f"{path}:1: no column 'label' (data.label_column); found text" in refused(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", [GOOD, b'{"text": "caf\xe9", "label": 0}'], ":2: not UTF-8 (byte 13 of the line)"),
        ("rows.csv", ["text,label", b"caf\xe9,0"], ":2: not UTF-8"),
        ("rows.jsonl", [GOOD, f'{{"text": "{SECRET}"'], ":2: not JSON ("),
        ("rows.jsonl", ["[" * 20_000], ":1: not JSON ("),
        ("rows.jsonl", ['{"label": ' + "9" * 5000 + "}"], ":1: not JSON ("),
        ("rows.jsonl", [GOOD, f'["{SECRET}"]'], ":2: expected a JSON object, found list"),
        ("rows.jsonl", [f'"{SECRET}"'], ":1: expected a JSON object, found str"),
        ("rows.jsonl", [GOOD, f'{{"text": "{SECRET} \\ud83d", "label": 0}}'], ":2: not text: an escape"),
        ("rows.jsonl", [GOOD, f'{{"note": "{SECRET}", "label": 0}}'], ":2: no column 'text' (data.text_column); found"),
        ("rows.jsonl", [GOOD, '{"text": " \\n ", "label": 0}'], ":2: a row without text"),
        (
            "rows.jsonl",
            ['{"text": null, "label": 0}'],
            ":1: a row without text: expected words in 'text', found nothing",
        ),
        ("rows.jsonl", ['{"text": 5, "label": 0}'], ":1: a row without text: expected words in 'text', found int"),
        ("rows.jsonl", [f'{{"text": ["{SECRET}"], "label": 0}}'], "found list"),
        ("rows.jsonl", [GOOD, f'{{"text": "{SECRET}", "label": 2}}'], ":2: unknown label '2'; expected one of"),
        ("rows.jsonl", [f'{{"text": "{SECRET}", "label": "Yes"}}'], ":1: unknown label 'Yes'"),
        ("rows.jsonl", [f'{{"text": "{SECRET}", "label": true}}'], ":1: unknown label 'true'"),
        ("rows.jsonl", [f'{{"text": "{SECRET}", "label": [1]}}'], ":1: unknown label '[1]'"),
        ("rows.jsonl", [f'{{"text": "{SECRET}"}}'], ":1: no column 'label'"),
        ("rows.jsonl", [GOOD[:-1] + ', "explanation": 3}'], ":1: the explanation is int, expected text"),
        ("rows.csv", ["text,label", f"{SECRET},0,more"], ":2: expected 2 columns, found another number"),
        ("rows.csv", ["text,label", "fine,0", SECRET], ":3: expected 2 columns, found another number"),
        ("rows.csv", ["text,label", f'"{SECRET}"x,0'], ":2: not CSV"),
        ("rows.csv", ["note,label", f"{SECRET},0"], ":2: no column 'text' (data.text_column); found note, label"),
        ("rows.csv", ["text,label", ",0"], ":2: a row without text"),
        ("rows.parquet", [SECRET * 20], "not Parquet"),
        ("rows.txt", [GOOD], "unknown kind of file; expected .jsonl, .json, .csv or .parquet"),
    ],
)
def test_a_broken_file_gets_one_message(tmp_path: Path, name: str, content: list[str | bytes], message: str) -> None:
    path = lines(tmp_path / name, *content)
    assert message in refused(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name) == f"{tmp_path / name}: no such file"


@pytest.mark.parametrize("name", ["./rows", "~/rows.xyz", "rows.jsnl"])
def test_a_path_is_no_name_of_a_data_set(name: str) -> None:
    assert refused(name) == f"{name}: no such file"


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.csv", ""), ("a.csv", "text,label\n")]
)
def test_an_empty_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert refused(tmp_path / name) == f"{tmp_path / name}: no rows in it"


def test_an_empty_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert refused(tmp_path / "a.parquet") == f"{tmp_path / 'a.parquet'}: no rows in it"
    (tmp_path / "b.parquet").touch()
    assert "not Parquet" in refused(tmp_path / "b.parquet")


def test_a_torn_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [{"text": SECRET, "label": 0}] * 500)
    path.write_bytes(path.read_bytes()[:-40])
    assert "not Parquet" in refused(path)


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder; expected a .jsonl, .json, .csv or .parquet file" in refused(tmp_path)


def test_a_text_of_millions_of_characters(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a " * (MAX_TEXT_CHARACTERS // 2 + 1), "label": 0}])
    assert f"{path}:1: the text has 5,000,002 characters, at most 5,000,000 are read" in refused(path)


@pytest.mark.parametrize("value", [SECRET, 1.5, -0.1, None, "nan"])
def test_a_true_probability_that_is_none(tmp_path: Path, value: object) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "label": 0, "p": value}])
    assert f"{path}:1: the true probability is" in refused(path, true_probability_column="p")


def test_a_template_column_that_is_absent_or_empty(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"claim": SECRET, "label": 1, "abstract": None}])
    assert ":1: column 'abstract' of data.text_template is empty" in refused(path, text_template="{claim} {abstract}")
    assert ":1: no column 'body' (data.text_template)" in refused(path, text_template="{claim} {body}")


@pytest.mark.parametrize("template", ["{claim", "claim}", "{}", "no column at all"])
def test_a_template_that_names_no_columns_is_refused_with_the_settings(template: str) -> None:
    with pytest.raises(ValidationError, match="text_template"):
        Data(text_template=template)


def test_ids_that_stand_twice() -> None:
    rows = [Row(id=name, text="x") for name in ("a", "b", "a")]
    check_ids(rows[:2], "new.jsonl")
    with pytest.raises(DataError, match=r"^new.jsonl: rows 1 and 3 have the same id 'a'$"):
        check_ids(rows, "new.jsonl")


@pytest.mark.parametrize("name", ["nobody/such-rows", "nobody/such.rows", "nobody/such-rows/config:test"])
def test_a_data_set_that_the_hub_does_not_give_is_one_clear_error(name: str) -> None:
    script = (
        "import sys\nfrom clsgen_dist.config.sections import Data\nfrom clsgen_dist.data.rows import read_rows\n"
        "from clsgen_dist.errors import DataError\n"
        f"try: list(read_rows({name!r}, Data(), ['no', 'yes']))\n"
        "except DataError as error: print(error)\n"
    )
    env = {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "HF_HOME": "/tmp/clsgen-no-hub"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(f"{name}: neither a file here nor a data set that the Hugging Face Hub gave ("), done
    assert len(done.stdout.splitlines()) == 1


def test_rows_of_a_data_set_are_read_as_the_hub_gives_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` reads a folder as it reads OWNER/NAME on the Hub; only the way there differs."""
    (tmp_path / "owner" / "name").mkdir(parents=True)
    write_parquet(tmp_path / "owner/name/train.parquet", [{"text": "one", "label": 0}, {"text": "two", "label": 1}])
    write_parquet(tmp_path / "owner/name/test.parquet", [{"text": "three", "label": 1}])
    monkeypatch.chdir(tmp_path)
    found = list(files_module._hub("owner/name:test"))
    assert [(place, dict(record)) for place, record in found] == [("owner/name:test:1", {"text": "three", "label": 1})]
    assert len(list(files_module._hub("owner/name"))) == 2


def test_names_that_are_numbers_are_names() -> None:
    assert label_numbers(["no", "yes"]) == {"0": 0, "1": 1, "no": 0, "yes": 1}
    assert label_numbers(["0", "1"]) == {"0": 0, "1": 1}
    assert label_numbers(["1", "2", "3"]) == {"1": 0, "2": 1, "3": 2}, "a file that counts from 0 is refused at its 0"
    assert label_numbers(["1", "0"]) == {"1": 0, "0": 1}
