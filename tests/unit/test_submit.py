"""A job for a Ray cluster: what is uploaded, what of the environment goes along, what is refused before."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from clsgen_dist.config.passed_on import TO_WORKERS, is_secret, job_environment
from clsgen_dist.errors import ConfigError
from clsgen_dist.submit import job_command, submit_request
from clsgen_dist.upload import RAY_EXCLUDES, check_upload, survey_upload
from tests.support.tiny import ROOT

ADDRESS = ["--address", "http://head:8265"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with everything beside it that must not be sent."""
    files = {
        ".git/objects/pack": 5000,
        ".venv/bin/python": 5000,
        "data/rows.csv": 5000,
        "runs/demo/bundle/adapter.safetensors": 5000,
        "models/big/model.safetensors": 5000,
        "tests/test_a.py": 10,
        "clsgen_dist/__init__.py": 10,
        "clsgen_dist/data/rows.py": 10,  # source, whose folder has the name of one that is left out
        "clsgen_dist/__pycache__/rows.pyc": 10,
        "launchers/ray_train.py": 10,
        ".env": 10,
        "notes/deep/.gitignore": 0,
        "notes/deep/kept.txt": 10,
        "notes/deep/left.log": 10,
    }
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "notes/deep/.gitignore").write_text("*.log\n")
    (tmp_path / "examples").mkdir()
    text = (ROOT / "examples" / "demo.yaml").read_text()
    (tmp_path / "examples/demo.yaml").write_text(text.replace("name: demo", "name: demo\n  output_dir: /shared/runs"))
    shutil.copytree(ROOT / "ds_configs", tmp_path / "ds_configs")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_what_is_uploaded(checkout: Path) -> None:
    files = survey_upload(checkout).files
    assert {name for name in files if not name.startswith(("ds_configs/", ".gitignore", ".rayignore"))} == {
        *("clsgen_dist/__init__.py", "clsgen_dist/data/rows.py", "launchers/ray_train.py", "examples/demo.yaml"),
        *("notes/deep/.gitignore", "notes/deep/kept.txt"),
    }


@pytest.mark.ray
def test_ray_packs_the_same_files(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    assert tuple(ray_constants.get_runtime_env_default_excludes()) == RAY_EXCLUDES
    target = tmp_path_factory.mktemp("packed") / "package.zip"
    create_package(str(checkout), target, include_gitignore=True, excludes=list(RAY_EXCLUDES))
    with zipfile.ZipFile(target) as packed:
        files = {entry.filename: entry.file_size for entry in packed.infolist() if not entry.is_dir()}
    assert files == survey_upload(checkout).files


def test_this_checkout_is_small() -> None:
    upload = survey_upload(ROOT)
    assert {"launchers/ray_train.py", "clsgen_dist/data/rows.py", "ds_configs/zero3_bf16.json"} <= upload.files.keys()
    assert not [name for name in upload.files if name.startswith((".git/", "data/", "runs/", "models/", "tests/"))]
    check_upload(upload, most_mib=5)


def test_too_much_is_refused_with_the_largest_by_name(checkout: Path) -> None:
    (checkout / "rows.jsonl").write_bytes(b"x" * 3 * 2**20)
    with pytest.raises(
        ConfigError, match=r"3\.0 MiB in 1\d files .* expected 2 MiB at most; the largest: rows.jsonl 3"
    ):
        submit_request([*ADDRESS, "--config", str(checkout / "examples/demo.yaml"), "--max-upload-mib", "2"], checkout)
    (checkout / ".rayignore").write_text("/rows.jsonl\n")
    submit_request([*ADDRESS, "--config", str(checkout / "examples/demo.yaml"), "--max-upload-mib", "2"], checkout)


def test_command(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    words = [*ADDRESS, "--config", "examples/demo.yaml", "--env", "SITE", "--train.epochs", "1"]
    environment = {"SITE": "a", "HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_x", "HOME": "/root", "DS_ACCELERATOR": "cpu"}

    command = job_command(submit_request(words, checkout), checkout, environment)

    place = command.index("--runtime-env-json") + 1
    runtime = {"working_dir": str(checkout), "env_vars": {"HF_HUB_OFFLINE": "1", "SITE": "a"}}
    assert json.loads(command[place]) == runtime
    assert command[:5] == ["ray", "job", "submit", "--address", "http://head:8265"]
    own = ["--", "python", "launchers/ray_train.py", "--config", "examples/demo.yaml", "--train.epochs", "1"]
    assert command[place + 1 :] == own


def test_a_run_in_an_object_store_needs_no_folder_that_nodes_share(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    stored = ("--run.storage", "s3://runs/x", "--tracking.uri", "http://mlflow:5000")
    words = [*ADDRESS, "--config", "examples/demo.yaml", "--run.output_dir", "runs", *stored]
    assert submit_request(words, checkout).overrides[-4:] == stored


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "MLFLOW_TRACKING_PASSWORD", "aws_secret_access_key"])
def test_secrets_are_not_sent(name: str) -> None:
    with pytest.raises(ConfigError, match="stands in the Ray dashboard"):
        job_environment({name: "x"}, (name,))
    assert job_environment({name: "x"}) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "examples/demo.yaml"], "--address http://HEAD:8265 is missing"),
        ([*ADDRESS], "--config FILE.yaml is missing"),
        ([*ADDRESS, "--config", "/etc/hostname"], "--config /etc/hostname: not in"),
        ([*ADDRESS, "--config", "examples/demo.yaml", "--launcher", "rm"], "--launcher: found 'rm', expected one of"),
        ([*ADDRESS, "--config", "examples/demo.yaml", "--train.epoch", "1"], "nearest valid key is train.epochs"),
        ([*ADDRESS, "--config", "examples/demo.yaml", "--run.output_dir", "runs"], "run.output_dir runs is relative"),
        ([*ADDRESS, "--config", "data/mine.yaml"], "leaves it out of what is uploaded"),
        ([*ADDRESS, "--config", "examples/demo.yaml", "--max-upload-mib", "no"], "found 'no', expected MiB above 0"),
        (
            [*ADDRESS, "--config", "examples/demo.yaml", "--data.vignettes", "null", "--data.train", "data/rows.csv"],
            "data.train data/rows.csv is on this machine and not uploaded",
        ),
        (
            [
                *(*ADDRESS, "--config", "examples/demo.yaml", "--model.from_scratch", "null"),
                *("--model.name_or_path", "models/big"),
            ],
            "model.name_or_path models/big is on this machine and not uploaded",
        ),
    ],
)
def test_what_is_refused(words: list[str], message: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    shutil.copy(checkout / "examples/demo.yaml", checkout / "data/mine.yaml")
    with pytest.raises(ConfigError) as caught:
        submit_request(words, checkout)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("value", "is_here_alone"),
    [
        ("notes/deep/kept.txt", False),
        ("./notes/deep/kept.txt", False),
        ("notes/deep/*.txt", False),
        ("notes/deep/*", True),  # one of them is ignored
        ("../rows.csv", True),
        ("org/set:train", False),  # on the Hub
    ],
)
def test_rows_that_go_along_and_rows_that_do_not(
    value: str, is_here_alone: bool, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    (checkout.parent / "rows.csv").write_text("text,label\n", encoding="utf-8")
    words = [*ADDRESS, "--config", "examples/demo.yaml", "--data.vignettes", "null", "--data.train", value]
    if is_here_alone:
        with pytest.raises(ConfigError, match="is on this machine and not uploaded"):
            submit_request(words, checkout)
    else:
        submit_request(words, checkout)


def test_models_and_settings_go_along_as_folders_and_files(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    words = [*ADDRESS, "--config", "examples/demo.yaml", "--model.from_scratch", "null", "--model.name_or_path"]
    submit_request([*words, "notes/deep"], checkout)
    shutil.copy(checkout / "ds_configs/zero3_cpu.json", checkout / "data/mine.json")
    with pytest.raises(ConfigError, match=r"train\.deepspeed data/mine\.json is on this machine"):
        submit_request([*words, "notes/deep", "--train.deepspeed", "data/mine.json"], checkout)


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(ConfigError, match="--env SITE: there is no such variable here"):
        job_environment({}, ("SITE",))


def test_no_secret_is_on_a_list() -> None:
    assert [name for name in TO_WORKERS if is_secret(name)] == []
    assert not is_secret("TOKENIZERS_PARALLELISM")
    assert is_secret("HF_TOKEN")
