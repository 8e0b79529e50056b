"""The image: its Dockerfile passes the linter, and every path and command that it or a manifest uses exists."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath

import pytest
from dockerfile_parse import DockerfileParser
from pathspec import PathSpec

from clsgen_dist.manifests.objects import environment, pods_of
from tests.support.kubernetes import OVERLAYS, ROOT, overlay

DOCKERFILE = ROOT / "k8s" / "Dockerfile"
BIN = Path(sys.executable).parent


def instructions() -> list[tuple[str, str]]:
    parser = DockerfileParser(fileobj=io.BytesIO(DOCKERFILE.read_bytes()))
    return [(entry["instruction"], entry["value"]) for entry in parser.structure]


def copied() -> list[tuple[str, str]]:
    """Sources in the repository and where they go in the last stage."""
    last = max(number for number, (kind, _) in enumerate(instructions()) if kind == "FROM")
    values = [value.split() for kind, value in instructions()[last:] if kind == "COPY"]
    return [(source, words[-1]) for words in values if not words[0].startswith("--") for source in words[:-1]]


def test_linter_is_silent() -> None:
    answer = subprocess.run([str(BIN / "hadolint"), str(DOCKERFILE)], capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout) == (0, "")


def test_every_copied_path_exists_and_is_sent_to_the_builder() -> None:
    ignored = PathSpec.from_lines("gitignore", (ROOT / "k8s" / "Dockerfile.dockerignore").read_text().splitlines())
    sources = [
        source
        for kind, value in instructions()
        if kind == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    ]
    assert len(sources) >= 10
    for source in sources:
        assert (ROOT / source).exists(), source
        files = [path for path in (ROOT / source).rglob("*.*") if "__pycache__" not in path.parts]
        files = files if source.endswith("/") else [ROOT / source]
        assert files
        assert [path for path in files if ignored.match_file(path.relative_to(ROOT).as_posix())] == []
    for kept in ("data/rows.csv", "runs/demo/config.yaml", ".git/HEAD", ".venv/bin/python", "models/m.safetensors"):
        assert ignored.match_file(kept), kept


def test_every_command_of_a_step_exists() -> None:
    """Steps are sound for the shell, and use no program but those of the environment that is made and of Debian."""
    steps = [value for kind, value in instructions() if kind == "RUN"]
    assert len(steps) == 5
    for step in steps:
        assert subprocess.run(["bash", "-n", "-c", step]).returncode == 0, step
        assert set(re.findall(r"/opt/venv/bin/([\w-]+)", step)) <= {"pip", "python"}
        for word in re.findall(r"(?:^|&& )\s*([a-z]\S+)", step):
            assert word in ("case", "python") or shutil.which(word, path="/usr/sbin:/usr/bin:/bin"), word


@pytest.mark.parametrize(
    ("variant", "code", "installed"),
    [("cpu", 0, "install --no-deps -c constraints.txt --index-url INDEX torch"), ("cuda", 0, ""), ("gpu", 2, "")],
)
def test_variants(variant: str, code: int, installed: str, tmp_path: Path) -> None:
    """The step that chooses a build of torch, run with a pip that only notes what it is asked for."""
    step = next(value for kind, value in instructions() if kind == "RUN" and value.startswith("case"))
    noted = tmp_path / "noted"
    noted.touch()
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" > {noted}\n')
    pip.chmod(0o755)
    environment = {"VARIANT": variant, "CPU_TORCH_INDEX": "INDEX", "PATH": os.environ["PATH"]}
    command = ["bash", "-o", "pipefail", "-c", step.replace("/opt/venv/bin/pip", str(pip))]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == code
    assert noted.read_text().strip() == installed


def test_versions_are_pinned() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", lines, re.M)
    installs = re.findall(r"pip install (?!.*--force-reinstall)(.*)", lines)
    assert len(installs) == 2
    assert all("-c constraints.txt" in line for line in installs)
    extras = re.search(r"'\.\[(.+)\]'", lines)
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name} = \[", project, re.M) for name in extras[1].split(","))


def test_the_driver_of_the_database_is_in_the_image() -> None:
    """SQLAlchemy takes the driver by the address of the Deployment, and the extra that the image installs brings it."""
    import sqlalchemy

    container = next(pod for pod in pods_of(overlay("laptop")) if pod.place == "Deployment/mlflow").containers[0]
    engine = sqlalchemy.create_engine(environment(container)["MLFLOW_BACKEND_STORE_URI"])
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    server = re.search(r"^server = (.*)$", project, re.M)
    assert server is not None
    assert f'"{engine.dialect.driver}[' in server[1]


def test_it_runs_as_the_user_of_the_manifests() -> None:
    user = next(value for kind, value in instructions() if kind == "USER")
    folder = [value for kind, value in instructions() if kind == "WORKDIR"][-1]
    for name in OVERLAYS:
        for pod in pods_of(overlay(name)):
            if pod.place == "StatefulSet/postgres":
                continue
            context = pod.spec["securityContext"]
            assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
            assert all(container["workingDir"] == folder for container in pod.containers)


def test_every_command_of_a_manifest_is_in_the_image() -> None:
    """The program is one that a package of the image brings, and the script is among what is copied."""
    programs = {"python"} | {
        script.name for script in entry_points(group="console_scripts") if script.dist.name in _ours()
    }
    folder = [value for kind, value in instructions() if kind == "WORKDIR"][-1]
    inside = {str(PurePosixPath(folder, target, *_rest(source))) for source, target in copied()}
    commands = []
    for name in OVERLAYS:
        for pod in pods_of(overlay(name)):
            if pod.owner["kind"] == "RayJob":
                commands.append(shlex.split(pod.owner["spec"]["entrypoint"]))
            if pod.place != "StatefulSet/postgres":
                containers = [*pod.init_containers, *pod.containers]
                commands += [container["command"] for container in containers if "command" in container]
    assert len(commands) > 10
    for program, *words in commands:
        assert program in programs
        script = next((str(PurePosixPath(folder, word)) for word in words if word.endswith(".py")), None)
        if script is not None:
            assert any(PurePosixPath(script).is_relative_to(path) for path in inside), script
            assert (ROOT / PurePosixPath(script).relative_to(folder)).is_file()


def _ours() -> set[str]:
    return {"mlflow", "ray", "mlflow-skinny"}


def _rest(source: str) -> tuple[str, ...]:
    """The file's name where a file is copied into a folder; the content of a folder goes into the folder."""
    return () if source.endswith("/") else (PurePosixPath(source).name,)


def test_launchers_start_from_what_is_copied(tmp_path: Path) -> None:
    """In a folder that nobody may write to, with nothing but what the image has there."""
    for source, target in copied():
        if source.endswith("/"):
            shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / target).mkdir(exist_ok=True)
            shutil.copy(ROOT / source, tmp_path / target)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        for words in (["launchers/ray_train.py", "--help"], ["launchers/evaluate.py", "--help"]):
            answer = subprocess.run(
                [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
            )
            assert answer.returncode == 0, answer.stderr
            assert "--train.learning_rate" in answer.stdout
    finally:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize(("words", "code"), [(["--seconds=0"], 1), (["--second=0"], 2), (["--seconds=x"], 2)])
def test_waiting_ends(words: list[str], code: int) -> None:
    command = [sys.executable, str(ROOT / "k8s" / "wait_for.py"), "http://127.0.0.1:9/health", *words]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == code
