"""The form of explanations: how readable, long, repetitive and alike they are. Whether they are right is not asked.

Shape legend: N texts.

Readability is no test of sense: "no" fifty times reads as fairly easy. Repetition, distinct n-grams, duplicates and
empty texts show such a collapse. Words lie between spaces, so of languages written without spaces nothing here is told.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from scipy.special import gammaln

from clsgen_dist.data.splits import normalised
from clsgen_dist.evaluate.traits import grade_level, num_words, reading_ease

#: Words of a run whose repetition within a text is counted.
REPEATED_RUNS = (2, 3, 4)

#: Words of a run whose variety over all texts is counted.
DISTINCT_RUNS = (1, 2, 3)

#: Runs that are drawn where variety is counted, whatever number of texts and words there is.
DISTINCT_DRAWN = 500

_OUTER_MARKS = re.compile(r"^\W+|\W+$")


def form_metrics(texts: Sequence[str], is_cut: Sequence[bool]) -> dict[str, float | int | None]:
    """Readability, length, repetition and variety of explanations.

    Args:
        texts: N explanations, without the verdict that they may open with.
        is_cut: whether each met the limit of tokens before its end.

    Returns:
        num_rows: N.
        empty_share: share of texts without a word.
        cut_share: share of texts that met the limit.
        duplicate_share: of the texts with words, the share that says exactly what another one says, case and spacing
            aside; both of a pair count.
        mean_words: words of a text, an empty one counts as 0.
        flesch_reading_ease, flesch_kincaid_grade: means over the texts with words; see `traits`.
        rep_2, rep_3, rep_4: means of `repeated_share` over the texts that are long enough.
        distinct_1, distinct_2, distinct_3: `distinct_share` of all texts.
        Each is None where there is nothing that it could be counted on.
    """
    assert len(texts) == len(is_cut), f"{len(texts)} texts, {len(is_cut)} flags"
    words = [words_of(text) for text in texts]
    spoken = [text for text in texts if num_words(text)]
    copies = Counter(normalised(text) for text in spoken)
    return {
        "num_rows": len(texts),
        "empty_share": _mean(not num_words(text) for text in texts),
        "cut_share": _mean(is_cut),
        "duplicate_share": _mean(copies[normalised(text)] > 1 for text in spoken),
        "mean_words": _mean(num_words(text) for text in texts),
        "flesch_reading_ease": _mean(map(reading_ease, spoken)),
        "flesch_kincaid_grade": _mean(map(grade_level, spoken)),
        **{f"rep_{n}": _mean(s for w in words if (s := repeated_share(w, n)) is not None) for n in REPEATED_RUNS},
        **{f"distinct_{n}": distinct_share(words, n) for n in DISTINCT_RUNS},
    }


def words_of(text: str) -> list[str]:
    """Words between spaces, in lower case and without the marks around them."""
    stripped = (_OUTER_MARKS.sub("", word) for word in text.casefold().split())
    return [word for word in stripped if word]


def repeated_share(words: Sequence[str], n: int) -> float | None:
    """Share of a text's runs of n words that the text has had before: 1 - distinct runs / (words - n + 1).

    0 where no run comes twice, near 1 in a loop; None for a text of fewer than n words.
    """
    runs = _runs(words, n)
    return 1 - len(set(runs)) / len(runs) if runs else None


def distinct_share(texts: Sequence[Sequence[str]], n: int, *, drawn: int = DISTINCT_DRAWN) -> float | None:
    """Distinct runs of n words among so many runs drawn from all texts, as a share of those drawn.

    Texts of more or longer explanations repeat more of their runs, so the share of distinct ones among all (distinct-n)
    favours the short. Here the same number of runs is compared whatever the texts are: the expectation over all draws
    without replacement, sum_f 1 - C(R - f, drawn) / C(R, drawn) over the frequencies f of the distinct runs among R,
    in closed form and so without a seed. Runs do not reach from one text into the next.

    Args:
        texts: words of each text.
        n: words of a run.
        drawn: runs to draw.

    Returns:
        From 1 / drawn, one run again and again, to 1; None where there are fewer runs than are drawn.

    Source: distinct-n, Li et al. 2016 (arXiv 1510.03055); the draw is rarefaction, Hurlbert 1971 (Ecology 52).
    """
    counts = Counter(run for words in texts for run in _runs(words, n))
    num_runs = counts.total()
    if num_runs < drawn:
        return None
    frequencies = Counter(counts.values())
    expected = [
        num_distinct * (1 - _missed(num_runs, frequency, drawn))
        for frequency, num_distinct in sorted(frequencies.items())
    ]
    return math.fsum(expected) / drawn


def _missed(num_runs: int, frequency: int, drawn: int) -> float:
    """Probability that none of the runs of one kind is among those drawn."""
    rest = num_runs - frequency
    if rest < drawn:
        return 0.0
    # C(rest, drawn) / C(num_runs, drawn), of which either may be too large for a float.
    return math.exp(
        gammaln(rest + 1) - gammaln(rest - drawn + 1) - gammaln(num_runs + 1) + gammaln(num_runs - drawn + 1)
    )


def _runs(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def _mean(values: Iterable[float]) -> float | None:
    known = [float(value) for value in values]
    return math.fsum(known) / len(known) if known else None
