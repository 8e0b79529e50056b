"""Combinations that cannot work where probabilities become decisions."""

from __future__ import annotations

from clsgen_dist.config.rule import Rule


def _is_cost_matrix(costs: list[list[float]], num_labels: int) -> bool:
    """Whether the costs are one line a label, in which the right answer is the cheapest."""
    if len(costs) != num_labels or any(len(line) != num_labels for line in costs):
        return False
    return all(line[k] < min(line[:k] + line[k + 1 :]) for k, line in enumerate(costs))


def _cost_ratio(costs: list[list[float]]) -> float:
    """Cost of a false alarm over that of a miss, of two labels."""
    (right_no, false_alarm), (miss, right_yes) = costs
    return (false_alarm - right_no) / (miss - right_yes)


DECISION_RULES = (
    Rule(
        ("calibrate", "method"),
        "calibrate.method platt, beta or isotonic with other than two labels, or vector with two",
        "platt, beta and isotonic map one log-odds; vector scales each of three or more; take auto",
        lambda c: (
            (len(c.task.labels) > 2 and c.calibrate.method in ("platt", "beta", "isotonic"))
            or (len(c.task.labels) == 2 and c.calibrate.method == "vector")
        ),
    ),
    Rule(
        ("calibrate", "prior"),
        "calibrate.prior that does not name each of task.labels, or does not sum to 1",
        "the shares of all labels where the model will be used, as {no: 0.95, yes: 0.05}",
        lambda c: (
            c.calibrate.prior is not None
            and (set(c.calibrate.prior) != set(c.task.labels) or abs(sum(c.calibrate.prior.values()) - 1) > 1e-6)
        ),
    ),
    Rule(
        ("calibrate", "prior"),
        "calibrate.prior with calibrate.method none",
        "nothing is fitted that could be shifted; take auto",
        lambda c: c.calibrate.prior is not None and c.calibrate.method == "none",
    ),
    Rule(
        ("calibrate", "threshold"),
        "calibrate.threshold precision, recall, cost or top_share without calibrate.threshold_value, or a share above "
        "1",
        "say which precision, recall or share (0 to 1), or which cost ratio",
        lambda c: (
            c.calibrate.threshold != "best_f1"
            and (
                c.calibrate.threshold_value is None
                or (c.calibrate.threshold != "cost" and c.calibrate.threshold_value > 1)
            )
        ),
    ),
    Rule(
        ("calibrate", "threshold_value"),
        "calibrate.threshold_value with calibrate.threshold best_f1",
        "the best F1 needs no value; set calibrate.threshold to what the value is of",
        lambda c: c.calibrate.threshold == "best_f1" and c.calibrate.threshold_value is not None,
    ),
    Rule(
        ("calibrate", "threshold"),
        "calibrate.threshold other than best_f1 with more than two labels",
        "one number cannot choose among more labels: there the largest probability decides; see evaluate.costs",
        lambda c: len(c.task.labels) > 2 and c.calibrate.threshold != "best_f1",
    ),
    Rule(
        ("evaluate", "costs"),
        "evaluate.costs beside calibrate.threshold cost with another ratio of false alarm to miss in "
        "calibrate.threshold_value",
        "one ratio decides: what a false alarm costs over a right no, to what a miss costs over a right yes",
        lambda c: (
            c.calibrate.threshold == "cost"
            and c.calibrate.threshold_value is not None
            and c.evaluate.costs is not None
            and _is_cost_matrix(c.evaluate.costs, 2)
            and abs(_cost_ratio(c.evaluate.costs) - c.calibrate.threshold_value) > 1e-6
        ),
    ),
    Rule(
        ("evaluate", "costs"),
        "evaluate.costs that is no square of task.labels, or in which a right answer is not the cheapest of its line",
        "one line a true label, one column a label that is said",
        lambda c: c.evaluate.costs is not None and not _is_cost_matrix(c.evaluate.costs, len(c.task.labels)),
    ),
)
