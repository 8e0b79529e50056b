"""Whether a reason can be learned from: what says that it was told the answer, and what is no readable prose.

Works on words and marks, without a model. A letter of a script that is written without spaces (Chinese, Japanese,
Thai, Lao, Khmer, Burmese) counts as a word. The set phrases of "refusal" and "told" are English ones.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

from clsgen_dist.chat.interface import ENDED_EARLY, NO_WORDS, UNREADABLY_LONG, WITHHELD
from clsgen_dist.config.explain import Checks
from clsgen_dist.config.sections import Task
from clsgen_dist.errors import ConfigError

#: Why an attempt at a reason is refused, in words. The last six are found elsewhere: by the teacher, by its second
#: reading and by the count of duplicates.
CAUSES = {
    NO_WORDS: "no words",
    "unreadable": "control or unassigned characters, marks of a chat template, wrongly decoded or too few letters",
    "refusal": "the teacher declines to answer or speaks of itself",
    "told": "says that the answer was given",
    "repeats_request": "repeats the request",
    "label_only": "names the label and gives no reason",
    "too_short": "fewer words and marks than explain.checks.min_tokens",
    "too_long": "more words and marks than explain.checks.max_tokens",
    "repetition": "says the same again and again",
    "copied": "copies the text",
    "language": "is written in another language than explain.checks.language",
    "disagrees": "the teacher itself gives another label",
    "unconvincing": "a reader without the text finds another label in it, or none",
    "duplicate": "nearly the same words as too many other reasons",
    ENDED_EARLY: "the answer ended at explain.max_tokens",
    WITHHELD: "the endpoint's own filter withheld the answer",
    "unwritten": "nobody wrote one",
    "no evidence": "no phrase of the text speaks for the label",
    UNREADABLY_LONG: "the text is longer than the teacher model can read",
}

_MARKS = "".join(chr(c) for c in range(0x300, 0xFFFF) if unicodedata.category(chr(c)).startswith("M"))
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTERS = rf"(?:[^\W{_UNSPACED}]|[{_MARKS}])+"
_TOKEN = re.compile(rf"[{_UNSPACED}][{_MARKS}]*|{_LETTERS}(?:['\-]{_LETTERS})*|[-+]\d+|[^\w\s]")

_REFUSALS = re.compile(
    r"^(?:i'm|i am|we are|we're)? ?(?:very |so |really )?sorry,? (?:but |i |we )|^(?:i|we) apologi[sz]e\b"
    r"|\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|\bi(?:'m| am) (?:just |only )?an? (?:ai|(?:large )?language model)\b"
    r"|\bi (?:can't|cannot|can not|won't|will not|(?:am|'m) (?:unable|not able) to|must decline to|decline to) "
    r"(?:\w+ )?(?:help|assist|comply|provide|fulfil|fulfill|answer|write|generate|continue|engage|discuss|explain)\b"
)
_ANSWER = r"(?:label|answer|verdict|classification)"
#: A phrase is excused where it stands in the text as well; with a group, where the words of the group do.
_TOLD = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:given|provided|assigned|supplied|specified|gold|ground[ -]truth) {_ANSWER}\b",
        rf"\b(?:correct|right|true|expected|intended|required) {_ANSWER} (?:is|was|must be|should be|would be|here)\b",
        rf"\b{_ANSWER} (?:that )?(?:i was|you|was|were|is|has been) (?:given|told|provided|gave|assigned|supplied)\b",
        r"\byou (?:have )?(?:told|asked|instructed|informed) (?:me|us)\b|\byou (?:said|specified|requested) that\b",
        rf"\bi (?:was|am|have been|'ve been) (?:told|informed) (?:that )?the {_ANSWER}\b",
        r"\bi (?:was|am|have been|'ve been) (?:told|asked|instructed) to (?:say|explain|justify|answer|give|write)\b",
        r"\bas (?:\w+ )?(?:in|by|per) (?:the|your|this) (?P<of>prompt|instruction|request)s?\b",
        r"\b(?:according to|as per|based on) (?:the|your|my|these) (?P<of>prompt|instruction)s?\b",
        r"\b(?:the|your|this) (?P<of>prompt) (?:says|states|asks|asked|tells|told|gives|gave|requires|specifies)\b",
    )
)
#: The frame of a request, which weak models go on writing.
_FRAME = re.compile(
    r"</?(?:text|reason)(?:-\d+)?>|\bpossible labels are\b|\blabel of (?:this|the) (?:text|question|reason)\b"
)
_FUNCTION_WORDS = frozenset(
    _TOKEN.findall(
        "a an and are as at be because been both but by can could did do does for from had has have he hence her here "
        "his i if in into is it it's its just must no none not of on only or other our per should she so than that the "
        "their them then there therefore these they this those thus to true false was we were what which who why will "
        "with would yes you your answer label verdict classification category class choice correct right clear clearly "
        "decision"
    )
)
_REQUEST_RUN_WORDS = 8
_REQUEST_RUN_CHARACTERS = 30
_LOOP = re.compile(r"([^\s\d].{0,19}?)\1{7,}")
_TEMPLATE_MARKS = re.compile(
    r"<[|\uff5c]|[|\uff5c]>|</?(?:think|s|bos|eos|start_of_turn|end_of_turn)>|\[/?INST\]", re.I
)
_WRONGLY_DECODED = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac|\u00ef\u00bf\u00bd|\ufffd")
_MIN_LETTER_SHARE = 0.4
#: The language of fewer bytes, or below this confidence, is not judged.
_LANGUAGE_BYTES = 60
_LANGUAGE_CONFIDENCE = 0.9


def tokens_of(text: str) -> list[str]:
    """Words and marks in their order, in lower case and compatibility form."""
    return _TOKEN.findall(_plain(text))


def words_of(text: str) -> list[str]:
    """The words among the tokens."""
    return [token for token in tokens_of(text) if is_word(token)]


def is_word(token: str) -> bool:
    """Whether a token is a word and no mark."""
    return len(token) > 1 or token.isalnum()


class Checker:
    """Finds what is wrong with reasons of one task."""

    def __init__(self, task: Task, checks: Checks, *, request: str = "") -> None:
        """Prepares the checks that are switched on.

        Args:
            task: its question may not be repeated as a question, its labels are no reasons.
            checks: settings.
            request: what the teacher is asked, without question, labels and text; see `prompts.request_words`.

        Raises:
            ConfigError: `checks.language` is unknown.
        """
        self._checks = checks
        self._labels = sorted((words_of(name) for name in task.labels), key=len, reverse=True)
        self._question = _spaced(tokens_of(task.question)) if task.question.rstrip().endswith("?") else None
        self._question_stems = {_stem(word) for word in words_of(task.question)}
        self._request = _spaced(words_of(request))
        names = "|".join(re.escape(_fold(name)) for name in sorted(task.labels, key=len, reverse=True))
        self._labelled = re.compile(
            rf"\blabel(?:l?ed)? (?:as |is |of |was )?[\"'*]*(?:{names})[\"'*]*(?= because| since|[.,;:!)]|$)"
        )
        self._identifier: Any = None
        if checks.form and checks.language is not None:
            self._identifier = _language_identifier(checks.language)

    def fault_of(self, reason: str, *, text: str) -> str | None:
        """The first cause, a key of CAUSES, why a reason is refused; None where it passes.

        A reason without words is refused whatever the settings.

        Args:
            reason: words that argue for the row's label.
            text: the row's text.
        """
        if not words_of(reason):
            return NO_WORDS if not reason.strip() else "unreadable"
        found = self._leak(reason, text) if self._checks.leak else None
        return found or (self._form(reason, text) if self._checks.form else None)

    def _leak(self, reason: str, text: str) -> str | None:
        folded, folded_text = _fold(reason), _fold(text)
        refused = _REFUSALS.search(folded)
        if refused is not None and refused[0] not in folded_text:
            return "refusal"
        for pattern in (*_TOLD, self._labelled):
            for match in pattern.finditer(folded):
                if (match.groupdict().get("of") or match[0]) not in folded_text:
                    return "told"
        frame = _FRAME.search(folded)
        if self._repeats_request(reason) or (frame is not None and frame[0] not in folded_text):
            return "repeats_request"
        return "label_only" if self._only_names_label(reason) else None

    def _form(self, reason: str, text: str) -> str | None:
        checks = self._checks
        if not _readable(reason):
            return "unreadable"
        num_tokens = len(tokens_of(reason))
        if num_tokens < checks.min_tokens:
            return "too_short"
        words = words_of(reason)
        if _repeated_share(words) > checks.max_repeated_share or _LOOP.search(_fold(reason)):
            return "repetition"
        if num_tokens > checks.max_tokens:
            return "too_long"
        if _copied_share(words, words_of(text)) > checks.max_copied_share:
            return "copied"
        if self._identifier is not None and len(reason.encode("utf-8", "replace")) >= _LANGUAGE_BYTES:
            language, confidence = self._identifier.classify(reason)
            if language != checks.language and confidence >= _LANGUAGE_CONFIDENCE:
                return "language"
        return None

    def _repeats_request(self, reason: str) -> bool:
        # The question's words in a statement are how one answers it; only as a question they are an echo.
        if self._question is not None and self._question in _spaced(tokens_of(reason)):
            return True
        runs = map(_spaced, _runs(words_of(reason), _REQUEST_RUN_WORDS))
        return any(len(run) >= _REQUEST_RUN_CHARACTERS and run in self._request for run in runs)

    def _only_names_label(self, reason: str) -> bool:
        """Whether next to nothing is left without label names, words of the question and words that carry no sense."""
        tokens = tokens_of(reason)
        named, weight, place = False, 0.0, 0
        while place < len(tokens):
            name = next((n for n in self._labels if n and tokens[place : place + len(n)] == n), None)
            if name is not None:
                place += len(name)
                # "no" is a label in "the answer is no." and none in "no fever".
                ends = place == len(tokens) or not is_word(tokens[place])
                named |= ends or name[0] not in _FUNCTION_WORDS
                continue
            token = tokens[place]
            place += 1
            if is_word(token) and token not in _FUNCTION_WORDS and _stem(token) not in self._question_stems:
                weight += 0.5 if re.match(f"[{_UNSPACED}]", token) else 1.0
        return weight < (3 if named else 1)


def _plain(text: str) -> str:
    """Lower case, compatibility form, typewriter apostrophes, quotes and hyphens."""
    return (
        unicodedata.normalize("NFKC", text).casefold().translate({0x2019: "'", 0x2010: "-", 0x201C: '"', 0x201D: '"'})
    )


def _fold(text: str) -> str:
    return " ".join(_plain(text).split())


def _spaced(tokens: list[str]) -> str:
    """Tokens as one string in which whole runs of them can be looked up."""
    return f" {' '.join(tokens)} "


def _runs(words: list[str], length: int) -> list[list[str]]:
    return [words[start : start + length] for start in range(len(words) - length + 1)]


def _stem(word: str) -> str:
    return re.sub(r"(?<=\w{3})(?:e?s|ed|ing)$", "", word)


def _repeated_share(words: list[str]) -> float:
    runs = [tuple(run) for run in _runs(words, 4)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _copied_share(words: list[str], text_words: list[str]) -> float:
    runs, text = _runs(words, 8), _spaced(text_words)
    return sum(_spaced(run) in text for run in runs) / len(runs) if runs else 0.0


def _readable(reason: str) -> bool:
    characters = [c for c in reason if not c.isspace()]
    categories = [unicodedata.category(c) for c in characters]
    if {"Cc", "Cn", "Co", "Cs"} & set(categories):
        return False
    if _TEMPLATE_MARKS.search(reason) or _WRONGLY_DECODED.search(reason):
        return False
    return sum(category[0] in "LM" for category in categories) >= _MIN_LETTER_SHARE * len(characters)


@functools.cache
def _language_identifier(language: str) -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # a model of some MB, and seldom needed

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if language not in identifier.labels:
        raise ConfigError(
            f"explain.checks.language: found {language!r}, a language that cannot be told apart; expected one of "
            f"{', '.join(sorted(code for code in identifier.labels if len(code) == 2))}"
        )
    return identifier
