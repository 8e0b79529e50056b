"""Words of others inside a request: between two tags that they do not hold, and without marks of chat templates."""

from __future__ import annotations

import re

#: Marks of chat templates, which a server may take for the end of the user's turn.
_TEMPLATE_MARK = re.compile(
    r"<(?=[|\uff5c])|<(?=/?(?:s|bos|eos|pad|unk|think|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)


def fenced(words: str, name: str) -> tuple[str, str, str]:
    """Two tags that do not stand in the words, and the words without marks of chat templates."""
    words = _TEMPLATE_MARK.sub(lambda match: f"{match[0]} ", words.strip())
    tag, number = name, 1
    while f"<{tag}" in words.casefold() or f"</{tag}" in words.casefold():
        number += 1
        tag = f"{name}-{number}"
    return f"<{tag}>", f"</{tag}>", words
