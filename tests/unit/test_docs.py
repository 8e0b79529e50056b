"""What the documentation shows can be used as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clsgen_dist.config.run import load_config, settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "k8s").glob("*.md")])
BLOCKS = [
    (page.name, number, block)
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]


@pytest.mark.parametrize(("page", "number", "block"), BLOCKS, ids=[f"{page}-{n}" for page, n, _ in BLOCKS])
def test_configurations_load(
    page: str, number: int, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "run.yaml").write_text(block, encoding="utf-8")
    load_config(tmp_path / "run.yaml")


def test_there_are_configurations_to_load() -> None:
    assert {page for page, _, _ in BLOCKS} >= {"README.md", "data.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {name for name, _ in settings()}
    sections = {name.partition(".")[0] for name in known}
    named = re.findall(r"`(?:--)?([a-z_]+(?:\.[a-z_]+)+)`", page.read_text(encoding="utf-8"))
    unknown = [name for name in named if name.partition(".")[0] in sections and name not in known]
    assert [name for name in unknown if not re.search(r"\.(py|json|yaml|md|jsonl|parquet|sh)$", name)] == []


def test_ray_start_is_as_ray_has_it() -> None:
    """The commands of docs/ray.md are read by Ray's own command line."""
    from ray.scripts.scripts import start

    page = (ROOT / "docs" / "ray.md").read_text(encoding="utf-8")
    commands = [line.split()[2:] for line in re.findall(r"^    (ray start .*)$", page, re.M)]
    assert len(commands) == 2
    for words in commands:
        start.make_context("ray start", words)
