"""Language models as teachers: behind `transformers serve`, in this process, and as actors of a Ray cluster.

The models are tiny and their weights random, so they write noise; the checks must say so, and no row may be lost.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.errors import ConfigError
from clsgen_dist.explain.memory import TeacherMemory
from clsgen_dist.explain.stage import explain_run
from clsgen_dist.planning import make_plan
from clsgen_dist.prepare import prepare
from clsgen_dist.progress import silent
from clsgen_dist.records import EXPLAINED_SPLITS
from tests.support.explaining import ENVIRONMENT, check_nothing_lost, explain, written_config
from tests.support.ranks import free_port
from tests.support.tiny import tiny_backbone, tiny_tokenizer

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_backbone(
        tmp_path_factory.mktemp("teacher"), tokenizer=tiny_tokenizer(chat=True), max_position_embeddings=2048
    )


def taught(folder: Path, **settings: Any) -> RunConfig:
    return written_config(
        folder,
        **{
            "data.max_train_rows": 10,
            "data.max_eval_rows": 4,
            "explain.max_tokens": 12,
            "explain.tries": 2,
            "explain.rescue_tries": 1,
            "objective.w_gen": 0.0,
            **settings,
        },
    )


def check(folder: RunFolder) -> dict[str, Any]:
    """Every row is there, every row was asked about, and what was kept passed the checks."""
    check_nothing_lost(folder)
    manifest: dict[str, Any] = json.loads(folder.manifest.read_text(encoding="utf-8"))
    asked = sum(by["num_agreed"] + by["num_disagreed"] + by["num_unanswered"] for by in manifest["agreement"])
    rows = manifest["splits"]["train"]["num_rows"] + manifest["splits"]["validation"]["num_rows"]
    kept = manifest["splits"]["train"]["num_explained"] + manifest["splits"]["validation"]["num_explained"]
    assert asked == rows == 14
    assert kept < rows, "random words were taken for reasons"
    assert sum(sum(by["rows"].values()) for by in manifest["causes"]) == rows - kept
    assert manifest["usage"]["num_requests"] >= 2 * rows
    assert manifest["usage"]["prompt_tokens"] > manifest["usage"]["completion_tokens"] > 0
    return manifest


@contextmanager
def transformers_serve(model: str) -> Iterator[str]:
    port = free_port()
    command = [str(BIN / "transformers"), "serve", model, "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                assert server.poll() is None, "transformers serve ended"
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.mark.slow
def test_behind_transformers_serve(tmp_path: Path, teacher: str) -> None:
    with transformers_serve(teacher) as base_url:
        settings = {"explain.teacher": "endpoint", "explain.base_url": base_url, "explain.api_key_env": None}
        config = taught(tmp_path, **settings, **{"explain.model": teacher, "explain.requests_in_flight": 4})
        ended = explain(tmp_path)
    assert ended.returncode == 0, ended.stderr
    check(RunFolder(config.folder))


def test_in_this_process(tmp_path: Path, teacher: str) -> None:
    config = taught(tmp_path, **{"explain.teacher": "local", "explain.model": teacher, "explain.batch_size": 4})
    folder = explain_run(config, silent)
    check(folder)
    memory = TeacherMemory(folder.teacher_memory)
    assert memory.num_answers >= 28
    memory.close()
    again = explain_run(
        taught(tmp_path, **{"run.name": "again", "explain.teacher": "local", "explain.model": teacher}), silent
    )
    for split in EXPLAINED_SPLITS:
        assert again.rows(split).read_bytes() == folder.rows(split).read_bytes(), "the size of a batch changed words"


def test_training_takes_what_the_model_wrote(tmp_path: Path, teacher: str) -> None:
    """Planning and preparing want the explained set, and then no model any more."""
    model = tmp_path / "teacher"
    model.symlink_to(teacher, target_is_directory=True)
    config = taught(tmp_path, **{"explain.teacher": "local", "explain.model": str(model)})
    for early in (make_plan, prepare):
        with pytest.raises(ConfigError, match=r"has no explained set .*: python launchers/explain\.py --config"):
            early(config)
    assert not config.folder.exists()
    explained = explain_run(config, silent).explained
    before = {path.name: path.read_bytes() for path in explained.iterdir()}
    model.unlink()
    assert make_plan(config).splits["train"].num_rows == 10
    folder = prepare(config, silent)
    assert folder.config.is_file()
    assert folder.explained == explained
    assert {path.name: path.read_bytes() for path in explained.iterdir()} == before


@pytest.mark.slow
@pytest.mark.ray
def test_as_actors_on_a_ray_cluster(tmp_path: Path, teacher: str) -> None:
    """Two actors write what one process writes; what stops them is told, and the same command goes on."""
    model = shutil.copytree(teacher, tmp_path / "teacher")
    settings = {"explain.teacher": "local", "explain.model": str(model), "explain.batch_size": 2}
    alone = explain_run(taught(tmp_path, **settings, **{"run.name": "alone"}), silent)
    folder = RunFolder(taught(tmp_path, **settings, **{"explain.num_workers": 2}).folder)
    template = (model / "chat_template.jinja").read_text(encoding="utf-8")
    (model / "chat_template.jinja").write_text("{{ raise_exception('never') }}", encoding="utf-8")
    ended = explain(tmp_path)
    assert ended.returncode == 1, ended.stderr
    # Ray's own processes may have the last word.
    said = f"error: {model}: the chat template takes no conversation of the roles user, expected"
    assert ended.stderr.count(said) == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not folder.manifest.exists()
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    ended = explain(tmp_path)
    assert ended.returncode == 0, ended.stderr
    check(folder)
    for split in EXPLAINED_SPLITS:
        assert folder.rows(split).read_bytes() == alone.rows(split).read_bytes()
    shutil.rmtree(folder.path)
    ended = explain(tmp_path, "--explain.num_workers", "64")
    assert ended.returncode == 2, ended.stderr
    assert "explain.num_workers is 64, the Ray cluster has" in ended.stderr
