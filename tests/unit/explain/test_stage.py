"""From labelled rows to an explained set in a run folder, with the teachers that need no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.errors import CheckpointError, ClsGenError, ConfigError, DataError
from clsgen_dist.explain.stage import explain_run
from clsgen_dist.planning import make_plan
from clsgen_dist.prepare import prepare
from clsgen_dist.progress import Event, silent
from clsgen_dist.records import EXPLAINED_SPLITS, SPLITS, Row
from clsgen_dist.summary import explained_summary
from tests.support.tiny import tiny_config, tiny_rows, write_jsonl


def evidence(tmp_path: Path, **settings: Any) -> RunConfig:
    return tiny_config(tmp_path, **{"explain.teacher": "evidence", **settings})


def manifest_of(folder: RunFolder) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(folder.manifest.read_text(encoding="utf-8"))
    return content


def contents(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def without_reason(row: Row) -> tuple[Any, ...]:
    return (row.id, row.text, row.label, row.group, row.true_probability)


def test_every_labelled_row_comes_out_as_it_went_in(tmp_path: Path) -> None:
    folder = explain_run(evidence(tmp_path), silent)
    manifest = manifest_of(folder)
    for split in EXPLAINED_SPLITS:
        rows_in, rows_out = list(stored_rows(folder.labelled(split))), list(stored_rows(folder.rows(split)))
        assert [without_reason(row) for row in rows_out] == [without_reason(row) for row in rows_in]
        facts = manifest["splits"][split]
        assert facts["num_rows"] == len(rows_out)
        assert facts["num_explained"] == sum(row.explanation is not None for row in rows_out)
        for counts in manifest["classes"][split]:
            number = ["no", "yes"].index(counts["label"])
            assert counts["num_rows_in"] == counts["num_rows_out"] == sum(row.label == number for row in rows_in)
    assert {path.name for path in folder.explained.iterdir()} == {
        *("train.parquet", "validation.parquet", "manifest.json", "explain_report.html"),
    }
    words = [row.explanation for row in stored_rows(folder.rows("train")) if row.explanation]
    assert any("fever" in reason for reason in words), "the phrase that decides is named"
    assert "Written" not in " ".join(words)


def test_calibration_and_test_rows_get_no_reasons(tmp_path: Path) -> None:
    folder = explain_run(evidence(tmp_path), silent)
    assert {path.name for path in folder.path.rglob("*.parquet")} == {f"{split}.parquet" for split in SPLITS}
    assert {path.stem for path in folder.explained.glob("*.parquet")} == set(EXPLAINED_SPLITS)


def test_the_same_rows_give_the_same_set(tmp_path: Path) -> None:
    sets = []
    for name in ("one", "other"):
        write_jsonl(tmp_path / name / "rows.jsonl", tiny_rows(80))
        config = evidence(tmp_path, **{"run.output_dir": str(tmp_path / name)})
        sets.append(contents(explain_run(config, silent).explained))
    assert sets[0] == sets[1]


def test_a_finished_set_is_left_as_it_is(tmp_path: Path) -> None:
    folder = explain_run(evidence(tmp_path), silent)
    before = {path: path.stat().st_mtime_ns for path in folder.explained.iterdir()}
    heard: list[Event] = []
    explain_run(evidence(tmp_path), heard.append)
    assert {path: path.stat().st_mtime_ns for path in folder.explained.iterdir()} == before
    assert heard == []


@pytest.mark.parametrize("teacher", ["column", "evidence"])
def test_no_memory_is_kept_of_a_teacher_that_costs_nothing(tmp_path: Path, teacher: str) -> None:
    folder = explain_run(tiny_config(tmp_path, **{"explain.teacher": teacher}), silent)
    assert {path.name for path in folder.path.iterdir()} == {"rows", "explained"}
    assert not folder.teacher_memory.exists()


def test_other_checks_make_another_set(tmp_path: Path) -> None:
    explain_run(evidence(tmp_path), silent)
    folder = explain_run(evidence(tmp_path, **{"explain.checks.max_tokens": 5}), silent)
    assert manifest_of(folder)["splits"]["train"]["num_explained"] == 0
    causes = {cause for by_class in manifest_of(folder)["causes"] for cause in by_class["rows"]}
    assert causes == {"too_long"}
    assert all(row.explanation is None for row in stored_rows(folder.rows("train")))


def test_training_takes_the_explained_set(tmp_path: Path) -> None:
    config = evidence(tmp_path)
    explained = explain_run(config, silent)
    before = contents(explained.explained)
    assert make_plan(config).splits["train"].num_rows == 44
    folder = prepare(config)
    assert folder.path == explained.path
    assert contents(folder.explained) == before
    assert folder.config.is_file()
    assert not [path for path in folder.path.rglob("*") if path.is_symlink()]
    assert prepare(config).path == folder.path
    with pytest.raises(ConfigError, match="prepared with another explained set; choose another"):
        explain_run(evidence(tmp_path, **{"explain.checks.max_tokens": 50}), silent)


def test_training_explains_by_itself_where_it_costs_nothing(tmp_path: Path) -> None:
    heard: list[Event] = []
    folder = prepare(evidence(tmp_path), heard.append)
    assert manifest_of(folder)["teacher"] == "evidence"
    assert heard[-1].stage == "explain"
    assert heard[-1].done == heard[-1].total == 56


def test_training_on_another_teacher_asks_for_the_stage(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"explain.teacher": "local", "explain.model": "/absent"})
    with pytest.raises(ConfigError, match=r"has no explained set of these settings.*python launchers/explain\.py"):
        prepare(config)
    assert not (tmp_path / "runs").exists()


def test_an_altered_set_is_not_trained_on(tmp_path: Path) -> None:
    config = evidence(tmp_path)
    folder = explain_run(config, silent)
    folder.rows("train").write_bytes(folder.rows("validation").read_bytes())
    with pytest.raises(CheckpointError, match="altered since the run began"):
        prepare(config)
    assert not folder.config.exists()


def test_a_set_without_any_reason_is_not_trained_on(tmp_path: Path) -> None:
    config = evidence(tmp_path, **{"explain.checks.max_tokens": 4})
    with pytest.raises(DataError, match="has a reason for no training row while"):
        prepare(config)
    assert not (tmp_path / "runs").exists()


def test_written_reasons_are_looked_at_and_kept(tmp_path: Path) -> None:
    rows = tiny_rows(80)
    for row in rows[:20]:
        row["explanation"] = "As an AI I cannot help with that."
    write_jsonl(tmp_path / "rows.jsonl", rows)
    kept = manifest_of(prepare(tiny_config(tmp_path)))
    assert sum(by["attempts"].get("refusal", 0) for by in kept["causes"]) > 0
    assert all("refusal" not in by["rows"] for by in kept["causes"])
    dropped = prepare(tiny_config(tmp_path, **{"run.name": "strict", "explain.checks.drop_written": True}))
    assert all("cannot help" not in (row.explanation or "") for row in stored_rows(dropped.rows("train")))


def refused(config: RunConfig, kind: type[ClsGenError], message: str) -> None:
    with pytest.raises(kind, match=message):
        explain_run(config, silent)
    assert not config.folder.exists()


def test_a_test_split_is_no_source(tmp_path: Path) -> None:
    rows = str(tmp_path / "rows.jsonl")
    refused(evidence(tmp_path, **{"data.test": rows}), DataError, "data.train and data.test are both")
    refused(evidence(tmp_path, **{"data.train": "owner/name:test"}), DataError, "a test split; only rows to train on")
    refused(evidence(tmp_path, **{"data.train": "owner/name:test[:50%]"}), DataError, "a test split")


def test_bad_rows_write_nothing(tmp_path: Path) -> None:
    config = evidence(tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", [row | {"label": 3} for row in tiny_rows(80)])
    refused(config, DataError, "unknown label '3'")


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    config = evidence(tmp_path)
    config.folder.mkdir(parents=True)
    (config.folder / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a run folder of this program"):
        explain_run(config, silent)
    assert [path.name for path in config.folder.iterdir()] == ["thesis.txt"]


def test_rows_that_changed_meanwhile(tmp_path: Path) -> None:
    config = evidence(tmp_path)
    explain_run(config, silent)
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(81))
    with pytest.raises(DataError, match="changed since run"):
        explain_run(evidence(tmp_path, **{"explain.tries": 1}), silent)


def test_the_summary_says_what_was_kept(tmp_path: Path) -> None:
    folder = explain_run(evidence(tmp_path), silent)
    told = explained_summary(folder)
    assert "train       no                            22        22         0  100.0 %" in told
    assert f"explained set: {folder.explained}" in told
    assert "explain_report.html" in told
