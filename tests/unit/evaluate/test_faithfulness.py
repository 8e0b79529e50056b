"""The label swap: shares and correlations worked out by hand, groups, more than two labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from clsgen_dist.evaluate.faithfulness import faithfulness, log_ratio, spearman
from clsgen_dist.records import Prediction, Row, SwapScore


def swap(id: str, own: int, log_likelihoods: list[float], num_tokens: int = 10) -> SwapScore:
    return SwapScore(id=id, num_tokens=num_tokens, own=own, log_likelihoods=log_likelihoods)


def prediction(id: str, probability: float) -> Prediction:
    shares = {"no": 1 - probability, "yes": probability}
    return Prediction(
        id=id,
        label=None,
        probability=shares,
        raw_probability=shares,
        predicted="yes" if probability >= 0.5 else "no",
        explanation="So.",
        free_verdict=None,
        free_explanation=None,
        is_cut=False,
        is_free_cut=False,
        logits=[0.0, 0.0],
    )


#: Four rows: log ratios 4, 1, -1, 2 nats; probabilities of the decision 0.99, 0.65, 0.55, 0.92.
SWAPS = [
    swap("a", 1, [-9.0, -5.0]),
    swap("b", 0, [-6.0, -7.0], 20),
    swap("c", 1, [-4.0, -5.0]),
    swap("d", 0, [-1.0, -3.0]),
]
PREDICTIONS = [
    prediction(id, p) for id, p in (("a", 0.99), ("b", 0.35), ("c", 0.55), ("d", 0.08), ("unexplained", 0.5))
]
ROWS = [Row(id=p.id, text=p.id) for p in PREDICTIONS]


def measure(swaps: list[SwapScore] = SWAPS, rows: list[Row] = ROWS) -> dict[str, Any]:
    found = faithfulness(swaps, PREDICTIONS, rows, num_bootstrap=500, seed=1)
    assert found is not None
    return found


def test_the_numbers_of_four_rows() -> None:
    found = measure()
    assert found["num_rows"] == 4
    assert found["swap_share"] == 0.75
    assert found["mean_log_ratio"] == pytest.approx(6 / 50)
    assert found["mean_log_ratio_per_row"] == pytest.approx(1.5)
    assert found["correlation"] == pytest.approx(1.0), "4, 2, 1, -1 nats at 0.99, 0.92, 0.65, 0.55"
    assert found["by_confidence"] == [
        {"low": 0.0, "high": 0.6, "num_rows": 1, "swap_share": 0.0, "mean_log_ratio": pytest.approx(-0.1)},
        {"low": 0.6, "high": 0.7, "num_rows": 1, "swap_share": 1.0, "mean_log_ratio": pytest.approx(0.05)},
        {"low": 0.9, "high": 0.95, "num_rows": 1, "swap_share": 1.0, "mean_log_ratio": pytest.approx(0.2)},
        {"low": 0.95, "high": 1.0, "num_rows": 1, "swap_share": 1.0, "mean_log_ratio": pytest.approx(0.4)},
    ]
    for name in ("swap_share", "mean_log_ratio", "mean_log_ratio_per_row", "correlation"):
        low, high = found[f"{name}_ci"]
        assert low <= found[name] <= high
    assert found["correlation_ci"] == [pytest.approx(1.0)] * 2
    assert found["mean_log_ratio_ci"][0] < 0.05 < 0.2 < found["mean_log_ratio_ci"][1]


def test_words_as_likely_after_either_verdict_belong_to_none() -> None:
    found = measure([swap(id, 1, [-5.0, -5.0]) for id in "abcd"])
    assert (found["swap_share"], found["mean_log_ratio"]) == (0.0, 0.0)
    assert found["correlation"] is found["correlation_ci"] is None
    assert found["swap_share_ci"][1] > 0.5, "four rows prove little"


def test_of_many_labels_the_best_other_one_counts() -> None:
    assert log_ratio(swap("a", 1, [-9.0, -5.0, -6.0])) == 1.0
    assert log_ratio(swap("a", 1, [-4.0, -5.0, -6.0])) == -1.0


def test_the_order_of_the_swaps_changes_nothing() -> None:
    assert measure(SWAPS[::-1]) == measure()


def test_rows_of_one_group_come_and_go_together() -> None:
    draw = np.random.default_rng(0)
    names = [f"row {n}" for n in range(200)]
    level = np.repeat(draw.normal(size=20), 10)
    swaps = [swap(id, 1, [-10.0 - 3 * x, -10.0]) for id, x in zip(names, level, strict=True)]
    predictions = [prediction(id, float(p)) for id, p in zip(names, draw.uniform(0.5, 1, 200), strict=True)]
    widths = []
    for groups in (range(200), range(20)):
        rows = [Row(id=id, text=id, group=f"g{list(groups)[n * len(groups) // 200]}") for n, id in enumerate(names)]
        found = faithfulness(swaps, predictions, rows, num_bootstrap=500, seed=1)
        assert found is not None
        widths.append([found[f"{name}_ci"][1] - found[f"{name}_ci"][0] for name in ("swap_share", "mean_log_ratio")])
    assert widths[1][0] > 2 * widths[0][0]
    assert widths[1][1] > 2 * widths[0][1]


def test_one_group_has_no_interval() -> None:
    found = measure(SWAPS, [Row(id=row.id, text=row.text, group="all") for row in ROWS])
    assert found["correlation"] == pytest.approx(1.0)
    assert found["correlation_ci"] is found["mean_log_ratio_ci"] is found["mean_log_ratio_per_row_ci"] is None
    assert found["swap_share_ci"] is None


def test_a_probability_of_one_is_the_surest() -> None:
    sure = [prediction("a", 1.0), *PREDICTIONS[1:]]
    found = faithfulness(SWAPS, sure, ROWS, num_bootstrap=100, seed=1)
    assert found is not None
    assert found["correlation"] == pytest.approx(1.0)
    assert found["by_confidence"][-1]["num_rows"] == 1


def test_nothing_scored_is_nothing_said() -> None:
    assert faithfulness([], PREDICTIONS, ROWS, num_bootstrap=100, seed=1) is None


def test_rank_correlation_is_that_of_scipy_on_repeated_rows() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.integers(0, 8, 40).astype(float), draw.normal(size=40).round(1)
    times = draw.integers(0, 4, size=(25, 40)).astype(float)
    expected = [
        spearmanr(np.repeat(x, weights.astype(int)), np.repeat(y, weights.astype(int))).statistic for weights in times
    ]
    assert spearman(x, y, times) == pytest.approx(np.array(expected), abs=1e-12)


def test_rank_correlation_with_a_constant_is_none() -> None:
    x, y = np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 4.0])
    found = spearman(x, y, np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]]))
    assert found[0] == pytest.approx(-0.5)
    assert np.isnan(found[1])
