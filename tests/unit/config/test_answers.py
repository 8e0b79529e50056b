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
        ("a,b,c", ["--verbalize.floor", "0.4"], "--verbalize.floor: verbalize.floor of 1 / (number of task.labels) or"),
        ("no,yes", ["--verbalize.sum_tolerance", "0.5"], "--verbalize.sum_tolerance: verbalize.sum_tolerance"),
        ("no,yes", ["--calibrate.method", "vector"], "--calibrate.method: calibrate.method platt, beta or isotonic"),
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
        (
            PART.replace("yes", 'a", "b').replace("sum_tolerance: 0.1", "floor: 0.4"),
            "part.yaml:4: verbalize.floor of",
        ),
        (PART + "data: {train: rows.jsonl}", "model is missing"),
    ],
    ids=["no-task", "unknown-key", "no-such-calibrator", "floor", "half-a-run"],
)
def test_files_that_cannot_work(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        answers_config(str(path), [])
    assert message in str(error.value)


USELESS = {
    "verbalize.model": "m",
    "verbalize.source": "local",
    "verbalize.base_url": "http://127.0.0.1:9/v1",
    "verbalize.prompt": "direct",
    "verbalize.num_prompts": "2",
    "verbalize.max_tokens": "9",
    "verbalize.temperature": "0.5",
    "verbalize.token_probabilities": "false",
    "verbalize.max_rows": "9",
    "verbalize.extra_body.seed": "1",
    "calibrate.prior": "{no: 0.9, yes: 0.1}",
    "calibrate.prior.no": "0.9",
}


@pytest.mark.parametrize(("name", "value"), USELESS.items(), ids=USELESS)
def test_overrides_without_a_use_are_refused(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(PART, encoding="utf-8")
    for words in ([f"--{name}", value], [f"--{name}={value}", "--verbalize.floor", "0.01"]):
        with pytest.raises(ConfigError, match=rf"^--{name}: has no use with --answers: "):
            plain_answers_config("no,yes", words)
        with pytest.raises(ConfigError, match=rf"^--{name}: has no use with --answers: "):
            answers_config(str(path), words)


def test_whom_a_whole_run_asks_may_stand_in_its_file(tmp_path: Path) -> None:
    whole = tiny_config(tmp_path, **{"verbalize.source": "local", "verbalize.model": "m", "verbalize.num_prompts": 2})
    (tmp_path / "run.yaml").write_text(dump_config(whole), encoding="utf-8")
    assert answers_config(str(tmp_path / "run.yaml"), [])[0].verbalize == whole.verbalize
