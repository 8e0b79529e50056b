"""Settings of answers that were collected elsewhere: from labels alone, from part of a file, from that of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsgen_dist.config.answers import AnswersConfig, answers_config, plain_answers_config
from clsgen_dist.config.run import dump_config
from clsgen_dist.errors import ConfigError
from tests.support.tiny import tiny_config

PART = """
run: {name: said, output_dir: results, seed: 7}
task: {question: "Fever?", labels: ["no", "yes"]}
verbalize: {sum_tolerance: 0.1}
"""


def test_labels_alone() -> None:
    config = plain_answers_config(" no, not sure ,yes", ["--verbalize.floor", "0.01", "--run.seed=5"])
    assert config.task.labels == ["no", "not sure", "yes"]
    assert (config.verbalize.floor, config.run.seed) == (0.01, 5)
    assert config.evaluate == AnswersConfig.model_fields["evaluate"].get_default()


@pytest.mark.parametrize(
    ("labels", "overrides", "message"),
    [
        ("no", [], "--labels: found 'no', expected two or more names"),
        ("no,,yes", [], "--labels: found 'no,,yes'"),
        ("", [], "--labels: found ''"),
        ("no,No", [], "labels must differ by more than case"),
        ("no,yes", ["--verbalize.floor", "2"], "--verbalize.floor: verbalize.floor"),
        ("no,yes", ["--verbalize.flor", "0.1"], "unknown key verbalize.flor; the nearest valid key is verbalize.floor"),
        ("no,yes", ["--train.epochs", "2"], "unknown key train"),
        ("no,yes", ["stray"], "'stray': expected --section.key VALUE"),
    ],
)
def test_bad_labels_and_overrides(labels: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        plain_answers_config(labels, overrides)
    assert message in str(error.value)


def test_a_file_with_run_and_task_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.yaml").write_text(PART, encoding="utf-8")
    config, folder = answers_config("part.yaml", ["--evaluate.num_bins", "5"])
    assert (config.run.seed, config.verbalize.sum_tolerance, config.evaluate.num_bins) == (7, 0.1, 5)
    assert folder == tmp_path / "results" / "said" / "verbalized"


def test_the_file_of_a_whole_run(tmp_path: Path) -> None:
    whole = tiny_config(tmp_path, **{"verbalize.sum_tolerance": 0.2})
    (tmp_path / "run.yaml").write_text(dump_config(whole), encoding="utf-8")
    config, folder = answers_config(str(tmp_path / "run.yaml"), ["--verbalize.constant", "zero"])
    assert (config.run, config.task, config.evaluate) == (whole.run, whole.task, whole.evaluate)
    assert (config.verbalize.sum_tolerance, config.verbalize.constant) == (0.2, "zero")
    assert folder == whole.folder / "verbalized"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: {name: x}", "task is missing"),
        (PART.replace("sum_tolerance", "sum_tolerence"), "part.yaml:4: unknown key verbalize.sum_tolerence"),
        (PART + "calibrate: {method: vector}", "part.yaml:5: calibrate.method platt, beta or isotonic"),
        (PART + "data: {train: rows.jsonl}", "model is missing"),
    ],
    ids=["no-task", "unknown-key", "no-such-calibrator", "half-a-run"],
)
def test_files_that_cannot_work(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        answers_config(str(path), [])
    assert message in str(error.value)
