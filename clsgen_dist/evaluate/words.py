"""The parts of metrics.json that are about words: what explanations argue for, how they are written, language kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clsgen_dist.evaluate.columns import Columns
from clsgen_dist.evaluate.faithfulness import faithfulness
from clsgen_dist.evaluate.form import form_metrics
from clsgen_dist.evaluate.language import language_kept
from clsgen_dist.evaluate.reading import Reading, Unavailable, describe_readings
from clsgen_dist.evaluate.references import reference_similarity, references_of
from clsgen_dist.records import LanguageScores, Prediction, Row


def describe_words(
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    columns: Columns,
    read: Mapping[str, Reading | Unavailable],
    scores: LanguageScores | None,
    *,
    num_bootstrap: int,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts `explanation` and `language`.

    Args:
        predictions, rows: of one split, each in any order.
        columns: both side by side.
        read: by name of the reader, which label each explanation argues for, or why it could not be had.
        scores: what the tuned model and its base say of explanations and general text; None where nobody asked them.
        num_bootstrap, seed: resamples behind each interval.

    Returns:
        explanation: `describe_readings`; form: `form_metrics` of free and conditioned explanations; references:
        `reference_similarity`; faithfulness: of the label swap, None without scores. language: `language_kept`; empty
        without scores.
    """
    row_of = {row.id: row for row in rows}
    free = [p for p in predictions if p.free_explanation is not None]
    conditioned = [p for p in predictions if p.explanation is not None]
    form = {
        "free": form_metrics([p.free_explanation or "" for p in free], [p.is_free_cut for p in free]),
        "conditioned": form_metrics([p.explanation or "" for p in conditioned], [p.is_cut for p in conditioned]),
    }
    explanation = {
        **describe_readings(columns, read, num_bootstrap=num_bootstrap, seed=seed),
        "form": form,
        "references": reference_similarity(
            [references_of(row_of[p.id]) for p in predictions],
            free=[p.free_explanation for p in predictions],
            conditioned=[p.explanation for p in predictions],
        ),
        "faithfulness": None,
    }
    if scores is None:
        return explanation, {}
    explanation["faithfulness"] = faithfulness(scores.swaps, predictions, rows, num_bootstrap=num_bootstrap, seed=seed)
    repeated = form["free"]["rep_4"]
    return explanation, language_kept(scores, free_rep_4=repeated, num_bootstrap=num_bootstrap, seed=seed)
