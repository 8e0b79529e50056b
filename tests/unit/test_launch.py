"""Command lines: words in, one message and an exit code out, nothing heavy loaded before the input is known good."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from clsgen_dist.config.run import dump_config, settings
from clsgen_dist.errors import ConfigError
from clsgen_dist.launch import answers_request, config_of, parse_words, predict_request
from clsgen_dist.records import PredictRequest
from tests.support.tiny import ROOT, tiny_config

TRAINERS = ("train.py", "ray_train.py", "plan.py")
LAUNCHERS = (*TRAINERS, "predict.py", "verbalize.py", "calibrate.py", "evaluate.py")
#: They take options of their own and no setting of a run.
WITHOUT_SETTINGS = ("sync_tracking.py", "register.py", "serve.py")
HEAVY = ("torch", "transformers", "deepspeed", "ray", "mlflow", "peft", "datasets", "pyarrow")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound configuration, run.yaml, and some that are not."""
    folder = tmp_path_factory.mktemp("launch")
    sound = dump_config(tiny_config(folder))
    (folder / "run.yaml").write_text(sound, encoding="utf-8")
    (folder / "unknown.yaml").write_text(sound.replace("learning_rate:", "learning_rat:", 1), encoding="utf-8")
    (folder / "empty.yaml").write_text("", encoding="utf-8")
    (folder / "torn.yaml").write_text(sound + "train: [", encoding="utf-8")
    (folder / "latin.yaml").write_bytes(b"run: {name: caf\xe9}")
    return folder


def launch(launcher: str, words: Sequence[str], place: Path) -> tuple[int, str, str, set[str]]:
    """Exit code, what was printed, what was complained, and the heavy modules that were imported."""
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "launchers" / launcher), *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)
    lines = done.stderr.splitlines()
    imports = [line for line in lines if line.startswith("import time:")]
    assert len(imports) > 50
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in imports}
    return done.returncode, done.stdout, "\n".join(line for line in lines if line not in imports), loaded & set(HEAVY)


RUN = ["--config", "run.yaml"]
PREDICT = ["--bundle", "bundle", "--input", "a.jsonl", "--output", "b.jsonl"]
ANSWERS = ["--answers", "a.jsonl"]
BAD = [
    ("sync_tracking.py", ["--tracking.uri", "http://h:1"], "--run FOLDER is missing; it is OUTPUT_DIR/RUN_NAME"),
    ("sync_tracking.py", ["--run", "absent"], "--run absent: there is no such folder"),
    ("sync_tracking.py", ["--run", ".", "--config", "run.yaml"], "--config: only --run FOLDER and --tracking.uri"),
    ("sync_tracking.py", ["--run", ".", "--tracking.uri", "http://a:b@h"], "--tracking.uri: holds a password"),
    ("train.py", ["--config"], "--config: expected a value after it"),
    ("train.py", ["--train.epochs", "3"], "--config FILE.yaml is missing; --help lists every setting"),
    ("train.py", ["--config", "absent.yaml"], "absent.yaml: no such configuration file"),
    ("train.py", ["--config", "empty.yaml"], "empty.yaml: expected sections of settings"),
    ("train.py", ["--config", "torn.yaml"], "torn.yaml:"),
    ("train.py", ["--config", "latin.yaml"], "latin.yaml: not UTF-8"),
    (
        "train.py",
        ["--config", "unknown.yaml"],
        "unknown key train.learning_rat; the nearest valid key is train.learning_rate",
    ),
    ("train.py", [*RUN, "--train.epochs"], "--train.epochs: expected a value after it"),
    ("train.py", [*RUN, "epochs=3"], "'epochs=3': expected --section.key VALUE"),
    ("train.py", [*RUN, "--verbose", "1"], "--verbose: expected --section.key VALUE"),
    (
        "ray_train.py",
        [*RUN, "--train.epoch", "3"],
        "--train.epoch: unknown key train.epoch; the nearest valid key is train.epochs",
    ),
    ("ray_train.py", [*RUN, "--train.epochs", "many"], "--train.epochs: train.epochs: Input should be a valid integer"),
    (
        "plan.py",
        [*RUN, "--objective.w_cls", "0", "--objective.w_gen", "0"],
        "objective.w_cls and objective.w_gen both 0",
    ),
    ("plan.py", [*RUN, "--train.deepspeed", "absent.json"], "no such file: absent.json"),
    ("predict.py", [*RUN, *PREDICT], "give either --bundle FOLDER or --config FILE.yaml"),
    ("predict.py", PREDICT[2:], "give either --bundle FOLDER or --config FILE.yaml"),
    ("predict.py", PREDICT[:4], "--output FILE is missing"),
    ("predict.py", [*PREDICT, "--explain", "some"], "--explain: found 'some', expected all, uncertain or none"),
    ("verbalize.py", ["--verbalize.prompt", "direct"], "--config FILE.yaml is missing; --help lists every setting"),
    ("verbalize.py", [*RUN, "--labels", "no,yes"], "--labels: only with --answers FILE.jsonl"),
    ("verbalize.py", [*RUN, *ANSWERS, "--labels", "no,yes"], "--answers: the labels come from --config FILE.yaml, or"),
    ("verbalize.py", [*ANSWERS, "--labels", "no,yes"], "--output FOLDER is missing: without --config there is no run"),
    (
        "predict.py",
        [*PREDICT, "--train.epochs", "3"],
        "--train.epochs: with --bundle only settings of data, predict and ray may follow",
    ),
]


@pytest.mark.parametrize(
    ("launcher", "words", "message"), BAD, ids=lambda value: value if isinstance(value, str) else None
)
def test_bad_words_end_in_one_message_before_anything_heavy(
    place: Path, launcher: str, words: list[str], message: str
) -> None:
    before = sorted(path.name for path in place.rglob("*"))
    code, printed, complained, heavy = launch(launcher, words, place)
    assert code == 2
    assert printed == ""
    assert complained.startswith("error: ")
    assert message in complained
    assert len(complained.splitlines()) == 1
    assert heavy == set()
    assert sorted(path.name for path in place.rglob("*")) == before, "nothing is written"


def test_every_fault_of_a_configuration_is_said_at_once(place: Path) -> None:
    words = [*RUN, "--train.epochs", "0", "--train.precision", "fp8", "--objective.zz", "1"]
    code, _, complained, heavy = launch("train.py", words, place)
    assert code == 2
    assert [re.match(r"(?:error: )?(--[\w.]+): ", line)[1] for line in complained.splitlines()] == [  # type: ignore[index]
        "--objective.zz",
        "--train.epochs",
        "--train.precision",
    ]
    assert heavy == set()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_lists_every_setting(place: Path, launcher: str) -> None:
    code, printed, complained, heavy = launch(launcher, ["--help"], place)
    assert (code, complained, heavy) == (0, "", set())
    assert f"launchers/{launcher}" in printed
    for name, info in settings():
        assert f"--{name} " in printed
        assert str(info.description) in printed


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_no_words_give_help_and_exit_code_2(place: Path, launcher: str) -> None:
    code, printed, _, heavy = launch(launcher, [], place)
    assert code == 2
    assert "--train.learning_rate" in printed
    assert heavy == set()


@pytest.mark.parametrize("launcher", WITHOUT_SETTINGS)
def test_help_lists_no_setting_that_is_refused(place: Path, launcher: str) -> None:
    for words, expected in ((["--help"], 0), ([], 2)):
        code, printed, complained, heavy = launch(launcher, words, place)
        assert (code, complained, heavy) == (expected, "", set())
        assert f"launchers/{launcher}" in printed
        assert "--train." not in printed


@pytest.mark.parametrize(
    ("words", "found", "rest"),
    [
        (["--config", "a.yaml"], {"config": "a.yaml"}, []),
        (["--config=a.yaml", "--train.epochs", "3"], {"config": "a.yaml"}, ["--train.epochs", "3"]),
        (["--local_rank=1", "--config", "a"], {"config": "a", "local_rank": "1"}, []),
        (["--local_rank", "1", "--config", "a"], {"config": "a", "local_rank": "1"}, []),
        (["--local-rank=1"], {"local_rank": "1"}, []),
        (["--run.name", "--config", "a"], {}, ["--run.name", "--config", "a"]),
        (["--task.question=--config b"], {}, ["--task.question=--config b"]),
        (["stray", "--config", "a"], {"config": "a"}, ["stray"]),
        (["--config", "a", "--config", "b"], {"config": "b"}, []),
    ],
)
def test_words_are_split_into_options_and_overrides(words: list[str], found: dict[str, str], rest: list[str]) -> None:
    assert parse_words(words) == (found, rest)


def test_own_options_of_a_launcher() -> None:
    assert parse_words(["--input", "a", "--data.id_column", "x"], ("input",)) == (
        {"input": "a"},
        ["--data.id_column", "x"],
    )
    assert parse_words(["--input", "a"])[0] == {}


def test_the_local_rank_that_deepspeed_adds_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["--config", "run.yaml", "--train.epochs", "3"]
    assert config_of(["--local_rank=0", *words]) == config_of(words)
    assert config_of(words).train.epochs == 3


def test_a_request_for_predictions(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = ["--base", "models/x", "--explain=none", "--data.text_column", "note", "--predict.token_budget", "99"]
    assert predict_request([*PREDICT, *words]) == PredictRequest(
        Path("bundle"),
        "a.jsonl",
        Path("b.jsonl"),
        "models/x",
        ("--data.text_column", "note"),
        ("--predict.token_budget", "99", "--predict.explain", "none"),
    )
    request = predict_request([*RUN, *PREDICT[2:], "--run.name", "other", "--predict.token_budget=2000"])
    assert request.bundle == place / "runs" / "other" / "bundle"
    assert request.base is None
    assert {"--predict.explain=all", "--predict.uncertain_margin=null", "--predict.token_budget=2000"} <= {
        *request.settings
    }
    assert any(word.startswith("--ray.") for word in request.settings)


def test_columns_of_a_run_are_overridden_as_those_of_a_bundle(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    request = predict_request([*RUN, *PREDICT[2:], "--data.text_column", "note"])
    assert request.columns == ("--data.text_column", "note")


def test_both_forms_of_an_override_may_follow_a_bundle() -> None:
    words = ("--data.text_column=note", "--data.label_column", "y", "--data.id_column=key")
    assert predict_request([*PREDICT, *words]).columns == words


@pytest.mark.parametrize("words", [["stray"], ["--data.text_column", "note", "stray"], ["--run.name=x"]])
def test_other_words_after_a_bundle_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=re.escape(words[-1])):
        predict_request([*PREDICT, *words])


def test_without_a_file_of_answers_a_model_is_asked() -> None:
    assert answers_request([*RUN, "--verbalize.prompt", "direct"]) is None


@pytest.mark.parametrize("option", ["--calibration-answers", "--calibration_answers", "--output"])
def test_options_of_answers_alone_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=r"only with --answers FILE\.jsonl"):
        answers_request([*RUN, option, "x"])


def test_a_request_to_calibrate_answers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    request = answers_request([*ANSWERS, "--labels=no,yes", "--output", "out", "--verbalize.floor", "0.01"])
    assert request is not None
    assert (request.answers, request.calibration_answers, request.output) == (Path("a.jsonl"), None, Path("out"))
    assert (request.config.task.labels, request.config.verbalize.floor) == (["no", "yes"], 0.01)
    request = answers_request([*RUN, *ANSWERS, "--calibration-answers", "b.jsonl", "--run.name", "other"])
    assert request is not None
    assert (request.calibration_answers, request.config.run.name) == (Path("b.jsonl"), "other")
    assert request.output == place / "runs" / "other" / "verbalized"
    request = answers_request([*RUN, *ANSWERS, "--output", "elsewhere"])
    assert request is not None
    assert request.output == Path("elsewhere")
