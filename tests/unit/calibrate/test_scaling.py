"""Calibrators: what fitting recovers from simulated labels, what it refuses, and what a file of it must hold."""

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from clsgen_dist.calibrate.families import METHODS
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, candidate_methods, fit_calibrator
from clsgen_dist.errors import BundleError, ConfigError, DataError, NumericsError

TWO = {
    "none": Calibrator("none", {}, 0),
    "temperature": Calibrator("temperature", {"temperature": (1 / 3,)}, 77),
    "platt": Calibrator("platt", {"slope": (0.7,), "intercept": (-1.1,)}, 77),
    "beta": Calibrator("beta", {"a": (0.7,), "b": (0.0,), "c": (0.3,)}, 2000),
    "isotonic": Calibrator("isotonic", {"logit": (-2.0, 0.1, 3.0), "probability": (0.1, 0.4, 0.4)}, 2000),
    "average": Calibrator(
        "average", {"weight": (0.2, 0.8), "slope": (1.0, 0.3), "intercept": (0.0, -0.9)}, num_rows=60
    ),
}
THREE = Calibrator("vector", {"scale": (0.5, 1.0, 2.0), "bias": (0.1, 0.0, -0.4)}, 500)
EVERY = [*TWO.values(), THREE]


def simulate(num_rows: int, num_labels: int, true_temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by `true_temperature`, and labels drawn from the honest probabilities."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(size=(num_rows, num_labels)) * 1.5
    return honest * true_temperature, (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)


def temperature_of(logits: np.ndarray, labels: np.ndarray, bound: float = 100.0) -> tuple[float | None, list[str]]:
    calibrator, warnings = fit_calibrator(logits, labels, method="temperature", max_temperature=bound)
    return calibrator.temperature, warnings


@settings(max_examples=60)
@given(
    st.sampled_from(EVERY),
    st.lists(st.lists(st.floats(-1.7e308, 1.7e308), min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from([None, 1.0]),
)
def test_rows_sum_to_one_however_large_the_logits_are(
    calibrator: Calibrator, rows: list[list[float]], shift: float | None
) -> None:
    logits = np.array(rows)[:, : calibrator.num_labels]
    if shift is not None:
        prior = tuple(np.linspace(-shift, shift, logits.shape[1]))
        calibrator = Calibrator(calibrator.method, calibrator.parameters, calibrator.num_rows, prior)
    probability = calibrator.apply(logits)
    assert probability.dtype == np.float64
    assert ((probability >= 0) & (probability <= 1)).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("calibrator", EVERY, ids=lambda calibrator: calibrator.method)
def test_a_constant_added_to_a_row_changes_nothing(calibrator: Calibrator) -> None:
    logits, _ = simulate(50, calibrator.num_labels or 4, 1.0, seed=1)
    shift = np.linspace(-300, 300, 50)[:, None]
    np.testing.assert_allclose(calibrator.apply(logits + shift), calibrator.apply(logits), atol=1e-12)


@pytest.mark.parametrize("calibrator", EVERY, ids=lambda calibrator: calibrator.method)
def test_a_prior_shift_multiplies_probabilities_and_normalises_again(calibrator: Calibrator) -> None:
    logits, _ = simulate(50, calibrator.num_labels or 3, 1.0, seed=2)
    factor = np.array([0.2, 1.0, 1.7])[: logits.shape[1]]
    moved = Calibrator(calibrator.method, calibrator.parameters, 5, tuple(np.log(factor).tolist()))
    expected = calibrator.apply(logits) * factor
    np.testing.assert_allclose(moved.apply(logits), expected / expected.sum(axis=1, keepdims=True), atol=1e-14)
    assert moved.num_labels == logits.shape[1]


def test_what_a_calibrator_says_of_itself() -> None:
    assert [c.num_parameters for c in EVERY] == [0, 1, 2, 3, 2, 2, 6]
    assert [c.temperature for c in EVERY] == [1.0, 1 / 3, None, None, None, None, None]
    assert [c.num_labels for c in EVERY] == [None, None, 2, 2, 2, 2, 3]
    assert tuple(c.method for c in EVERY) != METHODS
    assert {c.method for c in EVERY} == set(METHODS)


def test_numbers_that_are_no_map_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="temperature is 0"):
        Calibrator("temperature", {"temperature": (0.0,)}, 5)


@pytest.mark.parametrize(("num_labels", "true_temperature"), [(2, 2.5), (2, 0.4), (4, 3.0)])
def test_a_known_temperature_is_recovered(num_labels: int, true_temperature: float) -> None:
    logits, labels = simulate(20_000, num_labels, true_temperature, seed=8)
    calibrator, warnings = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    assert warnings == []
    assert calibrator.num_rows == 20_000
    assert calibrator.temperature == pytest.approx(true_temperature, rel=0.05)


def test_two_labels_agree_with_logistic_regression_without_intercept() -> None:
    logits, labels = simulate(1000, 2, 1.8, seed=10)
    odds = (logits[:, 1] - logits[:, 0])[:, None]
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    found = oracle.fit(odds, labels).coef_[0, 0]
    temperature, _ = temperature_of(logits, labels)
    assert temperature is not None
    assert 1 / temperature == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("method", ["temperature", "platt", "beta", "isotonic", "vector"])
def test_rows_without_a_label_and_the_order_of_rows_do_not_matter(method: str) -> None:
    logits, labels = simulate(1200, 3 if method == "vector" else 2, 2.0, seed=11)
    alone, _ = fit_calibrator(logits, labels, method=method, max_temperature=100.0)
    more = np.concatenate([logits, 50 * logits[:40]])
    padded, _ = fit_calibrator(more, np.append(labels, [-1] * 40), method=method, max_temperature=100.0)
    assert padded == alone
    turned, _ = fit_calibrator(logits[::-1], labels[::-1], method=method, max_temperature=100.0)
    np.testing.assert_allclose(turned.apply(logits), alone.apply(logits), atol=1e-9)


def test_perfect_separation_stops_at_the_lower_bound_and_warns() -> None:
    logits, _ = simulate(100, 3, 1.0, seed=12)
    temperature, warnings = temperature_of(logits, logits.argmax(axis=1), bound=50.0)
    assert temperature == 1 / 50
    assert len(warnings) == 1
    assert "lower bound, 0.02" in warnings[0]


def test_logits_that_point_away_stop_at_the_upper_bound_and_warn() -> None:
    logits, labels = simulate(300, 2, 1.0, seed=13)
    temperature, warnings = temperature_of(logits, 1 - labels, bound=50.0)
    assert temperature == 50.0
    assert len(warnings) == 1
    assert "upper bound, 50" in warnings[0]


def test_logits_that_say_nothing_leave_the_temperature_at_one_and_warn() -> None:
    temperature, warnings = temperature_of(np.full((40, 2), 3.0), np.array([0, 1] * 20))
    assert temperature == 1.0
    assert "equal" in warnings[0]


def test_labels_that_a_backbone_masks_do_not_disturb_the_temperature() -> None:
    logits, labels = simulate(300, 3, 2.0, seed=15)
    masked = np.concatenate([logits, np.full((300, 1), -3e38)], axis=1)
    assert temperature_of(masked, labels)[0] == pytest.approx(temperature_of(logits, labels)[0], rel=1e-12)


def test_method_none_needs_no_labels() -> None:
    assert fit_calibrator([[0.0, 1.0]], [-1], method="none", max_temperature=100.0) == (IDENTITY, [])


def test_flexible_maps_are_tried_from_a_thousand_rows_and_only_for_two_labels() -> None:
    assert candidate_methods(2, 999) == ("none", "temperature", "platt")
    assert candidate_methods(2, 1000) == ("none", "temperature", "platt", "beta", "isotonic")
    assert candidate_methods(6, 10_000) == ("none", "temperature", "vector")


@pytest.mark.parametrize("method", ["beta", "isotonic"])
def test_flexible_maps_on_few_rows_warn(method: str) -> None:
    logits, labels = simulate(1000, 2, 2.0, seed=16)
    assert fit_calibrator(logits, labels, method=method, max_temperature=100.0)[1] == []
    warnings = fit_calibrator(logits[:999], labels[:999], method=method, max_temperature=100.0)[1]
    assert len(warnings) == 1
    assert "999 rows" in warnings[0]
    assert "1000" in warnings[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits_NK": np.full((60, 2), math.nan)}, "60 of 60 rows"),
        ({"logits_NK": np.full((60, 2), math.inf)}, "NaN or infinite"),
        ({"logits_NK": np.zeros((60, 1))}, "two or more labels"),
        ({"labels_N": np.full(60, 2)}, "found 2, expected 0 to 1"),
        ({"labels_N": np.full(60, -2)}, "found -2"),
        ({"labels_N": np.full(60, 0.5)}, "expected integers"),
        ({"labels_N": np.zeros(59, dtype=int)}, "one a row"),
        ({"labels_N": np.array([0, 1] * 9 + [0] + [-1] * 41)}, "found 19 labelled rows, expected at least 20"),
        ({"labels_N": np.ones(60, dtype=int)}, "all 60 labelled rows have label number 1"),
    ],
)
@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_rows_that_cannot_be_calibrated_on_are_refused(
    change: dict[str, np.ndarray], message: str, method: str
) -> None:
    logits, labels = simulate(60, 2, 1.0, seed=14)
    given = {"logits_NK": logits, "labels_N": labels} | change
    with pytest.raises(DataError, match=message):
        fit_calibrator(**given, method=method, max_temperature=100.0)


@pytest.mark.parametrize(("method", "num_labels"), [("platt", 2), ("beta", 2), ("vector", 3)])
def test_enormous_logits_are_refused_where_they_would_spoil_the_fit(method: str, num_labels: int) -> None:
    logits, labels = simulate(60, num_labels, 1.0, seed=14)
    logits[0, 0] = 1e7
    with pytest.raises(DataError, match=r"1e\+07"):
        fit_calibrator(logits, labels, method=method, max_temperature=100.0)


def test_unknown_methods_and_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="'histogram', expected one of none, temperature"):
        fit_calibrator([[0.0, 1.0]], [0], method="histogram", max_temperature=100.0)
    with pytest.raises(ConfigError, match=r"'average', expected one of none, .*isotonic"):
        fit_calibrator([[0.0, 1.0]], [0], method="average", max_temperature=100.0)
    for bound in (1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="above 1"):
            fit_calibrator([[0.0, 1.0]], [0], method="temperature", max_temperature=bound)


@pytest.mark.parametrize(
    ("method", "num_labels", "use"),
    [("platt", 3, "vector"), ("beta", 3, "vector"), ("isotonic", 3, "vector"), ("vector", 2, "platt")],
)
def test_methods_that_do_not_suit_the_labels_are_refused(method: str, num_labels: int, use: str) -> None:
    logits, labels = simulate(60, num_labels, 1.0, seed=14)
    with pytest.raises(ConfigError, match=f"{method} is for .*use .*{use}"):
        fit_calibrator(logits, labels, method=method, max_temperature=100.0)


def test_apply_refuses_what_is_not_a_number_and_another_number_of_labels() -> None:
    with pytest.raises(NumericsError, match="1 of 2 rows"):
        IDENTITY.apply([[0.0, 1.0], [math.nan, 1.0]])
    with pytest.raises(ConfigError, match="it is for 3 labels, found logits of 2"):
        THREE.apply([[0.0, 1.0]])
    with pytest.raises(ConfigError, match="it is for 2 labels, found logits of 3"):
        TWO["isotonic"].apply([[0.0, 1.0, 2.0]])


@pytest.mark.parametrize("calibrator", EVERY, ids=lambda calibrator: calibrator.method)
def test_json_and_pickle_give_the_same_calibrator_back(calibrator: Calibrator) -> None:
    for shift in (None, tuple(np.log([0.1, 0.3, 0.6])[: calibrator.num_labels or 3].tolist())):
        given = Calibrator(calibrator.method, calibrator.parameters, calibrator.num_rows, shift)
        assert Calibrator.from_json(json.loads(json.dumps(given.to_json(), allow_nan=False))) == given
        assert pickle.loads(pickle.dumps(given)) == given


def test_a_fitted_calibrator_comes_back_from_json_bit_for_bit() -> None:
    logits, labels = simulate(1500, 2, 2.0, seed=17)
    for method in ("temperature", "platt", "beta", "isotonic"):
        fitted, _ = fit_calibrator(logits, labels, method=method, max_temperature=100.0)
        back = Calibrator.from_json(json.loads(json.dumps(fitted.to_json())))
        assert np.array_equal(back.apply(logits), fitted.apply(logits))


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("temperature", {"parameters": {"temperature": [0.0]}}),
        ("temperature", {"parameters": {"temperature": [-1.0]}}),
        ("temperature", {"parameters": {"temperature": [math.nan]}}),
        ("temperature", {"parameters": {"temperature": [math.inf]}}),
        ("temperature", {"parameters": {"temperature": ["2"]}}),
        ("temperature", {"parameters": {"temperature": [True]}}),
        ("temperature", {"parameters": {"temperature": [None]}}),
        ("temperature", {"parameters": {"temperature": [1.0, 2.0]}}),
        ("temperature", {"parameters": {"temperature": []}}),
        ("temperature", {"parameters": {"temperature": 2.0}}),
        ("temperature", {"parameters": {}}),
        ("temperature", {"parameters": {"temperature": [2.0], "slope": [1.0]}}),
        ("temperature", {"parameters": [2.0]}),
        ("temperature", {"method": "histogram"}),
        ("temperature", {"method": "none"}),
        ("temperature", {"method": ["temperature"]}),
        ("temperature", {"num_rows": -1}),
        ("temperature", {"num_rows": 1.5}),
        ("temperature", {"num_rows": True}),
        ("temperature", {"extra": 1}),
        ("temperature", {"log_prior_shift": [0.0]}),
        ("temperature", {"log_prior_shift": [0.0, math.inf]}),
        ("temperature", {"log_prior_shift": "none"}),
        ("platt", {"parameters": {"slope": [0.0], "intercept": [1.0]}}),
        ("platt", {"log_prior_shift": [0.0, 0.0, 0.0]}),
        ("beta", {"parameters": {"a": [0.0], "b": [0.0], "c": [1.0]}}),
        ("beta", {"parameters": {"a": [1.0], "b": [-0.1], "c": [1.0]}}),
        ("vector", {"parameters": {"scale": [1.0, 1.0, 1.0], "bias": [0.0, 0.0]}}),
        ("vector", {"parameters": {"scale": [1.0, 1.0], "bias": [0.0, 0.0]}}),
        ("isotonic", {"parameters": {"logit": [], "probability": []}}),
        ("isotonic", {"parameters": {"logit": [0.0, 1.0], "probability": [0.5]}}),
        ("isotonic", {"parameters": {"logit": [0.0, 0.0], "probability": [0.4, 0.5]}}),
        ("isotonic", {"parameters": {"logit": [0.0, 1.0], "probability": [0.5, 0.4]}}),
        ("isotonic", {"parameters": {"logit": [0.0, 1.0], "probability": [0.0, 0.4]}}),
        ("isotonic", {"parameters": {"logit": [0.0, 1.0], "probability": [0.5, 1.0]}}),
        ("average", {"parameters": {"weight": [], "slope": [], "intercept": []}}),
        ("average", {"parameters": {"weight": [0.5, 0.5], "slope": [1.0, 1.0], "intercept": [0.0]}}),
        ("average", {"parameters": {"weight": [0.5, 0.4], "slope": [1.0, 1.0], "intercept": [0.0, 1.0]}}),
        ("average", {"parameters": {"weight": [1.5, -0.5], "slope": [1.0, 1.0], "intercept": [0.0, 1.0]}}),
        ("average", {"parameters": {"weight": [0.5, 0.5], "slope": [1.0, 0.0], "intercept": [0.0, 1.0]}}),
        ("average", {"log_prior_shift": [0.0, 0.0, 0.0]}),
    ],
)
def test_a_malformed_calibrator_is_refused(method: str, change: dict[str, object]) -> None:
    content = ({**TWO, "vector": THREE})[method].to_json()
    assert Calibrator.from_json(content).method == method
    with pytest.raises(BundleError, match="calibrator of the bundle"):
        Calibrator.from_json(content | change)


def test_a_calibrator_that_is_no_object_or_lacks_a_key_is_refused() -> None:
    with pytest.raises(BundleError, match="expected the keys"):
        Calibrator.from_json([1, 2])  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="expected the keys"):
        Calibrator.from_json({"method": "temperature", "temperature": 2.0, "num_rows": 50})
