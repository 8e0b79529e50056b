"""The general text: passages of the promised size, each of its own, and none of them a note."""

from __future__ import annotations

import tomllib
from pathlib import Path

from clsgen_dist.evaluate.general_text import GENERAL_TEXT, general_passages

ROOT = Path(__file__).parents[3]


def test_passages_have_the_promised_size() -> None:
    passages = general_passages()
    sizes = [len(words.split()) for _, words in passages]
    assert len(passages) == 32
    assert 120 <= min(sizes) <= max(sizes) <= 200
    assert 4000 <= sum(sizes) <= 6000


def test_passages_are_distinct_paragraphs_without_the_note_on_top() -> None:
    passages = general_passages()
    assert len({name for name, _ in passages}) == len({words for _, words in passages}) == len(passages)
    assert not any("\n" in words or "#" in words for _, words in passages)
    assert passages[0][0] == "passage 01"
    assert passages[0][1].startswith("The storm that crossed")
    assert passages[-1][1].endswith("in August.")


def test_the_text_is_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["clsgen_dist"]
    assert GENERAL_TEXT.relative_to(ROOT / "clsgen_dist").as_posix() in patterns
