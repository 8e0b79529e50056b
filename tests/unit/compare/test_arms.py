"""From the file of a comparison to its jobs: the same rows for all, one configuration and its overrides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.compare.arms import Comparison, load_comparison
from clsgen_dist.compare.frozen import frozen_file
from clsgen_dist.config.compare import DEFAULT_ARMS, chosen_arms, compare_help
from clsgen_dist.config.run import dump_config, leaves
from clsgen_dist.config.source import dump_tree
from clsgen_dist.errors import ConfigError
from clsgen_dist.records import SPLITS
from tests.support.tiny import ROOT, tiny_config

COMPARISONS = sorted((ROOT / "examples").glob("compare_*.yaml"))
TWO_ARMS = [{"name": "joint"}, {"name": "discriminative", "overrides": {"objective.w_gen": 0}}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A comparison with all default arms whose base is a tiny run in a file of its own."""
    (tmp_path / "run.yaml").write_text(dump_config(tiny_config(tmp_path)), encoding="utf-8")
    return written(tmp_path, base=str(tmp_path / "run.yaml"))


def written(folder: Path, **settings: Any) -> Path:
    path = folder / "compare.yaml"
    path.write_text(dump_tree({"name": "cmp", **settings}), encoding="utf-8")
    return path


def values(comparison: Comparison, name: str) -> dict[str, Any]:
    (job,) = (job for job in comparison.jobs if job.name == name)
    return dict(leaves(job.config.model_dump()))


def refused(path: Path, *words: str, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        load_comparison(str(path), words, **options)
    return str(error.value)


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.name)
def test_shipped_comparisons_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(str(path))
    assert {"joint", "discriminative", "bag_of_words"} <= {arm.name for arm in comparison.arms}


def test_without_arms_there_are_those_of_the_paper_each_trained_with_three_seeds(file: Path) -> None:
    comparison = load_comparison(str(file))
    assert [arm.name for arm in comparison.arms] == [arm.name for arm in DEFAULT_ARMS]
    assert [job.name for job in comparison.jobs] == [
        *("zero_shot_label_tokens-1", "zero_shot_verbalised-1", "bag_of_words-1"),
        *(
            f"{arm}-{seed}"
            for arm in ("discriminative", "generative", "joint", "joint_kl", "joint_general")
            for seed in (1, 2, 3)
        ),
    ]


def test_trained_arms_differ_from_each_other_by_their_overrides_alone(file: Path) -> None:
    comparison = load_comparison(str(file))
    joint = values(comparison, "joint-2")
    for name, overrides in (
        ("discriminative-2", {"objective.w_gen": 0.0}),
        ("generative-2", {"objective.w_cls": 0.0}),
        ("joint_kl-2", {"objective.kl_weight": 1.0}),
    ):
        own = values(comparison, name)
        assert {key: own[key] for key in own if own[key] != joint[key]} == {"run.name": name, **overrides}
    assert (joint["run.seed"], joint["objective.w_gen"]) == (2, 1.0)


def test_all_arms_and_seeds_read_the_same_frozen_rows(file: Path) -> None:
    comparison = load_comparison(str(file))
    assert comparison.rows.run.name == "rows"
    assert comparison.rows.run.seed == 1
    for job in comparison.jobs:
        for split in SPLITS:
            assert getattr(job.config.data, split) == str(frozen_file(comparison.folder, split))
        assert job.config.explain.teacher == "column"
        assert job.config.data.max_prompt_tokens == 64
        assert job.folder.path == comparison.folder / job.name


def test_zero_shot_arms_ask_the_backbone_as_it_is(file: Path) -> None:
    comparison = load_comparison(str(file))
    tokens, said = (values(comparison, f"{name}-1") for name in ("zero_shot_label_tokens", "zero_shot_verbalised"))
    assert (tokens["objective.w_cls"], tokens["model.lora.rank"]) == (0.0, 1)
    assert (said["verbalize.source"], said["verbalize.model"]) == ("local", said["model.name_or_path"])


def test_words_of_the_command_line_reach_the_base_and_the_files_overrides_come_before_them(
    file: Path, tmp_path: Path
) -> None:
    path = written(
        tmp_path,
        base=str(tmp_path / "run.yaml"),
        overrides={"train.epochs": 4, "train.global_batch": 16},
        arms=TWO_ARMS,
    )
    comparison = load_comparison(
        str(path), ["--train.epochs", "5", "--run.output_dir", str(tmp_path / "other")], seeds="1"
    )
    assert [job.name for job in comparison.jobs] == ["joint-1", "discriminative-1"]
    for job in comparison.jobs:
        assert (job.config.train.epochs, job.config.train.global_batch) == (5, 16)
    assert comparison.folder == tmp_path / "other" / "cmp"


def test_a_comparison_stands_in_a_folder_and_not_in_a_store(file: Path) -> None:
    words = ("--run.storage", "s3://runs/x", "--tracking.uri", "http://127.0.0.1:9")
    assert "run.storage s3://runs/x: arms read each other's folders" in refused(file, *words)


def test_mlflow_is_where_a_run_of_the_base_would_have_it(tmp_path: Path) -> None:
    base = tiny_config(tmp_path, **{"tracking.uri": None}).model_dump(mode="json")
    comparison = load_comparison(str(written(tmp_path, base=base, arms=TWO_ARMS)))
    assert {job.config.tracking.uri for job in comparison.jobs} == {f"sqlite:///{tmp_path}/runs/mlflow.db"}


def test_an_arm_may_share_the_models_of_another_one_and_is_chosen_with_it(file: Path) -> None:
    comparison = load_comparison(str(file), arms="joint,joint_conditioned", seeds="2")
    assert [job.name for job in comparison.jobs] == ["joint-1", "joint-2"]
    assert "shares the models of joint" in refused(file, arms="joint_conditioned")
    assert "no arm 'jiont'; there are zero_shot_label_tokens" in refused(file, arms="jiont")


BAD = (
    ({"name": "x", "base": "absent.yaml"}, "absent.yaml: no such configuration file"),
    ({"name": "a b"}, "compare.yaml:1: name: String should match pattern"),
    ({"seed": 3}, "compare.yaml:3: seed: unknown key; the nearest valid key is seeds"),
    ({"seeds": 0}, "compare.yaml:3: seeds: Input should be greater than or equal to 1"),
    (
        {"overrides": {"train.epoch": 3}},
        "compare.yaml:4: unknown key train.epoch; the nearest valid key is train.epochs",
    ),
    ({"overrides": {"epochs": 3}}, "compare.yaml:4: epochs: expected a dotted name, as train.learning_rate"),
    ({"arms": [{"name": "a", "kind": "prompted"}]}, "compare.yaml:5: arms.0.kind: Input should be 'trained'"),
    ({"arms": [{"name": "a"}, {"name": "a"}]}, "a stands there twice"),
    ({"arms": [{"name": "a", "kind": "conditioned"}]}, "`of` belongs to arms of kind conditioned, and they need it"),
    ({"arms": [{"name": "a", "of": "a", "kind": "conditioned"}]}, "of a, expected the name of a trained arm"),
    ({"arms": [{"name": "a", "kind": "bag_of_words", "overrides": {"a.b": 1}}]}, "has no use for overrides"),
    ({"arms": [{"name": "a", "overrides": {"train.epoch": 3}}]}, "arm a: {path}:6: unknown key train.epoch"),
    ({"arms": [{"name": "a", "overrides": {"data.test": "x"}}]}, "data.test is the same for all arms"),
    ({"arms": [{"name": "a", "overrides": {"run.seed": 4}}]}, "run.seed is the same for all arms"),
    (
        {"arms": [{"name": "a", "overrides": {"objective.w_cls": 0, "objective.w_gen": 0}}]},
        "arm a: {path}:6: objective.",
    ),
)


@pytest.mark.parametrize(("settings", "message"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_faults_have_a_place_and_a_way_out(file: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **{"base": str(tmp_path / "run.yaml"), **settings})
    assert message.format(path=path) in refused(path)


def test_nothing_can_be_asked_of_a_backbone_that_is_made_from_scratch(file: Path) -> None:
    words = ["--model.name_or_path", "null", "--model.lora", "null", "--model.from_scratch", "{}"]
    assert "arm zero_shot_label_tokens: a backbone that is made from scratch knows nothing" in refused(file, *words)


def test_a_number_of_seeds_is_one(file: Path) -> None:
    assert "--seeds: found '0', expected a whole number of 1 or more" in refused(file, seeds="0")


def test_a_job_is_finished_when_its_metrics_stand_and_refuses_other_settings(file: Path, tmp_path: Path) -> None:
    (job,) = (job for job in load_comparison(str(file), arms="joint", seeds="1").jobs)
    assert not job.is_finished
    job.folder.evaluation("test").mkdir(parents=True)
    job.folder.config.write_text(dump_config(job.config), encoding="utf-8")
    assert not job.is_finished
    (job.folder.evaluation("test") / "metrics.json").write_text(json.dumps({}), encoding="utf-8")
    (again,) = load_comparison(str(file), ["--train.num_workers", "2"], arms="joint", seeds="1").jobs
    assert again.is_finished, "how a run is spread changes nothing of it"
    told = refused(file, "--train.learning_rate", "0.5", arms="joint", seeds="1")
    assert "joint-1 holds this arm with other settings (differs in train.learning_rate)" in told


def test_help_names_every_setting_and_every_default_arm() -> None:
    text = compare_help()
    assert all(f"\n  {name}\n" in text for name in ("name", "base", "overrides", "seeds", "arms"))
    assert all(arm.name in text for arm in DEFAULT_ARMS)
    assert chosen_arms(DEFAULT_ARMS, None) == list(DEFAULT_ARMS)
