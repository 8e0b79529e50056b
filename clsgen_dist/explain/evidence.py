"""A teacher without any language model: a linear model of words names what speaks for the label in this very text.

Shape legend: N rows, K labels, V terms of one to three words, J terms of one text.

A reason quotes the phrases that contribute most to its label under a logistic regression on TF-IDF values, and claims
no more. Rows fall into folds by a hash, and what is said of a row comes from a model that was not fitted on its fold,
so nothing leans on a memorised text. Terms and their scale are counted on all sampled rows, without their labels.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from clsgen_dist.config.sections import Task
from clsgen_dist.errors import DataError
from clsgen_dist.records import Row, RowSource

#: First and last word of a phrase, by number, both included.
_Span = tuple[int, int]

NUM_FOLDS = 5
#: Characters of a text that are looked at, and of all sampled texts together; they bound time and memory.
MAX_TEXT_CHARACTERS, MAX_SAMPLE_CHARACTERS = 20_000, 5_000_000
_MAX_TERMS, _MAX_TERM_WORDS, _MAX_PHRASE_WORDS = 50_000, 3, 8
#: Share of the strongest contribution below which a term, or a phrase, is not worth a quote.
_MIN_SHARE = 0.2

_WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+(?:['\u2019-]\w+)*")
#: What no phrase crosses: ends of sentences and lines, and quotes, so that a quoted phrase holds none itself.
_BREAK = re.compile(r'[.!?;:…\r\n"“”„«»()\[\]]')
_QUOTED = re.compile(r'"([^"]+)"')
#: Words that say nothing by themselves. Negations are none of them.
_STOP_WORDS = frozenset(
    _WORD.findall("""a about after all also am an and any are as at be been being between both but by can could did do
    does during each for from had has have he her his how i if in into is it its just me more most my of on or other our
    out over own same she should so some such than that the their them then there these they this those to too under
    until up very was we were what when where which while who whose why will with would you your s t""")
)
#: Quoted with the phrase that follows: "no fever", never "fever".
_NEGATIONS = frozenset(("no", "not", "never", "without", "nor", "neither", "denies"))

#: How reasons are put: the strongest phrases, further ones, or any where the model itself gives another label.
_STRONGEST = (
    "The wording {phrases} speaks most for {label}.",
    "What speaks most for {label} here is the wording {phrases}.",
    "It is above all the wording {phrases} that points to {label}.",
    "Of all that is said, the wording {phrases} counts most towards {label}.",
    "Mainly because of {phrases}, the text leans towards {label}.",
    "The strongest signs of {label} in these words: {phrases}.",
)
_FURTHER = (
    "Among other things, the wording {phrases} speaks for {label}.",
    "The text also says {phrases}, which points to {label}.",
    "{label} is further supported by the wording {phrases}.",
    "Among the signs of {label} are these words: {phrases}.",
)
_AGAINST = (
    "Taken as a whole the wording leans another way, yet the part {phrases} speaks for {label}.",
    "If anything in the wording supports {label}, it is {phrases}.",
    "The words alone do not settle it; what favours {label} is {phrases}.",
    "Other words pull the opposite way, but the wording {phrases} points to {label}.",
)


class _Word(NamedTuple):
    """A word: its place in the text in characters, its lower-case form, its run of words that no break divides."""

    start: int
    end: int
    form: str
    run: int


class _Linear(NamedTuple):
    """A fitted model: weights, shape (K, V), and biases, shape (K,), whose mean over the labels is zero.

    So a weight is how much more a term speaks for its label than for the mean of the others, but for the factor
    K / (K - 1) that all share. A label that no row had weighs nothing, and its bias is minus infinity.
    """

    weights_KV: np.ndarray
    biases_K: np.ndarray

    def decide(self, terms_J: np.ndarray, values_J: np.ndarray) -> int:
        return int((self.weights_KV[:, terms_J] @ values_J + self.biases_K).argmax())


class EvidenceTeacher:
    """Implements `Teacher` with a bag of words; see the module."""

    num_at_once = 1

    def __init__(self, task: Task, vectorizer: Any, whole: _Linear, folds: tuple[_Linear, ...], *, seed: int) -> None:
        """Takes a fitted TfidfVectorizer, the model of all sampled rows, and for each fold one fitted without it."""
        self._labels = [name.strip().replace('"', "'") for name in task.labels]  # a quoted name is no phrase
        self._vocabulary: dict[str, int] = vectorizer.vocabulary_
        self._idf_V: np.ndarray = vectorizer.idf_
        self._whole = whole
        self._folds = folds
        self._seed = seed

    async def answer_blind(self, row: Row) -> int | None:
        """The label that a model which was not fitted on this row gives it; None for unknown words alone."""
        _, terms_J, values_J = self._tf_idf(_terms(_words(row.text)))
        return self._folds[fold_of(row)].decide(terms_J, values_J) if len(terms_J) else None

    async def give_reason(self, row: Row, *, attempt: int, fault: str | None) -> tuple[str, str | None]:
        """Quotes phrases of the text that speak for `row.label`; "no evidence" where none does."""
        assert row.label is not None, "a reason is asked for a label"
        words = _words(row.text)
        placed = _terms(words)
        known, terms_J, values_J = self._tf_idf(placed)
        model = self._folds[fold_of(row)]
        contributions_J = values_J * model.weights_KV[row.label, terms_J]
        phrases = _phrases(words, placed, dict(zip(known, contributions_J.tolist(), strict=True)))
        if not phrases:
            return "", "no evidence"
        draw = random.Random(f"{self._seed} {row.id} {attempt}")
        start = 2 * attempt % len(phrases)
        shown = sorted(phrases[start : start + draw.choice((2, 3, 3, 4))])
        quotes = [f'"{row.text[words[first].start : words[last].end]}"' for first, last in shown]
        listed = " and ".join(part for part in (", ".join(quotes[:-1]), quotes[-1]) if part)
        agrees = model.decide(terms_J, values_J) == row.label
        template = draw.choice((_FURTHER if start else _STRONGEST) if agrees else _AGAINST)
        sentence = template.format(phrases=listed, label=self._labels[row.label])
        return sentence[0].upper() + sentence[1:], None

    async def read(self, reason: str, *, reading: int = 0) -> int | None:
        """The label that the quoted phrases speak for under the model of all rows; the label's name is not read."""
        found = {term for quote in _QUOTED.findall(reason) for term, _ in _terms(_words(quote))}
        terms_J = [self._vocabulary[term] for term in sorted(found) if term in self._vocabulary]
        sums_K = self._whole.weights_KV[:, terms_J] @ self._idf_V[terms_J]
        return int(sums_K.argmax()) if sums_K.max() > 0 else None

    async def close(self) -> None:
        """Holds nothing that must be let go."""

    def _tf_idf(self, placed: list[tuple[str, _Span]]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The known terms of a text, their numbers and their values, as TfidfVectorizer computes them."""
        counts = Counter(term for term, _ in placed if term in self._vocabulary)
        terms_J = np.array([self._vocabulary[term] for term in counts], dtype=np.int64)
        values_J = (1.0 + np.log(np.array(list(counts.values()), dtype=np.float64))) * self._idf_V[terms_J]
        return list(counts), terms_J, values_J / max(float(np.linalg.norm(values_J)), 1e-12)


def fit_evidence(rows: RowSource, task: Task, *, seed: int, max_rows: int = 50_000) -> EvidenceTeacher:
    """Fits the teacher on labelled rows. Memory does not grow with their number.

    Args:
        rows: the training rows, as a stream; rows without a label are passed over.
        task: the names of the labels.
        seed: draws the rows where there are more than are used, and the sentences.
        max_rows: rows to use, at most; fewer where their texts are long.

    Raises:
        DataError: rows of fewer than two labels, or texts without a word that could tell labels apart.
    """
    sample = _draw_sample(rows(), seed, max_rows)
    labels_N = np.array([label for _, label, _ in sample], dtype=np.int64)
    folds_N = np.array([fold for _, _, fold in sample], dtype=np.int64)
    found = np.unique(labels_N)
    if len(found) < 2:
        raise DataError(
            f"explain.teacher evidence: found {len(sample)} training rows of {len(found)} label(s), expected at least "
            "two labels; give data.train rows of each, or take another teacher"
        )
    vectorizer = TfidfVectorizer(
        analyzer=lambda text: [term for term, _ in _terms(_words(text))],
        sublinear_tf=True,
        min_df=1 if len(sample) < 100 else 2 if len(sample) < 2000 else 3,
        # What nearly every text says, as the field names of a template, speaks for nothing.
        max_df=0.95 if len(sample) >= 20 else 1.0,
        max_features=_MAX_TERMS,
    )
    try:
        values_NV = vectorizer.fit_transform([text for text, _, _ in sample])
    except ValueError:  # how scikit-learn reports an empty vocabulary
        raise DataError(
            f"explain.teacher evidence: no word that only some of {len(sample)} labelled training texts share, "
            "expected texts that differ; look at data.text_column, or take another teacher"
        ) from None
    whole = _fit_linear(values_NV, labels_N, len(task.labels))
    folds = []
    for fold in range(NUM_FOLDS):
        others_N = folds_N != fold
        # Where no other fold has some label, the model of all rows stands in, though it has seen them: one that lacks
        # the label would call every row of it wrong. A fold without rows needs no model of its own.
        usable = len(np.unique(labels_N[others_N])) == len(found) and not others_N.all()
        folds.append(_fit_linear(values_NV[others_N], labels_N[others_N], len(task.labels)) if usable else whole)
    return EvidenceTeacher(task, vectorizer, whole, tuple(folds), seed=seed)


def fold_of(row: Row) -> int:
    """Number of a row's fold, from 0; rows of one group share it. Needs no memory of other rows."""
    return _hash(row.id if row.group is None else row.group) % NUM_FOLDS


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _draw_sample(rows: Iterable[Row], seed: int, max_rows: int) -> list[tuple[str, int, int]]:
    """Text, label and fold of a uniform sample: the rows with the smallest hashes, whatever the order of the rows."""
    heap: list[tuple[int, str, str, int, int]] = []  # the largest hash on top
    num_characters = 0
    for row in rows:
        if row.label is None:
            continue
        text = row.text[:MAX_TEXT_CHARACTERS]
        heapq.heappush(heap, (-_hash(f"{seed} {row.id}"), row.id, text, row.label, fold_of(row)))
        num_characters += len(text)
        while len(heap) > max_rows or num_characters > MAX_SAMPLE_CHARACTERS:
            num_characters -= len(heapq.heappop(heap)[2])
    return [(text, label, fold) for _, _, text, label, fold in sorted(heap)]


def _fit_linear(values_NV: Any, labels_N: np.ndarray, num_labels: int) -> _Linear:
    # Balanced: a rare label is given to a text for its words, not withheld for its rarity.
    fitted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(values_NV, labels_N)
    weights, biases = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps the difference of the two alone
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    weights_KV = np.zeros((num_labels, values_NV.shape[1]))
    biases_K = np.full(num_labels, -np.inf)
    weights_KV[fitted.classes_] = weights - weights.mean(axis=0)
    biases_K[fitted.classes_] = biases - biases.mean()
    return _Linear(weights_KV, biases_K)


def _words(text: str) -> list[_Word]:
    text, words, run, end = text[:MAX_TEXT_CHARACTERS], list[_Word](), 0, 0
    for match in _WORD.finditer(text):
        run += text[end : match.start()] != " " and _BREAK.search(text, end, match.start()) is not None
        end = match.end()
        words.append(_Word(match.start(), end, match[0].lower(), run))
    return words


def _terms(words: list[_Word]) -> list[tuple[str, _Span]]:
    """Every term, as often as it stands there."""
    return [
        (" ".join(w.form for w in words[first : last + 1]), (first, last))
        for first, word in enumerate(words)
        for last in range(first, min(first + _MAX_TERM_WORDS, len(words)))
        if words[last].run == word.run
    ]


def _phrases(words: list[_Word], placed: list[tuple[str, _Span]], contributions: dict[str, float]) -> list[_Span]:
    """The phrases that speak for a label, the strongest first; none touches another one or stands in a stronger one."""
    value_of = {span: contributions.get(term, 0.0) for term, span in placed}
    first_places = {term: span for term, span in reversed(placed) if value_of[span] > 0}

    def total(start: int, end: int) -> float:
        """All that a span says, what speaks against the label too."""
        spans = [(n, last) for n in range(start, end + 1) for last in range(n, min(n + _MAX_TERM_WORDS, end + 1))]
        return sum(value_of.get(span, 0.0) for span in spans)

    kept: dict[_Span, float] = {}
    for place in sorted(first_places.values(), key=lambda span: (-value_of[span], span)):
        if value_of[place] < _MIN_SHARE * max(kept.values(), default=0.0):
            break
        if (span := _trimmed(words, *place)) is None:
            continue
        near = [other for other in kept if _touch(words, span, other)]
        joined = min(first for first, _ in [span, *near]), max(last for _, last in [span, *near])
        if joined[1] - joined[0] < _MAX_PHRASE_WORDS and total(*joined) > sum(kept[other] for other in near):
            kept = {other: score for other, score in kept.items() if other not in near} | {joined: total(*joined)}
    ranked: dict[str, _Span] = {}
    for _, (first, last) in sorted((-score, span) for span, score in kept.items()):
        form = " ".join(word.form for word in words[first : last + 1])
        if not any(f" {form} " in f" {other} " for other in ranked):
            ranked[form] = (first, last)
    return list(ranked.values())


def _trimmed(words: list[_Word], first: int, last: int) -> _Span | None:
    """A span without stop words at its ends, with a negation that stands before it; None where nothing is left."""
    if not (content := [n for n in range(first, last + 1) if words[n].form not in _STOP_WORDS]):
        return None
    first, last = content[0], content[-1]
    negated = first > 0 and words[first - 1].run == words[first].run and words[first - 1].form in _NEGATIONS
    return first - negated, last


def _touch(words: list[_Word], span: _Span, other: _Span) -> bool:
    """Whether two spans overlap, or only stop words of one run stand between them."""
    (_, end), (start, _) = sorted((span, other))
    return words[end].run == words[start].run and all(word.form in _STOP_WORDS for word in words[end + 1 : start])
