"""Imports go down only, and each foreign library has one importer. Read off the syntax, so nothing is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Packages and modules of clsgen_dist, from the ground up; neighbours in a layer do not import each other.
LAYERS = (
    ("errors", "records"),
    ("config", "accelerator"),
    (
        "data",
        "model",
        "objective",
        "scaling",
        "memory",
        "calibrate",
        "tracking",
        "progress",
        "integrity",
        "objects",
        "page",
        "upload",
        "claim",
        "stopping",
    ),
    ("sealed", "sources", "chat", "mirror"),
    ("bundle", "deciding"),
    ("engine", "predict", "evaluate", "explain"),
    ("train", "verbalize", "serve"),
    ("worker", "prepare", "observe", "home", "recalibrate", "assess"),
    ("orchestrate", "release"),
    ("pipeline", "planning", "launch", "summary"),
    ("compare", "submit"),
    ("manifests",),
    ("launchers",),
)
LAYER = {unit: number for number, units in enumerate(LAYERS) for unit in units}

#: Foreign library -> the only files and folders that may import it.
SOLE_IMPORTERS = {
    "ray": ("clsgen_dist/orchestrate/",),
    "deepspeed": ("clsgen_dist/engine/",),
    "mlflow": ("clsgen_dist/tracking/", "clsgen_dist/serve/"),
    "transformers": (
        "clsgen_dist/model/",
        "clsgen_dist/data/tokens.py",
        "clsgen_dist/predict/",
        "clsgen_dist/bundle.py",
        "clsgen_dist/chat/local.py",
        "clsgen_dist/chat/local_model.py",
        "clsgen_dist/engine/deepspeed.py",  # HfDeepSpeedConfig: how transformers is told to load in parts
    ),
    "llguidance": ("clsgen_dist/chat/held.py",),
    "peft": (
        "clsgen_dist/model/",
        "clsgen_dist/data/tokens.py",
        "clsgen_dist/predict/",
        "clsgen_dist/bundle.py",
    ),
}

#: What a driver or a manifest test needs is light.
LIGHT = {
    "clsgen_dist/errors.py": set[str](),
    "clsgen_dist/records.py": set[str](),
    "clsgen_dist/config/": {"pydantic", "yaml"},
}
STANDARD = {
    *("__future__", "abc", "argparse", "ast", "bisect", "collections", "contextlib", "csv", "dataclasses", "difflib"),
    *("enum", "functools", "hashlib", "io", "itertools", "json", "logging", "math", "operator", "os", "pathlib", "re"),
    *("string", "sys", "textwrap", "types", "typing", "urllib", "warnings"),
}

MAX_MODULE_LINES = 300
MAX_LAUNCHER_LINES = 40


def source_files() -> list[Path]:
    return sorted([*(ROOT / "clsgen_dist").rglob("*.py"), *(ROOT / "launchers").glob("*.py")])


def unit_of(path: str) -> str | None:
    """The package or module of a file, as `LAYERS` names it; None for clsgen_dist/__init__.py."""
    parts = Path(path).with_suffix("").parts
    if parts[0] == "launchers":
        return "launchers"
    return None if parts[1] == "__init__" else parts[1]


def imported(text: str, path: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, wherever it stands: in functions and under TYPE_CHECKING too."""
    package = Path(path).parent.parts
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) - node.level + 1],) if node.level else ()
            module = ".".join([*base, *((node.module,) if node.module else ())])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((node.lineno, str(word.value)) for word in node.args[:1] if isinstance(word, ast.Constant))


def faults(text: str, path: str) -> list[str]:
    """Every import of a file that breaks a rule.

    Args:
        text: source of the file.
        path: where it stands, relative to the repository.
    """
    own, found = unit_of(path), []
    for line, name in imported(text, path):
        top, _, rest = name.partition(".")
        place = f"{path}:{line}: {name}"
        if top in ("clsgen_dist", "launchers"):
            unit = "launchers" if top == "launchers" else rest.partition(".")[0]
            if unit in ("", "__version__") or unit == own:
                continue
            if own is None or own not in LAYER or unit not in LAYER:
                found.append(f"{place}: a package or module without a layer; name it in LAYERS")
            elif LAYER[unit] >= LAYER[own]:
                found.append(f"{place}: {own} (layer {LAYER[own]}) must not import {unit} (layer {LAYER[unit]})")
        elif top in SOLE_IMPORTERS and not path.startswith(SOLE_IMPORTERS[top]):
            found.append(f"{place}: only {', '.join(SOLE_IMPORTERS[top])} may import {top}")
        for light, allowed in LIGHT.items():
            if path.startswith(light) and top not in STANDARD | allowed | {"clsgen_dist"}:
                found.append(f"{place}: {light} imports nothing heavy")
    return found


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    limit = MAX_LAUNCHER_LINES if path.parent.name == "launchers" else MAX_MODULE_LINES
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


def test_every_module_has_a_layer() -> None:
    units = {unit_of(path.relative_to(ROOT).as_posix()) for path in source_files()} - {None}
    assert units <= LAYER.keys(), f"name them in LAYERS: {units - LAYER.keys()}"


def test_the_walk_finds_the_package() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in source_files()}
    assert {"clsgen_dist/errors.py", "clsgen_dist/config/run.py", "clsgen_dist/data/synthetic.py"} <= names


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("clsgen_dist/records.py", "import clsgen_dist.config.run"),
        ("clsgen_dist/errors.py", "from clsgen_dist import records"),
        ("clsgen_dist/data/rows.py", "from clsgen_dist.pipeline import run"),
        ("clsgen_dist/data/rows.py", "from clsgen_dist import pipeline"),
        ("clsgen_dist/data/rows.py", "def f():\n    from clsgen_dist.train import loop"),
        ("clsgen_dist/data/rows.py", "if TYPE_CHECKING:\n    from clsgen_dist.model.heads import Head"),
        ("clsgen_dist/model/heads.py", "from clsgen_dist.objective import loss"),
        ("clsgen_dist/model/heads.py", "from ..train import step"),
        ("clsgen_dist/model/heads.py", "import importlib\nimportlib.import_module('clsgen_dist.worker')"),
        ("clsgen_dist/bundle.py", "from .predict import prefill"),
        ("clsgen_dist/predict/prefill.py", "from clsgen_dist.evaluate import metrics"),
        ("clsgen_dist/evaluate/report.py", "import clsgen_dist.engine.collectives"),
        ("clsgen_dist/worker.py", "import clsgen_dist.orchestrate.ray_train"),
        ("clsgen_dist/pipeline.py", "import launchers.train"),
        ("clsgen_dist/data/rows.py", "import clsgen_dist.helpers"),
        ("clsgen_dist/helpers.py", "import clsgen_dist.errors"),
    ],
)
def test_a_planted_upward_import_is_found(path: str, text: str) -> None:
    assert len(faults(text, path)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("clsgen_dist/worker.py", "import ray"),
        ("launchers/train.py", "import ray"),
        ("clsgen_dist/train/loop.py", "from deepspeed.comm import comm"),
        ("clsgen_dist/pipeline.py", "def f():\n    import mlflow.pyfunc"),
        ("clsgen_dist/data/rows.py", "from transformers import AutoTokenizer"),
        ("clsgen_dist/engine/checkpoint.py", "import peft"),
        ("clsgen_dist/config/run.py", "import numpy"),
        ("clsgen_dist/records.py", "import yaml"),
        ("clsgen_dist/config/run.py", "def f():\n    import torch"),
    ],
)
def test_a_planted_foreign_import_is_found(path: str, text: str) -> None:
    assert len(faults(text, path)) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("clsgen_dist/data/rows.py", "import clsgen_dist\nfrom clsgen_dist import errors, __version__"),
        ("clsgen_dist/data/rows.py", "from clsgen_dist.data import splits\nfrom . import plan\nfrom .plan import deal"),
        ("clsgen_dist/data/tokens.py", "import transformers"),
        ("clsgen_dist/data/rows.py", "import raytracing, numpy"),
        ("clsgen_dist/evaluate/report.py", "from clsgen_dist import bundle\nfrom clsgen_dist.calibrate import scaling"),
        ("clsgen_dist/engine/deepspeed.py", "import deepspeed"),
        ("clsgen_dist/orchestrate/ray_train.py", "import ray.train\nfrom clsgen_dist import worker"),
        ("clsgen_dist/config/run.py", "import yaml, pydantic, json\nfrom clsgen_dist.errors import ConfigError"),
        ("launchers/train.py", "from clsgen_dist import pipeline, worker"),
    ],
)
def test_an_import_that_goes_down_is_no_fault(path: str, text: str) -> None:
    assert faults(text, path) == []
