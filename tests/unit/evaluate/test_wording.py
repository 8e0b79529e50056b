"""Sentences follow from numbers."""

from typing import Any

import pytest

from clsgen_dist.calibrate.cuts import RULES as KNOWN_RULES
from clsgen_dist.calibrate.families import METHODS as KNOWN_METHODS
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.evaluate.wording import METHODS, RULES, say_calibrator, say_prior, say_rule, say_verdict, shares_differ


def metrics(**changes: Any) -> dict[str, Any]:
    own = {
        "ece": 0.04,
        "ece_null": 0.03,
        "ece_null_ci": [0.02, 0.05],
        "calibration_slope": 0.9,
        "calibration_slope_ci": [0.8, 1.1],
    }
    return {"is_calibrated": True, "calibrated": own | changes}


def test_an_error_within_chance_is_no_sign_of_miscalibration() -> None:
    assert say_verdict(metrics()) == (
        "The calibrated probabilities show no calibration error beyond chance: an ECE of 0.040; a perfectly calibrated "
        "model shows 0.030 on as many rows (0.020 to 0.050)."
    )
    assert "uncalibrated probabilities" in say_verdict(metrics() | {"is_calibrated": False})


def test_an_error_beyond_chance_is_said() -> None:
    assert say_verdict(metrics(ece=0.051)).startswith("The calibrated probabilities are off by more than chance")


@pytest.mark.parametrize(
    ("slope", "span", "words"),
    [
        (0.7, [0.6, 0.9], "too extreme: the slope is 0.70 (0.60 to 0.90), not 1."),
        (1.4, [1.1, 1.7], "too cautious: the slope is 1.40 (1.10 to 1.70), not 1."),
    ],
)
def test_a_slope_that_is_surely_not_1_is_said(slope: float, span: list[float], words: str) -> None:
    assert say_verdict(metrics(calibration_slope=slope, calibration_slope_ci=span)).endswith(words)


@pytest.mark.parametrize("change", [{"calibration_slope": None}, {"calibration_slope_ci": None}])
def test_without_a_slope_nothing_is_said_of_it(change: dict[str, Any]) -> None:
    assert "slope" not in say_verdict(metrics(**change))


def test_every_method_and_rule_has_words() -> None:
    assert set(METHODS) == set(KNOWN_METHODS)
    assert set(RULES) == set(KNOWN_RULES)


def test_a_calibrator_in_numbers() -> None:
    assert say_calibrator(IDENTITY.to_json()) == "none: the softmax of the head as it is"
    platt = Calibrator("platt", {"slope": (0.51234,), "intercept": (-1.0,)}, 70)
    assert say_calibrator(platt.to_json()).endswith("(slope 0.5123; intercept -1)")
    steps = tuple(float(n) for n in range(40))
    isotonic = Calibrator("isotonic", {"logit": steps, "probability": tuple((n + 1) / 50 for n in range(40))}, 5000)
    assert say_calibrator(isotonic.to_json()) == "isotonic: rising steps (40 of them)"
    average = Calibrator("average", {"weight": (0.02,) * 50, "slope": (1.0,) * 50, "intercept": (0.0,) * 50}, 60)
    assert say_calibrator(average.to_json()).endswith("by what the rows say of each (50 of them)")


def test_a_rule_with_and_without_a_value() -> None:
    assert say_rule({"threshold_rule": "best_f1", "threshold_value": None}) == "the largest F1"
    said = say_rule({"threshold_rule": "cost", "threshold_value": 0.1})
    assert said == "the least expected cost, where a false alarm costs 0.1 times as much as a miss"


def test_a_prior_names_both_populations_in_the_order_of_the_labels() -> None:
    said = say_prior({"yes": 0.05, "no": 0.95}, ["no", "yes"], [0.4, 0.6])
    assert "(no 0.95, yes 0.05) than these rows have (no 0.4, yes 0.6)" in said


@pytest.mark.parametrize(
    ("shares", "num_rows", "differ"),
    [([0.9, 0.1], 1000, False), ([0.88, 0.12], 1000, False), ([0.88, 0.12], 10_000, True), ([0.5, 0.5], 100, True)],
)
def test_shares_differ_where_chance_does_not_explain_it(shares: list[float], num_rows: int, differ: bool) -> None:
    assert shares_differ({"yes": 0.1, "no": 0.9}, ["no", "yes"], shares, num_rows) is differ
