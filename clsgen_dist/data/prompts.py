"""Task and text -> the words that a model reads and writes. Knows no tokenizer."""

from __future__ import annotations

import re

from clsgen_dist.config.sections import Task
from clsgen_dist.errors import ConfigError

#: Stands for the text while a chat template is rendered around it; words that no template changes.
_TEXT_MARK = "@@clsgen-dist-text@@"


def prompt_frame(task: Task) -> str:
    """The prompt with a mark in the text's place; see `split_frame`."""
    fields = {"question": task.question, "labels": ", ".join(task.labels), "text": _TEXT_MARK}
    # In one pass, so a question that holds {text} stays as it is; not str.format: other braces are the prompt's own.
    return re.sub(r"\{(question|labels|text)\}", lambda match: fields[match[1]], task.prompt_template)


def split_frame(frame: str) -> tuple[str, str]:
    """What stands before and after the text in a rendered frame. Raises ConfigError for one without, or with two."""
    before, mark, after = frame.partition(_TEXT_MARK)
    if not mark or _TEXT_MARK in after:
        raise ConfigError(
            f"model.name_or_path: the tokenizer's chat template {'doubles' if mark else 'loses'} the prompt; expected one "
            "that holds each turn once"
        )
    return before, after


def verdict(task: Task, label: int) -> str:
    """The words with which the generated part opens for a label."""
    return task.verdict_template.replace("{label}", task.labels[label])


def split_verdict(task: Task, generated: str) -> tuple[int | None, str]:
    """The label whose verdict opens a generated text, or None where none does, and the words after it.

    Case and leading space are ignored. Where one verdict begins with another, the longer one is read.
    """
    text = generated.strip()
    opening = {k: verdict(task, k).strip() for k in range(len(task.labels))}
    fitting = [k for k, words in opening.items() if text.casefold().startswith(words.casefold())]
    label = max(fitting, key=lambda k: len(opening[k]), default=None)
    # casefold may change the number of characters, so the words are cut off where the folded opening ends.
    return label, text if label is None else _after(text, opening[label]).strip()


def _after(text: str, opening: str) -> str:
    end = next(n for n in range(len(text) + 1) if text[:n].casefold().startswith(opening.casefold()))
    return text[end:]
