"""launchers/explain.py against a server on loopback that is faulty on purpose, and killed in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.records import EXPLAINED_SPLITS
from tests.support import teacher_brain
from tests.support.endpoint import prompts, serving, stats
from tests.support.explaining import ENVIRONMENT, KEY, check_nothing_lost, command, explain, written_config
from tests.support.tiny import tiny_rows, write_jsonl

BRAIN = f"{teacher_brain.__name__}:answer"


def endpoint_config(folder: Path, base_url: str, num_rows: int = 80, **settings: Any) -> RunConfig:
    write_jsonl(folder / "rows.jsonl", tiny_rows(num_rows))
    return written_config(
        folder,
        **{
            "explain.teacher": "endpoint",
            "explain.base_url": base_url,
            "explain.model": "teacher",
            "explain.api_key_env": "TEACHER_KEY",
            "explain.requests_in_flight": 32,
            **settings,
        },
    )


def hashes(folder: RunFolder) -> dict[str, str]:
    """Of the explained set; its report says the run's name, and so differs."""
    files = [folder.manifest, *(folder.rows(split) for split in EXPLAINED_SPLITS)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_thousand_rows_through_faults(tmp_path: Path) -> None:
    """Every tenth request fails in one of eight ways; no row is lost, none is kept twice."""
    faults = ("429", "500", "503", "reset", "truncated", "no-choices", "refusal", "timeout")
    with serving(BRAIN, fault_share=0.1, faults=faults, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, 2860, **{"explain.timeout_seconds": 5.0})
        ended = explain(tmp_path)
        told = stats(base_url)
    assert ended.returncode == 0, ended.stderr
    folder = RunFolder(config.folder)
    check_nothing_lost(folder)
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    rows = sum(manifest["splits"][split]["num_rows"] for split in EXPLAINED_SPLITS)
    explained = sum(manifest["splits"][split]["num_explained"] for split in EXPLAINED_SPLITS)
    assert rows >= 2000
    assert explained > 0.97 * rows
    assert told["answered_twice"] <= told["requests"] // 500, "only an answer that came too late is asked for again"
    assert told["answered_bodies"] == manifest["usage"]["num_requests"]
    assert set(told["faults"]) == set(faults)
    assert told["most_in_flight"] <= 32


def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    """kill -9 at ten random moments; then the set is that of a run which was left alone, byte for byte."""
    draw = random.Random(7)
    with serving(BRAIN, latency=0.05, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, 1400)
        assert explain(tmp_path, "--run.name", "whole").returncode == 0
        asked_whole = stats(base_url)["requests"]
        num_killed = 0
        for _ in range(10):
            before = stats(base_url)["requests"]
            process = subprocess.Popen(
                command(tmp_path), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while process.poll() is None and stats(base_url)["requests"] < before + 20:
                time.sleep(0.02)
            time.sleep(draw.uniform(0.0, 0.5))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                num_killed += 1
            process.wait()
        assert num_killed >= 5, "the rows were done before it could be killed"
        assert explain(tmp_path).returncode == 0
        asked_torn = stats(base_url)["requests"] - asked_whole
    assert asked_torn <= asked_whole + 32 * num_killed, "only what was in flight is asked again"
    assert hashes(RunFolder(config.folder)) == hashes(RunFolder(config.folder.with_name("whole")))


def test_ctrl_c_stops_it_with_one_line_and_keeps_what_was_answered(tmp_path: Path) -> None:
    with serving(BRAIN, latency=0.05, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, 300, **{"explain.requests_in_flight": 4})
        # A shell starts what runs in the background deaf to Ctrl-C, and children inherit that.
        hearing = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            command(tmp_path), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=hearing
        )
        while process.poll() is None and stats(base_url)["requests"] < 40:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        asked = stats(base_url)["requests"]
        assert process.returncode == 130
        assert "Traceback" not in said
        assert said.splitlines()[-1] == "stopped; the same command goes on where it was"
        assert explain(tmp_path).returncode == 0
        told = stats(base_url)
    assert told["requests"] > asked >= 40
    assert told["answered_twice"] <= 4, "only what was in flight is asked again"
    check_nothing_lost(RunFolder(config.folder))


def test_the_key_is_nowhere(tmp_path: Path) -> None:
    """Not in what is printed, nor in any file, when all goes well and when the server echoes a wrong key."""
    with serving(BRAIN, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url)
        well = explain(tmp_path)
        wrong = explain(tmp_path, "--run.name", "other", TEACHER_KEY=f"{KEY}-wrong")
    assert well.returncode == 0, well.stderr
    assert wrong.returncode == 2
    assert "TEACHER_KEY" in wrong.stderr
    assert not (config.folder.parent / "other").exists()
    for ended in (well, wrong):
        assert KEY not in ended.stdout + ended.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ([], {"TEACHER_KEY": ""}, "TEACHER_KEY"),
        (["--explain.model", "teachr"], {}, "teacher"),
        (["--explain.base_url", "http://127.0.0.1:9/v1"], {}, "explain.base_url"),
        (["--explain.budget_tokens", "50"], {}, "explain.budget_tokens is 50; the prompts of 56 rows alone"),
        (["--data.test", "SAME"], {}, "only rows to train on are explained"),
    ],
    ids=["no-key", "unknown-model", "endpoint-down", "budget-too-small", "test-split"],
)
def test_bad_input_is_refused_before_a_row_is_spent(
    tmp_path: Path, words: list[str], environment: dict[str, str], message: str
) -> None:
    with serving(BRAIN, key=KEY) as base_url:
        endpoint_config(tmp_path, base_url)
        words = [str(tmp_path / "rows.jsonl") if word == "SAME" else word for word in words]
        ended = explain(tmp_path, *words, **environment)
        asked = stats(base_url)["answered_bodies"]
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())
    assert asked == 0


def test_a_spent_budget_stops_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    with serving(BRAIN, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url)
        stopped = explain(tmp_path, "--explain.budget_tokens", "9000")
        asked = stats(base_url)["requests"]
        assert stopped.returncode == 1, stopped.stderr
        assert "budget" in stopped.stderr
        assert not RunFolder(config.folder).manifest.exists()
        assert explain(tmp_path).returncode == 0
        told = stats(base_url)
    assert 0 < asked < told["requests"]
    assert told["answered_twice"] == 0
    check_nothing_lost(RunFolder(config.folder))


def test_other_fields_of_a_request_ask_anew_and_the_same_ask_nothing(tmp_path: Path) -> None:
    with serving(BRAIN, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, **{"explain.extra_body": {"top_p": 0.9}})
        folder = RunFolder(config.folder)
        assert explain(tmp_path).returncode == 0
        first, asked = hashes(folder), stats(base_url)["requests"]
        # A set of other settings, from the same answers.
        assert explain(tmp_path, "--explain.checks.max_tokens", "199").returncode == 0
        assert hashes(folder)["manifest.json"] != first["manifest.json"]
        assert stats(base_url)["requests"] == asked > 0
        assert explain(tmp_path, "--explain.extra_body", "{top_p: 0.8}").returncode == 0
        assert stats(base_url)["last_fields"]["top_p"] == 0.8
        assert stats(base_url)["requests"] == 2 * asked
        assert explain(tmp_path).returncode == 0
        assert stats(base_url)["requests"] == 2 * asked, "the first answers were forgotten"
    assert hashes(folder)["train.parquet"] == first["train.parquet"]
    check_nothing_lost(folder)
    assert folder.teacher_memory.is_file(), "answers that were paid for are kept"


def test_the_manifest_shows_the_prompts_as_they_were_sent(tmp_path: Path) -> None:
    wishes = {"explain.guidance": "Name one sign only.", "explain.checks.language": "en"}
    with serving(BRAIN, key=KEY) as base_url:
        config = endpoint_config(tmp_path, base_url, **wishes)
        ended = explain(tmp_path)
        sent = prompts(base_url)
    assert ended.returncode == 0, ended.stderr
    folder = RunFolder(config.folder)
    shown = json.loads(folder.manifest.read_text(encoding="utf-8"))["prompts"]
    assert list(shown) == ["blind", "reason, of the label yes", "reading"]
    rows = [row for row in stored_rows(folder.labelled("train")) if row.label == 1]
    assert {shown["blind"].replace("[TEXT]", row.text) for row in rows} <= sent
    reasons = {shown["reason, of the label yes"].replace("[TEXT]", row.text) for row in rows}
    assert len(reasons & sent) > len(rows) / 2, "where the blind answer is another label, a hint follows"
    before, after = shown["reading"].split("[REASON]")
    assert any(prompt.startswith(before) and prompt.endswith(after) for prompt in sent)
    for wish in ("Name one sign only.", "Write in the language whose ISO 639-1 code is en."):
        assert [name for name, prompt in shown.items() if wish in prompt] == ["reason, of the label yes"]
