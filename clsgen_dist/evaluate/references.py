"""How near explanations come to those that people wrote of the same row: information, and no measure of quality.

Two people who are both right seldom use the same words. So beside the similarity of the model's explanations stands
that of people's own among each other, as what is to be expected, and that to people's words about other rows, as what
comes of the language and the subject alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from clsgen_dist.records import Row

#: Runs of one to six characters, spaces aside; recall counts twice as much as precision.
_CHRF = CHRF(char_order=6, word_order=0, beta=2, lowercase=True)


def references_of(row: Row) -> tuple[str, ...]:
    """What people wrote of a row, each once: its explanation and its further references."""
    found = ([row.explanation] if row.explanation else []) + list(row.references)
    return tuple(dict.fromkeys(found))


def reference_similarity(
    references: Sequence[Sequence[str]], *, free: Sequence[str | None], conditioned: Sequence[str | None]
) -> dict[str, Any] | None:
    """Mean chrF of explanations to the nearest of the references of their row, from 0 to 100.

    chrF is the F-score of the runs of one to six characters that a text and a reference have in common; case and
    spaces do not count. An explanation without a word scores 0.

    Args:
        references: of each row, see `references_of`; rows without any are passed over.
        free: explanations that the model wrote when it was left alone; None where nobody asked.
        conditioned: explanations that follow the head; None where nobody asked.

    Returns:
        None where no row has a reference and an explanation; else
        num_rows: rows with a reference and an explanation of either kind.
        chrf_free, chrf_conditioned: means over those of these rows that have such an explanation; None where none has.
        chrf_other_rows: the conditioned explanations, or the free ones where there are none, to the references of the
            row half of these rows further on; None for a single row.
        num_rows_with_several: of these rows, those with two references or more.
        chrf_references: over those, each reference to the nearest of the others. It has one reference fewer to be near
            to than an explanation has, and so lies a little low. None where there are no such rows.

    Source: Popovic 2015 (WMT), as sacreBLEU computes it.
    """
    kept = [
        (list(some), one, other)
        for some, one, other in zip(references, free, conditioned, strict=True)
        if some and (one is not None or other is not None)
    ]
    if not kept:
        return None
    several = [some for some, _, _ in kept if len(some) > 1]
    # Neighbours may be of one group and so say much the same.
    others = kept[len(kept) // 2 :] + kept[: len(kept) // 2] if len(kept) > 1 else []
    is_conditioned = any(other is not None for _, _, other in kept)
    shown = [other if is_conditioned else one for _, one, other in kept]
    return {
        "num_rows": len(kept),
        "chrf_free": _mean([_nearest(one, some) for some, one, _ in kept if one is not None]),
        "chrf_conditioned": _mean([_nearest(other, some) for some, _, other in kept if other is not None]),
        "chrf_other_rows": _mean(
            [_nearest(text, some) for text, (some, _, _) in zip(shown, others, strict=False) if text is not None]
        ),
        "num_rows_with_several": len(several),
        "chrf_references": _mean(
            [_nearest(text, some[:n] + some[n + 1 :]) for some in several for n, text in enumerate(some)]
        ),
    }


def _nearest(text: str, references: Sequence[str]) -> float:
    return float(_CHRF.sentence_score(text, references).score)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
