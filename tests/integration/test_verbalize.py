"""launchers/verbalize.py against a faulty server on loopback, killed in the middle, and with models in this process."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clsgen_dist.bundle import write_bundle
from clsgen_dist.chat import endpoint
from clsgen_dist.chat.answers import AnswerMemory
from clsgen_dist.chat.interface import Completion
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, dump_config
from clsgen_dist.errors import BundleError, ClsGenError, ConfigError, DataError, TeacherError
from clsgen_dist.launch import UNUSABLE
from clsgen_dist.model.build import DTYPES, build_model
from clsgen_dist.progress import Event, silent
from clsgen_dist.sources import gather_sources
from clsgen_dist.verbalize.stage import verbalize_run
from tests.support import forecaster
from tests.support.endpoint import serving, stats
from tests.support.forecaster import forecast_rows
from tests.support.tiny import ROOT, tiny_backbone, tiny_config, tiny_tokenizer, write_jsonl

BRAIN = f"{forecaster.__name__}:forecast"
KEY = "sk-very-secret-0123456789"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "FORECASTER_KEY": KEY, "HF_HUB_OFFLINE": "1"}

CONTRACT = ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label")
METHODS = ("raw", "resoftmax_temperature", "invert_softmax_temperature")


class Heard(list[Event]):
    """Listens, and keeps all that it hears."""

    def __call__(self, event: Event) -> None:
        self.append(event)


def run_config(folder: Path, num_rows: int = 1000, **settings: Any) -> RunConfig:
    """A run whose rows are dealt, 22 % each, to calibration and test; its configuration is written down."""
    write_jsonl(folder / "rows.jsonl", forecast_rows(num_rows))
    config = tiny_config(
        folder,
        **{
            "data.split_fractions": {"validation": 0.05, "calibration": 0.22, "test": 0.22},
            "data.explanation_column": None,
            "objective.w_gen": 0.0,
            **settings,
        },
    )
    (folder / "run.yaml").write_text(dump_config(config), encoding="utf-8")
    return config


def endpoint_config(folder: Path, base_url: str, num_rows: int = 1000, **settings: Any) -> RunConfig:
    asked = {"source": "endpoint", "base_url": base_url, "model": "teacher", "api_key_env": "FORECASTER_KEY"}
    return run_config(folder, num_rows, **{f"verbalize.{name}": value for name, value in asked.items()} | settings)


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "launchers" / "verbalize.py"), *words]


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECASTER_KEY", KEY)


def test_through_faults_with_answers_in_many_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tenth request fails; the same command again asks nothing; more prompts ask for the new ones only."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.1)
    faults = ("500", "503", "reset", "truncated", "no-choices", "refusal", "filter")
    with serving(BRAIN, fault_share=0.1, faults=faults, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url)
        heard = Heard()
        folder = verbalize_run(config, heard)
        asked = stats(base_url)["requests"]
        num_rows = heard[-1].total
        assert [event.done for event in heard] == list(range(1, num_rows + 1))
        assert verbalize_run(config, silent) == folder
        assert stats(base_url)["requests"] == asked, "the same command again asks nothing"
        metrics = metrics_of(folder)
        more = endpoint_config(tmp_path, base_url, **{"verbalize.num_prompts": 2})
        verbalize_run(more, silent)
        told = stats(base_url)
    assert told["answered_twice"] == 0
    assert asked + num_rows <= told["requests"] <= asked + 1.3 * num_rows, "of each row, the second paraphrase"
    assert folder == config.folder / "verbalized"
    assert 0.75 < metrics["parse_rate"] < 0.95
    assert {"refusal", "no_distribution", "duplicate_label"} <= metrics["failures"].keys()
    for name in METHODS:
        for part in (metrics[name], metrics["all_rows"][name]):
            assert all(math.isfinite(part[metric]) for metric in CONTRACT)
            assert all(part[f"{metric}_ci"][0] <= part[f"{metric}_ci"][1] for metric in CONTRACT)
    for name in METHODS[1:]:
        assert metrics[name]["temperature"] > 0
    assert metrics["invert_softmax_temperature"]["nll"] < metrics["raw_floored"]["nll"]
    assert "label_tokens" not in metrics
    lines = lines_of(folder / "answers.jsonl")
    assert len(lines) == num_rows
    assert {line["split"] for line in lines} == {"calibration", "test"}
    assert all(len(line["answers"]) == 2 and line["answer"] == line["answers"][0] for line in lines)
    assert metrics_of(folder)["parse_rate"] > metrics["parse_rate"], "a second paraphrase stands in for the first"
    for path in config.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    with serving(BRAIN, latency=0.05, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, **{"verbalize.requests_in_flight": 4})
        process = subprocess.Popen(
            command("--config", str(tmp_path / "run.yaml")),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and stats(base_url)["answered_bodies"] < 60:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        answered = stats(base_url)["answered_bodies"]
        folder = verbalize_run(config, silent)
        told = stats(base_url)
    num_rows = len(lines_of(folder / "answers.jsonl"))
    assert 60 <= answered < num_rows == told["answered_bodies"]
    assert told["requests"] <= num_rows + 4, "only what was in flight is asked again"
    metrics = metrics_of(folder)
    assert metrics["num_rows"] + metrics["num_fit_rows"] == num_rows


def test_guided_answers_keep_to_a_schema(tmp_path: Path) -> None:
    with serving(BRAIN, key=KEY) as base_url:
        guided: dict[str, Any] = {"verbalize.guided": True, "verbalize.prompt": "direct", "verbalize.max_rows": 60}
        verbalize_run(endpoint_config(tmp_path, base_url, **guided), silent)
        sent = stats(base_url)["last_fields"]["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"]["strict"] is True
        assert list(sent["json_schema"]["schema"]["properties"]) == ["no", "yes"]
    with serving(BRAIN, key=KEY, not_taken=("response_format",)) as base_url:
        refused: dict[str, Any] = {**guided, "run.name": "refused", "verbalize.base_url": base_url}
        with pytest.raises(TeacherError, match=r"'response_format'; see verbalize\.guided"):
            verbalize_run(endpoint_config(tmp_path, base_url, **refused), silent)


def test_a_run_in_an_object_store_has_what_was_said_there(tmp_path: Path) -> None:
    stored = {"run.storage": f"file://{tmp_path}/store", "tracking.uri": "http://127.0.0.1:9"}
    with serving(BRAIN, key=KEY) as base_url:
        here = verbalize_run(endpoint_config(tmp_path, base_url, **stored), silent)
        num_asked = stats(base_url)["requests"]
        elsewhere = endpoint_config(tmp_path, base_url, **stored, **{"run.output_dir": str(tmp_path / "b")})
        there = verbalize_run(elsewhere, silent)
        assert stats(base_url)["requests"] == num_asked, "another node asks nothing twice"
    assert here != there
    assert metrics_of(here) == metrics_of(there)


def test_without_words_the_cause_is_told(tmp_path: Path) -> None:
    """Thinking that never ends is no refusal, and both leave the rows in."""
    with serving(BRAIN, key=KEY, fault_share=0.3, faults=("length", "filter")) as base_url:
        metrics = metrics_of(verbalize_run(endpoint_config(tmp_path, base_url), silent))
    assert metrics["failures"]["cut_off"] > 5
    assert metrics["failures"]["refusal"] > metrics["num_rows"] / 17
    assert sum(metrics["failures"].values()) == metrics["num_rows"] - metrics["num_parsed_rows"]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"verbalize.model": "teachr"}, ConfigError, "teacher"),
        ({"verbalize.base_url": "http://127.0.0.1:9/v1"}, ConfigError, "verbalize.base_url"),
        ({"verbalize.api_key_env": "NO_SUCH_KEY"}, ConfigError, "NO_SUCH_KEY"),
        ({"verbalize.max_rows": 19}, DataError, "the calibration rows: 19 labelled rows can be fitted on"),
    ],
    ids=["unknown-model", "endpoint-down", "no-key", "too-few-rows"],
)
def test_what_cannot_work_is_refused_before_a_row_is_spent(
    tmp_path: Path, settings: dict[str, Any], kind: type[ClsGenError], message: str
) -> None:
    with serving(BRAIN, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, **settings)
        with pytest.raises(kind, match=message) as error:
            verbalize_run(config, silent)
        assert stats(base_url)["answered_bodies"] == 0
    assert error.value.exit_code == UNUSABLE
    assert not config.folder.exists()


def test_a_local_model_that_answers_noise(tmp_path: Path) -> None:
    """No answer is understood; the tokens speak for every row, and the parse rate says so."""
    model = tiny_backbone(tmp_path / "model", tokenizer=tiny_tokenizer(chat=True), max_position_embeddings=2048)
    local: dict[str, Any] = {"verbalize.source": "local", "verbalize.model": model, "verbalize.max_tokens": 4}
    config = run_config(tmp_path, 200, **local, **{"verbalize.max_rows": 30})
    heard = Heard()
    folder = verbalize_run(config, heard)
    check_noise(folder, heard)
    before = metrics_of(folder)
    assert before == metrics_of(verbalize_run(config, silent))


@pytest.mark.parametrize("source", ["local", "bundle"])
def test_a_model_here_is_held_to_the_form(tmp_path: Path, source: str) -> None:
    """Also one that answers noise: every answer is understood, and the calibrators have what they need."""
    model = tiny_backbone(tmp_path / "model", max_position_embeddings=2048)
    named = {"verbalize.model": model} if source == "local" else {"model.name_or_path": model}
    settings = {"verbalize.source": source, "verbalize.guided": True, "verbalize.prompt": "direct", **named}
    config = run_config(tmp_path, 200, **settings, **{"verbalize.max_rows": 30, "verbalize.temperature": 1.0})
    if source == "bundle":
        gather_sources(config, RunFolder(config.folder))
        write_tiny_bundle(config)
    folder = verbalize_run(config, silent)
    metrics = metrics_of(folder)
    assert metrics["parse_rate"] == 1
    for name in METHODS:
        assert metrics[name]["num_rows"] == 30
        assert all(math.isfinite(metrics[name][metric]) for metric in CONTRACT)
    assert metrics["label_tokens"]["num_rows"] == metrics["digit_expectation"]["num_rows"] == 30
    for line in lines_of(folder / "predictions.jsonl"):
        assert (line["raw_sum"], line["form"], line["fault"]) == (1.0, "json", None)


def check_noise(folder: Path, heard: list[Event]) -> None:
    metrics = metrics_of(folder)
    assert metrics["parse_rate"] == 0
    for name in ("raw", "resoftmax_temperature", "invert_softmax_temperature"):
        assert metrics[name]["num_rows"] == 0, "there, and without a number"
        assert {metrics[name][metric] for metric in CONTRACT} == {None}
    assert sum(metrics["failures"].values()) == metrics["num_rows"] == 30
    for name in ("label_tokens", "label_tokens_temperature", "digit_expectation", "digit_expectation_temperature"):
        assert metrics[name]["num_rows"] == 30
        assert all(math.isfinite(metrics[name][metric]) for metric in CONTRACT)
    assert 0 < metrics["label_mass"] < 1
    assert {event.stage for event in heard} == {"ask", "read tokens"}
    for line in lines_of(folder / "answers.jsonl"):
        for name in ("label_tokens", "digit_expectation"):
            assert sum(line[name]) == pytest.approx(1)
    assert "Answers that open with a label" in (folder / "report.html").read_text(encoding="utf-8")


def write_tiny_bundle(config: RunConfig) -> None:
    """A bundle whose adapter was drawn rather than trained."""
    base = str(config.model.name_or_path)
    model = build_model(config.model, base, 2, dtype=DTYPES[config.train.precision], seed=1)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: p.detach() + 0.05 * torch.randn(p.shape, generator=generator)
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    write_bundle(RunFolder(config.folder).bundle, config, base, weights, np.zeros(0, dtype=np.uint64))


def test_the_language_model_of_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny_backbone(tmp_path / "base", max_position_embeddings=2048)
    settings: dict[str, Any] = {"verbalize.max_tokens": 4, "verbalize.max_rows": 30, "model.name_or_path": base}
    config = run_config(tmp_path, 200, **settings)
    with pytest.raises(ConfigError, match=r"verbalize\.source is bundle, and .* does not exist; train first"):
        verbalize_run(config, silent)
    assert not config.folder.exists()
    gather_sources(config, RunFolder(config.folder))
    write_tiny_bundle(config)
    heard = Heard()
    folder = verbalize_run(config, heard)
    check_noise(folder, heard)
    before = metrics_of(folder)
    moved = run_config(tmp_path, 200, **settings, **{"run.output_dir": str(tmp_path / "elsewhere")})
    shutil.move(config.folder, moved.folder)
    monkeypatch.setattr(AnswerMemory, "remember", _refuse)
    assert metrics_of(verbalize_run(moved, silent)) == before, "the same weights at another place are not asked again"
    manifest = RunFolder(moved.folder).bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"run": "tiny"', '"run": "other"'))
    with pytest.raises(BundleError, match="of run 'other', expected 'tiny'"):
        verbalize_run(moved, silent)


def _refuse(memory: AnswerMemory, key: str, answer: Completion) -> None:
    raise AssertionError("asked again")


def test_as_processes(tmp_path: Path) -> None:
    """Answers of elsewhere print a table; a file that is missing ends in one line."""
    lines = [
        {"id": row["id"], "label": row["label"], "answer": forecaster.forecast([{"content": row["text"]}], 0)}
        for row in forecast_rows(200)
    ]
    answers = str(write_jsonl(tmp_path / "answers.jsonl", lines))
    words = ("--labels", "no,yes", "--output", str(tmp_path / "out"), "--evaluate.num_bootstrap", "100")
    ended = launch("--answers", answers, *words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "invert_softmax_temperature" in ended.stdout
    assert ended.stdout.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    (tmp_path / "part.yaml").write_text('run: {name: said}\ntask: {question: "Fever?", labels: ["no", "yes"]}\n')
    ended = launch("--config", str(tmp_path / "part.yaml"), "--answers", str(tmp_path / "absent.jsonl"))
    assert ended.returncode == UNUSABLE
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "absent.jsonl: cannot be read (No such file" in ended.stderr
