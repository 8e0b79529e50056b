"""Cuts the thinking of a reasoning model out of its answer: a model is never trained on it."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)think(?:ing)?[ \t]*>", re.IGNORECASE)


def without_thinking(text: str) -> str:
    """The words of an answer that are no thinking.

    Thinking is what stands between <think> and </think>, or <thinking> and </thinking>, in any case. Without a
    closing tag it goes on to the end. A closing tag alone ends thinking whose opening tag stood in the prompt, so all
    before it goes too. An opening tag within thinking is a word of it.

    Returns:
        The other words, stripped, as lines where thinking stood between them; empty where all is thinking.
    """
    words: list[str] = []
    start, thinks = 0, False
    for tag in _TAG.finditer(text):
        if tag[1] and not thinks:
            words.clear()
        elif not tag[1] and not thinks:
            words.append(text[start : tag.start()])
        thinks = not tag[1]
        start = tag.end()
    if not thinks:
        words.append(text[start:])
    return "\n".join(part for word in words if (part := word.strip()))
