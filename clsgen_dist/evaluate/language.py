"""How much of its language a fine-tuned model has kept.

No number alone shows a collapse. The likelihood of general text falls also where all is well, and hardly falls where a
model that only classifies has come to write loops; the likelihood of reference explanations, and that of its own ones
under the base model, tell the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from clsgen_dist.evaluate.shares import ratio_interval
from clsgen_dist.records import LanguageScores, TextScore


def language_kept(scores: LanguageScores, *, free_rep_4: float | None, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """The part `language` of `metrics.json`.

    Args:
        scores: of all rows and passages, in any order.
        free_rep_4: share of repeated 4-grams in free explanations, taken over as it is.
        num_bootstrap: resamples of passages behind the interval of `general_text_change`.
        seed: seed of the resamples.

    Returns:
        In nats a token, None where there is nothing to measure or no base model:
        reference_explanation_nll, reference_explanation_nll_base: words that people or a teacher wrote, after prompt
            and true verdict, EOS left out; num_reference_rows: how many.
        general_text_nll, general_text_nll_base, num_general_tokens; general_text_change: tuned / base - 1, with
            general_text_change_ci; general_text_kl: KL(base || tuned) of the next token.
        explanation_nll_under_base: free explanations under the base model, after prompt and the verdict that they
            opened with. Far below `reference_explanation_nll_base`: loops, templates or copied text; far above: no
            sentences. num_free_rows: how many.
        free_rep_4, and base: why there is no base model, or None.
    """
    general = sorted(scores.general, key=lambda score: score.id)
    tuned, base = nats_a_token(general, "tuned"), nats_a_token(general, "base")
    return {
        "reference_explanation_nll": nats_a_token(scores.references, "tuned"),
        "reference_explanation_nll_base": nats_a_token(scores.references, "base"),
        "num_reference_rows": len(scores.references),
        "general_text_nll": tuned,
        "general_text_nll_base": base,
        "general_text_change": None if tuned is None or base is None else tuned / base - 1,
        "general_text_change_ci": None if base is None else _change_interval(general, num_bootstrap, seed),
        "general_text_kl": nats_a_token(general, "kl"),
        "num_general_tokens": sum(score.num_tokens for score in general),
        "explanation_nll_under_base": nats_a_token(scores.free, "base"),
        "num_free_rows": len(scores.free),
        "free_rep_4": free_rep_4,
        "base": scores.no_base,
    }


def nats_a_token(scores: Sequence[TextScore], name: str) -> float | None:
    """A cost, summed over texts, by the tokens of them; None without texts, or where the cost was not asked for.

    Args:
        scores: of texts; all of them have the cost, or none has.
        name: of the cost: tuned, base or kl.
    """
    costs = [getattr(score, name) for score in scores]
    known = [cost for cost in costs if cost is not None]
    assert len(known) in (0, len(costs)), f"{name} is known of some texts only"
    # fsum is the same in whatever order ranks bring their texts.
    return math.fsum(known) / sum(score.num_tokens for score in scores) if known else None


def _change_interval(general: Sequence[TextScore], num_bootstrap: int, seed: int) -> list[float] | None:
    """Both models on the same resampled passages."""
    costs = np.array([(score.tuned, score.base) for score in general], dtype=np.float64)
    group_N = np.arange(len(general))
    ratio = ratio_interval(costs[:, 0], costs[:, 1], group_N, num_bootstrap=num_bootstrap, seed=seed)
    return None if ratio is None else [bound - 1 for bound in ratio]
