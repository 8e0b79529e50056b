"""Traits of a text by which calibration is looked at: length, readability, negation, hedging; and of an answer: region.

Shape legend: N rows, K labels, F features of a text.

Readability, negation and hedging are made for English: syllables are those of an English dictionary, and the cues are
English words. In other languages the first is a number without meaning and the other two find next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from textstat import textstat

FloatArray = npt.NDArray[np.float64]

#: Columns of `features_of`.
FEATURES = ("num_words", "reading_ease", "num_negations", "num_hedges")

#: Values of the trait region, from the surest on: name, smallest confidence.
REGIONS = (("high (0.9 or more)", 0.9), ("middle (0.6 to 0.9)", 0.6), ("low (below 0.6)", 0.0))

#: How far below a region's edge a confidence still counts as on it: 0.9 said, after some arithmetic.
EDGE_TOLERANCE = 1e-9

#: Value of readability and length where a text has no word.
NO_WORDS = "no words"

#: A number after "no" makes it short for number.
_NEGATION = re.compile(
    r"""
    \bno\b(?!\.?\s*\d) | \b(?:not|never|none|nobody|nothing|nowhere|neither|nor|without|cannot)\b | n['\u2019]t\b
    | \b(?:den(?:y|ies|ied|ying)|lack(?:s|ed|ing)?|absen(?:t|ce)|fail(?:s|ed|ing)?\s+to|unable\s+to)\b
    | \b(?:negative\s+for|free\s+of|rul(?:e|es|ed|ing)\s+out)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)

#: May beside a number, or after "in", is a month.
_HEDGE = re.compile(
    r"""
    (?<!\d\s)(?<!\bin\s)\bmay\b(?!\s+\d) | \b(?:might|could|perhaps|maybe|whether)\b
    | \b(?:possib(?:le|ly|ility|ilities)|probabl[ey]|(?:un)?likely|likelihood|potential(?:ly)?|apparent(?:ly)?)\b
    | \b(?:seem(?:s|ed|ing(?:ly)?)?|appear(?:s|ed)?\s+to|suggest(?:s|ed|ing|ive)?|presum(?:e|es|ed|ably|ptive))\b
    | \b(?:suspect(?:s|ed)?|suspici(?:on|ous)|assum(?:e|es|ed|ing|ption)|believ(?:e|es|ed))\b
    | \b(?:unclear|uncertain(?:ty|ties)?|unsure|not\s+sure|questionable|doubt(?:s|ful)?|consistent\s+with)\b
    | \bcan(?:not|['\u2019]t)\s+(?:be\s+)?(?:exclude|rule)d?\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def num_words(text: str) -> int:
    """Words between spaces that hold more than punctuation."""
    return int(textstat.lexicon_count(text))


def reading_ease(text: str) -> float:
    """Flesch reading ease, 206.835 - 1.015 words/sentences - 84.6 syllables/words: higher is easier, for English.

    About 0 to 100 for prose, without bounds; NaN where there is no word. It knows nothing of sense: a single word
    repeated fifty times may score as easy. Sentences of one or two words do not count as sentences.

    Source: Flesch 1948; syllables from the CMU pronouncing dictionary, by hyphenation where a word is not in it.
    """
    return float(textstat.flesch_reading_ease(text)) if num_words(text) else float("nan")


def grade_level(text: str) -> float:
    """Flesch-Kincaid grade, 0.39 words/sentences + 11.8 syllables/words - 15.59: years of school, for English.

    Counts as `reading_ease` counts; NaN where there is no word.

    Source: Kincaid et al. 1975.
    """
    return float(textstat.flesch_kincaid_grade(text)) if num_words(text) else float("nan")


def num_negations(text: str) -> int:
    """English words and phrases that negate: "no", "not", "without", "denies", "ruled out".

    A count of cues, without their scope: whether what is negated bears on the label is not asked. "No. 5" is none.

    Source: cues after NegEx (Chapman et al. 2001, Journal of Biomedical Informatics 34), a selection.
    """
    return len(_NEGATION.findall(text))


def num_hedges(text: str) -> int:
    """English words and phrases of doubt: "may", "possibly", "suggests", "cannot be excluded".

    A count of cues, without their scope. "5 May" and "in May" are none.

    Source: cues after the speculation of BioScope (Vincze et al. 2008, BMC Bioinformatics 9), a selection.
    """
    return len(_HEDGE.findall(text))


def features_of(texts: Sequence[str]) -> FloatArray:
    """What is counted of each text.

    Returns:
        features_NF: float64, columns as `FEATURES`; reading_ease is NaN where a text has no word.
    """
    rows = [(num_words(text), reading_ease(text), num_negations(text), num_hedges(text)) for text in texts]
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))


def traits_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """The traits of each text, as names of subgroups.

    Terciles are those of the texts given: short here may be long elsewhere, so the names hold their bounds. Texts with
    equal numbers are never parted, so terciles are uneven where many are equal, and one or two of them may be empty.

    Returns:
        length, readability (terciles), negation, hedging (with or without): a value for each text.
    """
    words_N, ease_N, negations_N, hedges_N = features_of(texts).T
    return {
        "length": _terciles(np.where(words_N > 0, words_N, np.nan), ("short", "middle", "long"), "words", 0),
        "readability": _terciles(ease_N, ("hard", "middle", "easy"), "reading ease", 1),
        "negation": ["with negation" if found else "without negation" for found in negations_N],
        "hedging": ["with hedging" if found else "without hedging" for found in hedges_N],
    }


def region_of(probabilities_NK: npt.ArrayLike) -> list[str]:
    """The region of confidence of each row: the largest probability is high, middle or low, as `REGIONS`."""
    probabilities_NK = np.asarray(probabilities_NK, dtype=np.float64)
    assert probabilities_NK.ndim == 2, f"expected rows by labels, found shape {probabilities_NK.shape}"
    assert not np.isnan(probabilities_NK).any(), "a row without probabilities lies in no region"
    return [
        next(name for name, least in REGIONS if confidence >= least - EDGE_TOLERANCE)
        for confidence in probabilities_NK.max(axis=1)
    ]


def _terciles(value_N: FloatArray, names: tuple[str, str, str], unit: str, decimals: int) -> list[str]:
    """The third that each value lies in, with its bounds; NaN is a text without words."""
    known_N = value_N[~np.isnan(value_N)]
    if not len(known_N):
        return [NO_WORDS] * len(value_N)
    # Cuts are values that occur, and whatever equals one lies below it.
    cuts = np.quantile(known_N, [1 / 3, 2 / 3], method="inverted_cdf")
    part_N = np.searchsorted(cuts, value_N, side="left")
    parts, titles = np.unique(part_N[~np.isnan(value_N)]), {}
    for part in parts:
        inside = value_N[part_N == part]
        inside = inside[~np.isnan(inside)]
        low, high = (f"{bound:.{decimals}f}" for bound in (inside.min(), inside.max()))
        name = names[part] if len(parts) > 1 else "all"
        titles[int(part)] = f"{name} ({unit} {low if low == high else f'{low} to {high}'})"
    return [NO_WORDS if np.isnan(value) else titles[int(part)] for value, part in zip(value_N, part_N, strict=True)]
