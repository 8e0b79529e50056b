"""Texts without the words that name a label, so that what is left must argue for it.

A name is hidden in its forms ("contradiction", "contradicts", "non-contradictory") together with a negation right
before it, or "not urgent" would tell "urgent" from "routine" by its "not". Names that are ordinary words, as "no", are
hidden only where they stand by themselves: "no fever" is evidence, "the answer is no" is none. Negations and words
without sense are those of English; in other languages names are hidden as they are.
"""

from __future__ import annotations

import re
import unicodedata

from clsgen_dist.config.sections import Task

_WORD = re.compile(r"\w+(?:'\w+)*")

#: Names that stand in any prose.
_ORDINARY = frozenset(
    _WORD.findall("a all any different false i it no none not nothing never other right same so true wrong")
)

#: What follows a name that stands by itself, beside marks and the end.
_CLAUSE_STARTS = "and|as|because|but|for|given|hence|or|since|so|therefore|thus"

#: A negation that ends right before a name, in its place or with a word between.
_NEGATION = (
    r"(?:\b(?:not|no|non|never|neither|nor|without|cannot|\w+n't)[\s-]+(?:(?:an?|any|the|be|been|being|in)\s+)?)?"
)
_PREFIX = "(?:non-?|un|in|im|ir|dis|mis)?"

#: Endings under which forms of one word differ, the longest first.
_ENDINGS = re.compile(
    r"(?:ations?|ments?|ional|ions?|ories|ory|ively|ive|ness|ities|ity|ally|als?|ably|ably|able|ably|edly|ed|ings?|"
    r"ies|es|ers?|ors?|ly|s|e|y)$"
)
#: Letters of a stem, at least, before whatever begins with it counts as a form of the name.
_STEM_LETTERS = 5
_FORMS = "(?:s|es|ed|d|ing|ly|ness)?"

#: Scripts that are written without spaces, so that a word has no bounds.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"

#: Words that say nothing for a label by themselves: with these alone, a text gives no reason.
_EMPTY = frozenset(
    _WORD.findall(
        "a an and are as at be because been but by can could did do does for from had has have he her here his i if in "
        "into is isn't it it's its just must no none not of on only or our she should so than that the their then "
        "there therefore these they this those thus to true false was wasn't we were what which who why will with "
        "would yes you your answer label verdict classification category class choice correct right wrong decision "
        "reason explanation conclusion clear clearly obvious obviously certain certainly definite definitely sure "
        "surely indeed simply really very unclear s t"
    )
)


class LabelMask:
    """Hides the label names and the verdict's words of one task."""

    def __init__(self, task: Task) -> None:
        """Takes the labels and the verdict template of a task."""
        names = sorted({fold(name.replace("_", " ")) for name in task.labels}, key=len, reverse=True)
        self._names = re.compile("|".join(_pattern(name, names) for name in names))
        words = _WORD.findall(fold(task.verdict_template.replace("{label}", " ")))
        self._template = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words) or r"(?!)")

    def hide(self, text: str) -> str:
        """The text in lower case and compatibility form, with a space where hidden words stood."""
        return self._template.sub(" ", self._names.sub(" ", fold(text.replace("_", " "))))


def says_something(hidden: str) -> bool:
    """Whether a text, its label words hidden, holds a word that could be a reason."""
    return any(word not in _EMPTY for word in _WORD.findall(hidden))


def fold(text: str) -> str:
    """Lower case, compatibility form, typewriter apostrophes and hyphens, single spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate({0x2019: "'", 0x2010: "-"})
    return " ".join(plain.split())


def _pattern(name: str, names: list[str]) -> str:
    spaced = r"[\s-]+".join(map(re.escape, name.split()))
    if re.search(f"[{UNSPACED}]", name):
        return spaced
    if name in _ORDINARY or len(name) < 3:
        others = "|".join(re.escape(other) for other in names)
        ends = rf"(?:\s*(?:$|(?![.,]\d)[^\w\s'-])|\s+(?:{_CLAUSE_STARTS}|{others})\b)"
        return rf"{_NEGATION}(?<![\w'-])(?<!\d[.,]){spaced}(?={ends})"
    if not name.isalpha():
        return rf"{_NEGATION}(?<!\w){spaced}s?(?!\w)"
    stem = _ENDINGS.sub("", name)
    forms = rf"{re.escape(stem)}\w*" if len(stem) >= _STEM_LETTERS else rf"{spaced}{_FORMS}"
    return rf"{_NEGATION}\b{_PREFIX}{forms}\b"
