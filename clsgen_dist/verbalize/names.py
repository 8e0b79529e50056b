"""Finds the names of labels in what a model wrote, whatever quotes, emphasis or case it gave them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from clsgen_dist.errors import ConfigError

#: Quotes, emphasis and escapes, as the inside of a character class.
MARKS = "*_\"'`\\\\\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"
#: A longer word is never looked up.
_MAX_LETTERS = 1000
_SPACES = re.compile(r"[\s_]+")
_HYPHEN = re.compile(r"(?<=[^\W_])[\u2010-\u2015-](?=[^\W_])")
_PREFIX = re.compile(r"^(?:p|pr|prob|probability|likelihood)(?: of (?=\S)| ?\( ?| (?=\S))")
_SUFFIX = re.compile(r" (?:probability|likelihood|percentage|percent|\(?%\)?)$")
_ANNOTATION = re.compile(
    r"\b(?:confidence|confident|certain|certainty|uncertainty|sure|sum|total|overall|score|step|accuracy|threshold"
    r"|version|probability|probabilities|likelihood|answer|choice|label|note|rating|temperature)\b"
)


class Names:
    """The names of K labels, and the ways in which a model writes them.

    A name is looked up as it stands, then without regard to case and outer space, then without quotes, emphasis,
    underscores and hyphens between letters, then without "P(...)" or "... probability" around it. At each step a
    name that two labels share is nobody's.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        """Prepare the look-ups.

        Raises:
            ConfigError: fewer than two labels, a blank one, or two that differ by case and outer space only.
        """
        folded = [_folded(name) for name in labels]
        if len(labels) < 2 or not all(folded) or len(set(folded)) < len(folded):
            raise ConfigError(
                f"task.labels: found {list(labels)}, expected two or more names that differ by more than case and space"
            )
        self.num_labels = len(labels)
        self._exact = {name: number for number, name in enumerate(labels)}
        self._folded = {name: number for number, name in enumerate(folded)}
        self._loose = _unshared([_loose(name) for name in labels])
        self.pattern = _pattern(labels)

    def find(self, words: str) -> int | None:
        """Number of the label that the words name and nothing else; None where there is none, or more than one."""
        if len(words) > _MAX_LETTERS:
            return None
        for names, key in ((self._exact, words), (self._folded, _folded(words)), (self._loose, _loose(words))):
            if key in names:
                return names[key]
        bare = _SUFFIX.sub("", _PREFIX.sub("", loose := _loose(words)))
        if loose.endswith(")") and "(" in loose:
            bare = bare.removesuffix(")")
        return self._loose.get(_loose(bare)) if bare != loose else None


def is_annotation(key: str) -> bool:
    """Whether a number with such a name speaks of the answer as a whole, as "confidence" or "total" does."""
    return _ANNOTATION.search(_loose(key[:_MAX_LETTERS])) is not None


def _folded(name: str) -> str:
    return name.strip().casefold()


def _loose(name: str) -> str:
    words = unicodedata.normalize("NFKC", name).casefold().replace("\\", "")
    return _HYPHEN.sub(" ", _SPACES.sub(" ", words)).strip(f" {MARKS}")


def _unshared(names: list[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names) if name and names.count(name) == 1}


def _pattern(labels: Sequence[str]) -> str:
    """A pattern that matches any of the names where a line may hold it: longest first, as one may begin another."""
    forms = {form for name in labels for form in _forms(name.strip())}
    return "|".join(_escaped(form) for form in sorted(forms, key=lambda form: (-len(form), form)))


def _forms(name: str) -> set[str]:
    return {name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)}


def _escaped(form: str) -> str:
    parts = re.split(r"(?<=[^\W_])([\s_]+|[\u2010-\u2015-])(?=[^\W_])", form)
    words = [re.escape(part) for part in parts[::2]]
    # A word goes on through letters and digits: "no" is not found in "normal", nor "1" in "10".
    return r"[\s_\\\u2010-\u2015-]{1,2}".join(words) + (r"(?![^\W_])" if form[-1].isalnum() else "")
