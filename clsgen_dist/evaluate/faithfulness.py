"""Whether the words of an explanation belong to their own verdict: a label swap.

The words that were written after the head's verdict are scored again after every other verdict. Words that argue for
the decision are likelier after their own; words that would stand under any verdict are not. As the head reads the
prompt that the words are conditioned on, a faithful model's preference grows with the head's confidence.

Shape legend: N explained rows, K labels, R resamples, D distinct values.

Source: label swap in the setting of CLSGen, arXiv 2604.11801; the measures are ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clsgen_dist.evaluate.resampling import number_groups
from clsgen_dist.evaluate.shares import draw_groups, percentile_interval, ratio_interval, share_interval
from clsgen_dist.records import Prediction, Row, SwapScore, group_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Bins of the largest probability, in which the log ratio is looked at; an upper edge belongs to the bin above it.
CONFIDENCE_EDGES = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)

#: A calibrated probability of exactly 1 has no logit.
LARGEST_PROBABILITY = 1 - 1e-12


def faithfulness(
    swaps: Sequence[SwapScore],
    predictions: Sequence[Prediction],
    rows: Sequence[Row],
    *,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any] | None:
    """What the label swap says.

    The log ratio of a row is log p(words | prompt, own verdict) - log p(words | prompt, other verdict), summed over
    the words' tokens, in nats. With more than two labels the other verdict is the best of the others: words have to be
    likelier after their own verdict than after any other one.

    Args:
        swaps: of explained rows, in any order.
        predictions: of these rows and perhaps of more.
        rows: the same rows, for their groups.
        num_bootstrap: resamples of groups behind each 95 % interval.
        seed: seed of the resamples.

    Returns:
        None without swaps; else num_rows; swap_share, the share of rows whose log ratio is above 0; mean_log_ratio,
        nats a token; mean_log_ratio_per_row, nats a row; correlation, Spearman's, of the row's log ratio with the
        head's confidence, the calibrated logit of the largest probability (|logit p| for two labels), None where
        either is constant; each with NAME_ci as [low, high], None where all rows are of one group; by_confidence, for
        each bin of the largest probability that holds rows: low, high, num_rows, swap_share, mean_log_ratio.

    Raises:
        KeyError: a swap has no prediction or no row.
    """
    if not swaps:
        return None
    prediction_of, row_of = {p.id: p for p in predictions}, {row.id: row for row in rows}
    order = {p.id: n for n, p in enumerate(predictions)}
    swaps = sorted(swaps, key=lambda swap: order[swap.id])
    ratio_N = np.array([log_ratio(swap) for swap in swaps])
    tokens_N = np.array([swap.num_tokens for swap in swaps], dtype=np.float64)
    confidence_N = np.array([max(prediction_of[swap.id].probability.values()) for swap in swaps])
    names = [group_name(swap.id, row_of[swap.id].group) for swap in swaps]
    group_N = number_groups(names, len(names)) if len(set(names)) > 1 else np.zeros(len(names), dtype=np.int64)
    every_N = np.ones(len(swaps), dtype=bool)
    drawing: dict[str, Any] = {"num_bootstrap": num_bootstrap, "seed": seed}
    return {
        "num_rows": len(swaps),
        "swap_share": float(np.mean(ratio_N > 0)),
        "swap_share_ci": share_interval(ratio_N > 0, every_N, group_N, **drawing) if group_N.max() else None,
        "mean_log_ratio": float(ratio_N.sum() / tokens_N.sum()),
        "mean_log_ratio_ci": ratio_interval(ratio_N, tokens_N, group_N, **drawing),
        "mean_log_ratio_per_row": float(ratio_N.mean()),
        "mean_log_ratio_per_row_ci": ratio_interval(ratio_N, every_N, group_N, **drawing),
        **_correlation(ratio_N, _logit(confidence_N), group_N, num_bootstrap, seed),
        "by_confidence": _by_confidence(ratio_N, tokens_N, confidence_N),
    }


def log_ratio(swap: SwapScore) -> float:
    """By how many nats the words are likelier after their own verdict than after the best of the others."""
    others = [value for label, value in enumerate(swap.log_likelihoods) if label != swap.own]
    return swap.log_likelihoods[swap.own] - max(others)


def spearman(x_N: FloatArray, y_N: FloatArray, weight_RN: FloatArray) -> FloatArray:
    """Spearman's rank correlation on resamples, each given by how often it holds each row.

    The same as ranking the repeated rows anew, equal values sharing their mean rank.

    Returns:
        (R,) from -1 to 1, NaN where x or y is constant.
    """
    ranks = [_mean_ranks(values_N, weight_RN) for values_N in (x_N, y_N)]
    total_R1 = weight_RN.sum(axis=1, keepdims=True)
    x_RN, y_RN = (rank_RN - (weight_RN * rank_RN).sum(axis=1, keepdims=True) / total_R1 for rank_RN in ranks)
    both_R, xx_R, yy_R = ((weight_RN * a * b).sum(axis=1) for a, b in ((x_RN, y_RN), (x_RN, x_RN), (y_RN, y_RN)))
    varies_R = (xx_R > 1e-9) & (yy_R > 1e-9)
    return np.where(varies_R, both_R / np.sqrt(np.where(varies_R, xx_R * yy_R, 1.0)), np.nan)


def _mean_ranks(values_N: FloatArray, weight_RN: FloatArray) -> FloatArray:
    order_N = np.argsort(values_N, kind="stable")
    _, start_D, place_N = np.unique(values_N[order_N], return_index=True, return_inverse=True)
    weight_RD = np.add.reduceat(weight_RN[:, order_N], start_D, axis=1)
    # A value that stands w times after n smaller ones has the ranks n + 1 to n + w.
    rank_RD = np.cumsum(weight_RD, axis=1) - (weight_RD - 1) / 2
    rank_RN = np.empty_like(weight_RN)
    rank_RN[:, order_N] = rank_RD[:, place_N]
    return rank_RN


def _correlation(
    ratio_N: FloatArray, logit_N: FloatArray, group_N: IntArray, num_bootstrap: int, seed: int
) -> dict[str, Any]:
    whole = float(spearman(ratio_N, logit_N, np.ones((1, len(ratio_N))))[0])
    if np.isnan(whole):
        return {"correlation": None, "correlation_ci": None}
    interval = None
    if group_N.max():
        draws = draw_groups(group_N, num_bootstrap=num_bootstrap, seed=seed)
        interval = percentile_interval(
            np.concatenate([spearman(ratio_N, logit_N, times_RG[:, group_N]) for times_RG in draws])
        )
    return {"correlation": whole, "correlation_ci": interval}


def _by_confidence(ratio_N: FloatArray, tokens_N: FloatArray, confidence_N: FloatArray) -> list[dict[str, float | int]]:
    bin_N = np.searchsorted(CONFIDENCE_EDGES[1:-1], confidence_N, side="right")
    return [
        {
            "low": low,
            "high": high,
            "num_rows": int((bin_N == number).sum()),
            "swap_share": float(np.mean(ratio_N[bin_N == number] > 0)),
            "mean_log_ratio": float(ratio_N[bin_N == number].sum() / tokens_N[bin_N == number].sum()),
        }
        for number, (low, high) in enumerate(itertools.pairwise(CONFIDENCE_EDGES))
        if (bin_N == number).any()
    ]


def _logit(probability_N: FloatArray) -> FloatArray:
    capped_N = np.minimum(probability_N, LARGEST_PROBABILITY)
    return np.asarray(np.log(capped_N) - np.log1p(-capped_N))
