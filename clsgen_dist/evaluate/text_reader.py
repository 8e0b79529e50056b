"""A classifier of words that says which label an explanation argues for, label names hidden.

Shape legend: N training explanations, M texts, K labels, V terms.

Logistic regression on TF-IDF values of one to three words, fitted on the training explanations. It reads a text only
where it is sure enough: the margin is chosen on predictions that were made across folds of whole groups, and so is what
is said of its accuracy. A reader that is wrong in one of ten texts cannot show a kappa near 1, however good the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from clsgen_dist.calibrate.folds import deal_folds
from clsgen_dist.config.sections import Task
from clsgen_dist.evaluate.masking import UNSPACED, LabelMask, says_something
from clsgen_dist.evaluate.reading import Unavailable
from clsgen_dist.evaluate.shares import share_interval
from clsgen_dist.records import UNLABELLED, Row, group_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NUM_FOLDS = 5

#: Training explanations of each label, at least, in at least `NUM_FOLDS` groups.
MIN_EXPLANATIONS = 20

#: Right readings that a wrong one undoes, where the margin is chosen: texts are worth reading where more than four in
#: five of their kind are read rightly.
MISREAD_WEIGHT = 4

#: Inverse strength of the penalty on weights. From 1 to 10 next to nothing changes on e-SNLI and PubMedQA.
INVERSE_PENALTY = 10.0

#: Characters of all training explanations together; of more, explanations are drawn.
MAX_CHARACTERS = 5_000_000

#: Characters of one text that are looked at.
MAX_TEXT_CHARACTERS = 10_000

#: A letter of a script without spaces is a word.
_TOKEN = rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:'[^\W{UNSPACED}]+)*"


@dataclass(frozen=True)
class TextReader:
    """A fitted reader; see `fit_text_reader`.

    Attributes:
        mask: hides label words.
        vectorizer: fitted TfidfVectorizer.
        model: fitted LogisticRegression.
        num_labels: K.
        margin: how far apart the two largest probabilities of a text must be, at least, for it to be read.
        facts: margin; num_rows, explanations that it was fitted on; and across folds: accuracy on what it reads,
            accuracy_ci, and coverage, the share that it reads.
    """

    mask: LabelMask
    vectorizer: Any
    model: Any
    num_labels: int
    margin: float
    facts: Mapping[str, Any]

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Probability of each label, (M, K); labels weigh the same, so that a text without evidence lies in between."""
        return _probabilities(self.model, self.vectorizer.transform(_hidden(self.mask, texts)), self.num_labels)

    def read(self, texts: Sequence[str]) -> tuple[IntArray, Mapping[str, Any]]:
        """See `reading.Reader`. A text without a known word that could be a reason is unclear."""
        if not texts:
            return np.empty(0, dtype=np.int64), self.facts
        hidden = _hidden(self.mask, texts)
        values_MV = self.vectorizer.transform(hidden)
        label_M, margin_M = _decide(_probabilities(self.model, values_MV, self.num_labels))
        is_read_M = _readable(hidden, values_MV) & (margin_M >= self.margin)
        return np.where(is_read_M, label_M, UNLABELLED), self.facts


def fit_text_reader(rows: Iterable[Row], task: Task, *, num_bootstrap: int, seed: int) -> TextReader | Unavailable:
    """Fits a reader on explanations of training rows.

    Labels weigh the same, however many explanations each has: the commonest one is no guess. The margin is the smallest
    one at which right readings less `MISREAD_WEIGHT` times the wrong ones are most. What is said of a fold comes from a
    model that was not fitted on it and a margin that was not chosen on it. Terms and their scale are counted on all
    explanations, without their labels.

    Args:
        rows: training rows, and no others; those without label or explanation are passed over.
        task: labels and verdict template.
        num_bootstrap: resamples of groups behind the interval of the accuracy.
        seed: seed of folds, resamples and, where explanations are too many, draws.

    Returns:
        The reader, or why there is none: too few explanations, or words that do not tell labels apart.
    """
    generator = np.random.default_rng(seed)
    explained = _sample([row for row in rows if row.label is not None and row.explanation], generator)
    label_N = np.array([row.label for row in explained], dtype=np.int64)
    group_N = np.unique([group_name(row.id, row.group) for row in explained], return_inverse=True)[1].astype(np.int64)
    too_few = _shortage(label_N, group_N, task)
    if too_few is not None:
        return too_few
    mask = LabelMask(task)
    hidden = _hidden(mask, [row.explanation or "" for row in explained])
    vectorizer = TfidfVectorizer(token_pattern=_TOKEN, ngram_range=(1, 3), sublinear_tf=True, min_df=2)
    try:
        values_NV = vectorizer.fit_transform(hidden)
    except ValueError:  # how scikit-learn reports an empty vocabulary
        return Unavailable(f"no word beside label names stands in two of {len(hidden)} training explanations")
    fold_N = deal_folds(label_N, group_N, num_folds=NUM_FOLDS, generator=generator)
    found_N, margin_N = _decide(_across_folds(values_NV, label_N, fold_N, len(task.labels)))
    right_N, readable_N = found_N == label_N, _readable(hidden, values_NV)
    is_read_N = np.zeros(len(label_N), dtype=np.bool_)
    for fold in range(NUM_FOLDS):
        others_N, own_N = readable_N & (fold_N != fold), readable_N & (fold_N == fold)
        is_read_N[own_N] = margin_N[own_N] >= choose_margin(margin_N[others_N], right_N[others_N])
    margin = choose_margin(margin_N[readable_N], right_N[readable_N])
    hit_N = is_read_N & right_N
    interval = share_interval(hit_N, is_read_N, group_N, num_bootstrap=num_bootstrap, seed=seed)
    if not np.isfinite(margin) or interval is None or interval[0] <= _commonest_share(label_N[is_read_N]):
        return Unavailable(
            f"the words of {len(label_N)} training explanations, label names hidden, do not tell which label they "
            f"argue for: across folds {int(hit_N.sum())} of {int(is_read_N.sum())} that seemed clear were read rightly"
        )
    facts = {
        "accuracy": float(hit_N.sum() / is_read_N.sum()),
        "accuracy_ci": interval,
        "coverage": float(is_read_N.mean()),
        "margin": margin,
        "num_rows": len(label_N),
    }
    return TextReader(mask, vectorizer, _fit(values_NV, label_N), len(task.labels), margin, facts)


def choose_margin(margin_N: FloatArray, right_N: BoolArray) -> float:
    """The smallest margin at which right readings less `MISREAD_WEIGHT` times the wrong ones are most.

    Args:
        margin_N: how far apart the two largest probabilities are.
        right_N: whether the largest one is of the right label.

    Returns:
        The margin; infinite where every one costs more than it gains, so that nothing is worth reading.
    """
    value_D, place_N = np.unique(margin_N, return_inverse=True)
    gain_D = np.bincount(place_N, weights=np.where(right_N, 1.0, -MISREAD_WEIGHT), minlength=len(value_D))
    at_or_above_D = np.cumsum(gain_D[::-1])[::-1]
    if not len(value_D) or at_or_above_D.max() <= 0:
        return float("inf")
    return float(value_D[at_or_above_D.argmax()])


def _sample(rows: list[Row], generator: np.random.Generator) -> list[Row]:
    lengths_N = np.array([min(len(row.explanation or ""), MAX_TEXT_CHARACTERS) for row in rows], dtype=np.int64)
    if lengths_N.sum() <= MAX_CHARACTERS:
        return rows
    order_N = generator.permutation(len(rows))
    drawn_N = order_N[np.cumsum(lengths_N[order_N]) <= MAX_CHARACTERS]
    return [rows[number] for number in np.sort(drawn_N)]


def _shortage(label_N: IntArray, group_N: IntArray, task: Task) -> Unavailable | None:
    for label, name in enumerate(task.labels):
        own_N = label_N == label
        num_rows, num_groups = int(own_N.sum()), len(np.unique(group_N[own_N]))
        if num_rows < MIN_EXPLANATIONS or num_groups < NUM_FOLDS:
            return Unavailable(
                f"{num_rows} training explanations of {name!r} in {num_groups} groups, expected {MIN_EXPLANATIONS} or "
                f"more of each label in {NUM_FOLDS} groups or more"
            )
    return None


def _commonest_share(label_M: IntArray) -> float:
    """How often one label, always said, would be right."""
    return float(np.bincount(label_M).max()) / len(label_M)


def _hidden(mask: LabelMask, texts: Sequence[str]) -> list[str]:
    return [mask.hide(text[:MAX_TEXT_CHARACTERS]) for text in texts]


def _readable(hidden: Sequence[str], values_MV: Any) -> BoolArray:
    num_terms_M: IntArray = np.diff(values_MV.indptr)
    return np.array([says_something(text) for text in hidden], dtype=np.bool_) & (num_terms_M > 0)


def _fit(values_NV: Any, label_N: IntArray) -> Any:
    return LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000).fit(values_NV, label_N)


def _probabilities(model: Any, values_MV: Any, num_labels: int) -> FloatArray:
    probability_MK = np.zeros((values_MV.shape[0], num_labels))
    probability_MK[:, model.classes_] = model.predict_proba(values_MV)
    return probability_MK


def _across_folds(values_NV: Any, label_N: IntArray, fold_N: IntArray, num_labels: int) -> FloatArray:
    """Probabilities of each explanation under a model that was not fitted on its fold."""
    probability_NK = np.zeros((len(label_N), num_labels))
    for fold in range(NUM_FOLDS):
        own_N = fold_N == fold
        probability_NK[own_N] = _probabilities(_fit(values_NV[~own_N], label_N[~own_N]), values_NV[own_N], num_labels)
    return probability_NK


def _decide(probability_MK: FloatArray) -> tuple[IntArray, FloatArray]:
    """Number of the likeliest label, and by how much it is likelier than the next one."""
    two_M2 = np.sort(probability_MK, axis=1)[:, -2:]
    return probability_MK.argmax(axis=1), two_M2[:, 1] - two_M2[:, 0]
