"""What a judge answers, by the words that it is shown: a label, that it is unclear, or too much."""

from __future__ import annotations

from typing import Any


def answer(messages: list[dict[str, Any]], seed: int) -> str:
    """Says "**Yes.**" for fever, "no" for calm, "unclear" for nothing, a whole sentence for rambling."""
    content = str(messages[-1]["content"])
    words = content.partition("\n<explanation>\n")[2].partition("\n</explanation>\n")[0]
    if "rambling" in words:
        return "It depends on how one looks at it."
    return "**Yes.**" if "fever" in words else "no" if "calm" in words else "unclear"
