"""The paper's benchmarks, read by the examples as they ship, from files of the same shape in the places they name."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, load_config
from clsgen_dist.data.store import stored_rows
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.errors import DataError
from clsgen_dist.prepare import prepare
from clsgen_dist.records import SPLITS, Row
from tests.support.benchmarks import CLINIFACT, TITLE_WORD, write_clinifact, write_lcd
from tests.support.tiny import ROOT, shared_backbone

EXAMPLES = ROOT / "examples"
OFFICIAL = ("clinifact_gemma3_270m.yaml", "clinifact_llama31_8b.yaml")
LCD = ("lcd30_gemma3_270m.yaml", "lcd30_llama31_8b.yaml")
NUM_ROWS = {"train": 200, "validation": 50, "test": 60}
NUM_NOTES = {"train": 300, "dev": 30, "test": 36}

#: TRUE is evidence for the claim; inconclusive results and no information are not.
NAMES = {0: 0, 1: 1, 2: 0}


@pytest.fixture(autouse=True)
def started_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of the examples are relative to the folder where a command is started."""
    (tmp_path / "ds_configs").symlink_to(ROOT / "ds_configs")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    return write_clinifact(tmp_path, NUM_ROWS)


@pytest.fixture
def notes(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    return write_lcd(tmp_path, NUM_NOTES)


def example(name: str, *words: str) -> RunConfig:
    """An example as it ships, with a tiny backbone."""
    return load_config(EXAMPLES / name, ["--model.name_or_path", shared_backbone(), *words])


def rows_of(config: RunConfig) -> dict[str, list[Row]]:
    prepare(config)
    return {split: list(stored_rows(RunFolder(config.folder).rows(split))) for split in SPLITS}


def expected(record: dict[str, Any]) -> tuple[str, str, int, str]:
    text = f"Claim: {record['claim']}\n\nAbstract: {record['article_abstract']}"
    return str(record["index"]), text, NAMES[record["label"]], record["nctId"]


def found(rows: list[Row]) -> list[tuple[str, str, int | None, str | None]]:
    return [(row.id, row.text, row.label, row.group) for row in rows]


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_split_is_read_as_it_is(name: str, files: dict[str, list[dict[str, Any]]]) -> None:
    splits = rows_of(example(name))
    for split in ("validation", "test"):
        assert found(splits[split]) == [expected(record) for record in files[split]]
    dealt = found(splits["train"]) + found(splits["calibration"])
    assert sorted(dealt) == sorted(expected(record) for record in files["train"])
    assert len(splits["calibration"]) == pytest.approx(0.15 * 200, abs=2)
    trials = {split: {row.group for row in rows} for split, rows in splits.items()}
    assert trials["train"] & trials["test"], "the files share trials"
    assert trials["train"] & trials["calibration"], "calibration rows are like test rows"
    assert {row.label for row in splits["calibration"]} == {0, 1}
    explained = [row for row in splits["train"] if row.explanation]
    assert len(explained) > 100, "the evidence teacher wrote the reasons"
    assert not [row for row in splits["test"] if row.explanation or row.references]


def test_shared_trials_are_refused_where_nobody_asked_for_them(files: dict[str, list[dict[str, Any]]]) -> None:
    with pytest.raises(DataError, match="have the same group"):
        prepare(example(OFFICIAL[0], "--data.allow_shared_groups", "false"))


def test_prompts_hold_claim_and_abstract_and_no_title(files: dict[str, list[dict[str, Any]]]) -> None:
    config = example(OFFICIAL[0])
    folder = prepare(config)
    tokenizer = AutoTokenizer.from_pretrained(shared_backbone())
    tokens = TokenizedSplit(folder.tokens("test"))
    for record, row in zip(files["test"], tokens, strict=True):
        prompt = tokenizer.decode(row.prompt)
        assert config.task.question in prompt
        assert f"Claim: {record['claim']}\n\nAbstract: {record['article_abstract']}\n\nAnswer:" in prompt
        assert TITLE_WORD not in prompt


def check_by_trial(config: RunConfig, files: dict[str, list[dict[str, Any]]]) -> None:
    splits = rows_of(config)
    every = [expected(record) for records in files.values() for record in records]
    assert sorted(row for rows in splits.values() for row in found(rows)) == sorted(every)
    owners: dict[str | None, str] = {}
    for split, rows in splits.items():
        for row in rows:
            assert owners.setdefault(row.group, split) == split, f"{row.group} stands in two splits"
    shares = [len(splits[split]) / len(every) for split in SPLITS]
    assert shares == pytest.approx([0.54, 0.16, 0.10, 0.20], abs=0.05)


def test_by_trial_no_trial_stands_in_two_splits(files: dict[str, list[dict[str, Any]]]) -> None:
    check_by_trial(example("clinifact_by_trial.yaml"), files)


def test_by_trial_with_the_other_backbone_as_the_comment_says(files: dict[str, list[dict[str, Any]]]) -> None:
    comments = (EXAMPLES / "clinifact_by_trial.yaml").read_text(encoding="utf-8")
    command = re.search(r"python launchers/ray_train.py --config examples/clinifact_llama(?:.*\\\n)+.*", comments)
    assert command is not None
    words = shlex.split(command[0].replace("\\\n#", " "))
    assert words[:4] == ["python", "launchers/ray_train.py", "--config", "examples/clinifact_llama31_8b.yaml"]
    config = example("clinifact_llama31_8b.yaml", *words[4:])
    assert config.run.name == "clinifact-by-trial-llama31-8b"
    check_by_trial(config, files)


def test_a_file_of_the_pattern_that_changes_is_noticed(files: dict[str, list[dict[str, Any]]]) -> None:
    config = example("clinifact_by_trial.yaml")
    prepare(config)
    prepare(config)
    with (CLINIFACT / "validation_set.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"\*_set\.csv: changed since run"):
        prepare(config)


@pytest.mark.parametrize("name", LCD)
def test_notes_are_read_as_the_benchmark_writes_them(name: str, notes: dict[str, list[dict[str, Any]]]) -> None:
    splits = rows_of(example(name))

    def known(records: list[dict[str, Any]]) -> list[tuple[str, str, int, None]]:
        return [(r["id"], r["text"], r["out_hospital_mortality_30"], None) for r in records]

    assert found(splits["validation"]) == known(notes["dev"])
    assert found(splits["test"]) == known(notes["test"])
    assert sorted(found(splits["train"]) + found(splits["calibration"])) == sorted(known(notes["train"]))
    assert sum(row.label == 1 for row in splits["calibration"]) == 5
    assert sum(row.explanation is not None for row in splits["train"]) > 200


def test_patients_stay_whole_once_they_are_joined_as_the_page_says(notes: dict[str, list[dict[str, Any]]]) -> None:
    place = Path("data/lcd30")
    numbered = ((number, row["id"]) for rows in notes.values() for number, row in enumerate(rows))
    patients = {id: {"subject_id": number // 3, "note_type": "DS"} for number, id in numbered}
    (place / "metadata.json").write_text(json.dumps(patients, indent=2), encoding="utf-8")
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    subprocess.run([sys.executable, "-c", block], check=True)
    (words,) = re.findall(r"`(--data\.train data/lcd30/train\.jsonl[^`]*)`", page)
    with pytest.raises(DataError, match="the same group"):
        rows_of(example(LCD[0], *words.split()))
    splits = rows_of(example(LCD[0], *words.split(), "--data.validation", "null", "--data.test", "null"))
    owners: dict[str | None, str] = {}
    for split, rows in splits.items():
        for row in rows:
            assert owners.setdefault(row.group, split) == split
    assert owners.keys() == {str(number) for number in range(100)}
