"""General English prose, to measure what a fine-tuned model still knows of language beside its task."""

from __future__ import annotations

from pathlib import Path

#: About 5,600 words in 32 passages of many kinds: news, letters, stories, science, law, history, sport, cooking.
GENERAL_TEXT = Path(__file__).with_name("general_text.txt")


def general_passages() -> list[tuple[str, str]]:
    """Name and words of each passage, in the order of the file; each is one paragraph of 120 to 200 words."""
    lines = GENERAL_TEXT.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    passages = [passage.strip() for passage in text.split("\n\n") if passage.strip()]
    return [(f"passage {number:02d}", passage) for number, passage in enumerate(passages, start=1)]
