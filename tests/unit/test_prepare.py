"""From a configuration to a run folder that is whole, or to one clear message and no folder at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, load_config
from clsgen_dist.data.store import stored_rows
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.errors import CheckpointError, ClsGenError, ConfigError, DataError
from clsgen_dist.prepare import backbone_place, prepare, survey_splits
from clsgen_dist.records import SPLITS
from clsgen_dist.sources import gather_sources
from tests.support.tiny import ROOT, shared_backbone, tiny_config, tiny_rows, write_jsonl


def texts(folder: RunFolder, split: str) -> list[str]:
    return [row.text for row in stored_rows(folder.rows(split))]


def contents(place: Path) -> dict[str, bytes]:
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in sorted(place.rglob("*")) if p.is_file()}


def refused(config: RunConfig, kind: type[ClsGenError] = DataError) -> str:
    """The message; and nothing was written, not even the folder of runs."""
    place = Path(config.run.output_dir)
    before = contents(place) if place.exists() else None
    with pytest.raises(kind) as error:
        prepare(config)
    assert (contents(place) if place.exists() else None) == before
    return str(error.value)


def four_files(tmp_path: Path, **changes: list[dict[str, Any]]) -> dict[str, str]:
    splits = {split: tiny_rows(8, prefix=split) for split in SPLITS} | changes
    return {f"data.{split}": str(write_jsonl(tmp_path / f"{split}.jsonl", rows)) for split, rows in splits.items()}


def test_a_run_folder_is_whole(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = prepare(config)
    assert folder.path == tmp_path / "runs" / "tiny"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny"]
    assert load_config(folder.config) == config
    assert json.loads(folder.zero.read_text(encoding="utf-8"))["zero_optimization"]["stage"] == 3
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    assert (manifest["teacher"], manifest["labels"], list(manifest["splits"])) == (
        "column",
        ["no", "yes"],
        list(SPLITS),
    )
    for split, facts in manifest["splits"].items():
        rows = list(stored_rows(folder.rows(split)))
        tokens = TokenizedSplit(folder.tokens(split))
        assert facts["num_rows"] == len(rows) == len(tokens)
        assert facts["num_explained"] == sum(row.explanation is not None for row in rows)
        assert facts["labels"] == {name: sum(row.label == k for row in rows) for k, name in enumerate(("no", "yes"))}
        assert facts["num_unlabelled"] == 0
        assert facts["source"] == str(tmp_path / "rows.jsonl")
        assert tokens.labels.tolist() == [row.label for row in rows]
        assert (tokens.num_scored > 0).tolist() == [row.explanation is not None for row in rows]
    assert folder.rows("train").parent.name == "explained"
    assert backbone_place(config, folder) == shared_backbone()


def test_splits_are_carved_from_one_file(tmp_path: Path) -> None:
    folder = prepare(tiny_config(tmp_path))
    dealt = {split: texts(folder, split) for split in SPLITS}
    assert sorted(text for some in dealt.values() for text in some) == sorted(row["text"] for row in tiny_rows(80))
    assert [len(some) for some in dealt.values()] == [44, 12, 12, 12]
    order = {row["text"]: n for n, row in enumerate(tiny_rows(80))}
    assert all([order[text] for text in some] == sorted(order[text] for text in some) for some in dealt.values())


def test_groups_stay_whole(tmp_path: Path) -> None:
    rows = [row | {"group": f"patient {n // 4}"} for n, row in enumerate(tiny_rows(80))]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    folder = prepare(tiny_config(tmp_path))
    groups = [{row.group for row in stored_rows(folder.rows(split))} for split in SPLITS]
    assert sum(map(len, groups)) == 20


def test_files_given_are_used_as_they_are(tmp_path: Path) -> None:
    folder = prepare(tiny_config(tmp_path, **four_files(tmp_path)))
    for split in SPLITS:
        assert texts(folder, split) == [row["text"] for row in tiny_rows(8, prefix=split)]


def test_a_missing_split_is_carved_from_train_alone(tmp_path: Path) -> None:
    files = four_files(tmp_path, train=tiny_rows(40, prefix="train"))
    del files["data.calibration"]
    folder = prepare(tiny_config(tmp_path, **files))
    assert len(texts(folder, "calibration")) == 6
    assert len(texts(folder, "train")) == 34
    assert all("train" in text for text in texts(folder, "calibration"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_other_kinds_of_files(tmp_path: Path, name: str) -> None:
    import csv

    import pyarrow as pa

    rows = [
        {"text": row["text"], "label": row["label"], "explanation": row.get("explanation", "")} for row in tiny_rows(80)
    ]
    if name.endswith("csv"):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    folder = prepare(tiny_config(tmp_path, **{"data.train": str(tmp_path / name)}))
    assert [len(texts(folder, split)) for split in SPLITS] == [44, 12, 12, 12]


def test_rows_of_a_limit_are_drawn_by_the_seed(tmp_path: Path) -> None:
    kept = {}
    for seed in (1, 1, 2):
        config = tiny_config(tmp_path, **{"run.seed": seed, "data.max_train_rows": 10, "data.max_eval_rows": 6})
        splits = survey_splits(config)
        assert [len(kept) for kept in splits.values()] == [10, 6, 6, 6]
        numbers = splits["train"].numbers.tolist()
        assert numbers == sorted(set(numbers))
        assert kept.setdefault(seed, numbers) == numbers
    assert kept[1] != kept[2]
    folder = prepare(config)
    every = [row["text"] for row in tiny_rows(80)]
    assert texts(folder, "train") == [every[n] for n in kept[2]]


def test_limits_of_given_files_are_drawn_too(tmp_path: Path) -> None:
    files = four_files(tmp_path, test=tiny_rows(60, prefix="test"))
    splits = survey_splits(tiny_config(tmp_path, **files, **{"data.max_eval_rows": 20}))
    numbers = splits["test"].numbers
    assert len(numbers) == 20
    assert numbers.tolist() != np.arange(20).tolist(), "the first rows of a sorted file would be of one kind"


def test_the_same_command_finds_the_run_ready(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = prepare(config)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert prepare(tiny_config(tmp_path)).path == folder.path
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_what_does_not_change_the_result_may_change(tmp_path: Path) -> None:
    prepare(tiny_config(tmp_path))
    other = {"tracking.experiment": "x", "train.num_workers": 2, "train.cpu_threads": 2, "ray.max_failures": 1}
    prepare(tiny_config(tmp_path, **other))


def test_a_folder_of_another_run_names_the_settings(tmp_path: Path) -> None:
    prepare(tiny_config(tmp_path))
    message = refused(tiny_config(tmp_path, **{"train.learning_rate": 5e-4, "model.lora.rank": 8}), ConfigError)
    assert "holds a run with another configuration (differs in model.lora.rank, train.learning_rate)" in message
    assert "choose another run.name" in message


def test_a_run_of_a_folder_does_not_become_one_of_a_store(tmp_path: Path) -> None:
    """Its checkpoints stand in the folder alone; from one store to a copy of it elsewhere is another matter."""
    prepare(tiny_config(tmp_path))
    tracked = {"tracking.uri": "http://127.0.0.1:9", "run.storage": f"file://{tmp_path}/store"}
    assert "(differs in run.storage)" in refused(tiny_config(tmp_path, **tracked), ConfigError)
    stored = tiny_config(tmp_path, **{**tracked, "run.name": "stored"})
    prepare(stored)
    prepare(tiny_config(tmp_path, **{**tracked, "run.name": "stored", "run.storage": f"file://{tmp_path}/other"}))


def test_a_changed_file_of_rows(tmp_path: Path) -> None:
    prepare(tiny_config(tmp_path))
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(81))
    assert refused(tiny_config(tmp_path)).startswith(f"{tmp_path / 'rows.jsonl'}: changed since run")


def test_a_changed_run_folder(tmp_path: Path) -> None:
    folder = prepare(tiny_config(tmp_path))
    folder.rows("test").write_bytes(folder.rows("train").read_bytes())
    assert "altered since the run began" in refused(tiny_config(tmp_path), CheckpointError)


def test_changed_zero_settings(tmp_path: Path) -> None:
    zero = tmp_path / "zero.json"
    shutil.copy(ROOT / "ds_configs" / "zero3_cpu.json", zero)
    prepare(tiny_config(tmp_path, **{"train.deepspeed": str(zero)}))
    zero.write_text(json.dumps({"zero_optimization": {"stage": 2}}), encoding="utf-8")
    message = refused(tiny_config(tmp_path, **{"train.deepspeed": str(zero)}), ConfigError)
    assert message.startswith(f"{zero}: changed since run")


def test_a_foreign_folder(tmp_path: Path) -> None:
    foreign = tmp_path / "runs" / "tiny"
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("mine", encoding="utf-8")
    assert "not a run folder of this program; choose another run.name" in refused(tiny_config(tmp_path), ConfigError)
    assert (foreign / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_and_a_torn_attempt_are_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "runs" / ".tiny.partial").mkdir()
    (tmp_path / "runs" / ".tiny.partial" / "config.yaml").write_text("torn", encoding="utf-8")
    folder = prepare(tiny_config(tmp_path))
    assert folder.config.is_file()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny"]


def one_changed(change: dict[str, Any]) -> list[dict[str, Any]]:
    rows = tiny_rows(80)
    return [*rows[:7], rows[7] | change, *rows[8:]]


BAD_ROWS = {
    ":8: a row without text": one_changed({"text": " "}),
    ":8: unknown label '3'": one_changed({"label": 3}),
    ":8: the explanation is int": one_changed({"explanation": 3}),
    "have the same id": one_changed({"id": "row-3"}),
    "found only 'no', expected rows of at least two labels": [row | {"label": 0} for row in tiny_rows(80)],
    "found no label at all": [row | {"label": None} for row in tiny_rows(80)],
    "no row has an explanation while objective.w_gen > 0": [row | {"explanation": None} for row in tiny_rows(80)],
    ": no rows in it": [],
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_bad_rows_write_nothing(tmp_path: Path, message: str) -> None:
    write_jsonl(tmp_path / "rows.jsonl", BAD_ROWS[message])
    found = refused(tiny_config(tmp_path))
    assert message in found
    assert found.startswith(str(tmp_path / "rows.jsonl"))


def test_a_label_of_the_task_without_rows(tmp_path: Path) -> None:
    assert "no row with label 'maybe'" in refused(tiny_config(tmp_path, **{"task.labels": ["no", "yes", "maybe"]}))


def test_the_same_text_in_two_splits(tmp_path: Path) -> None:
    test = tiny_rows(8, prefix="test")
    test[3]["text"] = "  " + tiny_rows(8, prefix="train")[5]["text"].upper()
    found = refused(tiny_config(tmp_path, **four_files(tmp_path, test=test)))
    assert found.startswith(
        f"{tmp_path / 'train.jsonl'}:6 (train) and {tmp_path / 'test.jsonl'}:4 (test) have the same text"
    )


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"data.train": "absent.jsonl"}, DataError, "absent.jsonl: no such file"),
        ({"model.name_or_path": "/absent"}, ConfigError, "no backbone at /absent"),
        ({"model.lora.target_modules": ["query"]}, ConfigError, "matches no module of the backbone"),
        ({"data.max_prompt_tokens": 3}, DataError, "the prompt without any text has"),
    ],
)
def test_bad_settings_write_nothing(
    tmp_path: Path, settings: dict[str, Any], kind: type[ClsGenError], message: str
) -> None:
    assert message in refused(tiny_config(tmp_path, **settings), kind)


def test_without_the_language_model_loss_no_explanations_are_needed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [row | {"explanation": None} for row in tiny_rows(80)])
    prepare(tiny_config(tmp_path, **{"objective.w_gen": 0.0}))


def test_rows_that_change_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Surveyed, then written: a file that shrinks in between is noticed, and nothing is left behind."""
    import clsgen_dist.prepare as module

    surveyed = module.survey_splits

    def survey_then_shrink(config: RunConfig) -> Any:
        splits = surveyed(config)
        write_jsonl(tmp_path / "rows.jsonl", tiny_rows(10))
        return splits

    monkeypatch.setattr(module, "survey_splits", survey_then_shrink)
    assert "rows changed while they were read" in refused(tiny_config(tmp_path))


def test_vignettes_bring_a_backbone_made_for_them(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 300}
    config = tiny_config(
        tmp_path,
        **{
            "data.train": None,
            "data.vignettes": {"num_train": 60, "num_validation": 20, "num_calibration": 20, "num_test": 20},
            "data.max_prompt_tokens": 150,
            "train.token_budget": 600,
            "model.lora": None,
            "model.from_scratch": shape,
        },
    )
    folder = prepare(config)
    assert backbone_place(config, folder) == str(folder.backbone)
    assert (folder.backbone / "model.safetensors").is_file()
    assert [len(texts(folder, split)) for split in SPLITS] == [60, 20, 20, 20]
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    assert manifest["splits"]["test"]["source"] == "vignettes (test)"
    prepare(config)


def test_too_few_calibration_rows_are_refused_before_training(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"calibrate.method": "temperature"})
    with pytest.raises(DataError, match="12 labelled rows, a calibrator needs 20"):
        prepare(config)
    assert not config.folder.parent.exists()


def test_a_run_may_begin_with_what_was_said_in_words(tmp_path: Path) -> None:
    """Rows that a model was asked about stand already; what it said stays, and the rows are the run's own."""
    config = tiny_config(tmp_path)
    folder = RunFolder(config.folder)
    gather_sources(config, folder)
    folder.verbalized.mkdir()
    (folder.verbalized / "metrics.json").write_text("{}", encoding="utf-8")
    rows = contents(folder.path / "rows")
    assert prepare(config).path == folder.path
    assert contents(folder.path / "rows") == rows
    assert (folder.verbalized / "metrics.json").read_text(encoding="utf-8") == "{}"


def test_a_run_may_begin_beside_answers_of_others(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    folder = RunFolder(config.folder)
    folder.verbalized.mkdir(parents=True)
    (folder.verbalized / "metrics.json").write_text("{}", encoding="utf-8")
    assert gather_sources(config, folder)
    assert prepare(config).config.is_file()
    assert (folder.verbalized / "metrics.json").is_file()


def test_rows_of_other_settings_are_no_beginning(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    gather_sources(config, RunFolder(config.folder))
    assert "read with other settings" in refused(tiny_config(tmp_path, **{"data.max_train_rows": 5}), ConfigError)
