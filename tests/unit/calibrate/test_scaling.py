"""Temperature: the identities it must keep, and what it recovers from simulated labels."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, fit_calibrator
from clsgen_dist.errors import BundleError, ConfigError, DataError, NumericsError


def temperature(value: float) -> Calibrator:
    return Calibrator(method="temperature", temperature=value, num_rows=100)


def simulate(num_rows: int, num_labels: int, true_temperature: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by `true_temperature`, and labels drawn from the honest probabilities."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(size=(num_rows, num_labels)) * 1.5
    probability = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    labels = (generator.random((num_rows, 1)) > probability.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    return honest * true_temperature, labels


def slope(beta: float, logits: np.ndarray, labels: np.ndarray) -> float:
    """mean E_p[z] - mean z_y, which is 0 at the optimum."""
    probability = temperature(1 / beta).apply(logits)
    return float(np.mean((probability * logits).sum(axis=1) - logits[np.arange(len(labels)), labels]))


def nll(beta: float, logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(temperature(1 / beta).apply(logits)[np.arange(len(labels)), labels]).mean())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=3), min_size=1, max_size=5), st.floats(0.01, 100)
)
def test_rows_sum_to_one_however_large_the_logits_are(logits: list[list[float]], value: float) -> None:
    probability = temperature(value).apply(logits)
    assert probability.dtype == np.float64
    assert np.isfinite(probability).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_a_constant_added_to_a_row_changes_nothing() -> None:
    logits, _ = simulate(50, 4, 1.0, seed=1)
    shift = np.linspace(-300, 300, 50)[:, None]
    np.testing.assert_allclose(temperature(2.3).apply(logits + shift), temperature(2.3).apply(logits), atol=1e-13)


def test_temperature_one_is_softmax_and_none_is_too() -> None:
    logits, _ = simulate(50, 3, 1.0, seed=2)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(temperature(1.0).apply(logits), softmax, atol=1e-15)
    assert np.array_equal(IDENTITY.apply(logits), temperature(1.0).apply(logits))


def test_temperatures_compose_by_multiplication() -> None:
    logits, _ = simulate(50, 3, 1.0, seed=3)
    once = np.log(temperature(1.7).apply(logits))
    np.testing.assert_allclose(temperature(2.4).apply(once), temperature(1.7 * 2.4).apply(logits), atol=4e-15)


def test_two_labels_are_a_sigmoid_of_the_log_odds() -> None:
    logits, _ = simulate(50, 2, 1.0, seed=4)
    odds = logit(IDENTITY.apply(logits)[:, 1])
    np.testing.assert_allclose(temperature(2.7).apply(logits)[:, 1], expit(odds / 2.7), atol=4e-15)


def test_a_power_of_the_probabilities_is_the_same_as_a_temperature() -> None:
    logits, _ = simulate(50, 3, 1.0, seed=5)
    power = IDENTITY.apply(logits) ** (1 / 3.1)
    np.testing.assert_allclose(temperature(3.1).apply(logits), power / power.sum(axis=1, keepdims=True), atol=4e-15)


def test_extreme_temperatures_are_uniform_and_one_hot() -> None:
    logits, _ = simulate(50, 3, 1.0, seed=6)
    np.testing.assert_allclose(temperature(1e12).apply(logits), 1 / 3, atol=1e-10)
    np.testing.assert_allclose(temperature(1e-12).apply(logits), np.eye(3)[logits.argmax(axis=1)], atol=1e-15)


def test_argmax_is_kept_for_any_labels_and_auroc_for_two() -> None:
    logits, labels = simulate(400, 2, 1.0, seed=7)
    many, _ = simulate(400, 5, 1.0, seed=7)
    for value in (0.3, 4.0):
        assert np.array_equal(temperature(value).apply(many).argmax(axis=1), many.argmax(axis=1))
        scores = temperature(value).apply(logits)[:, 1]
        assert roc_auc_score(labels, scores) == roc_auc_score(labels, logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize(("num_labels", "true_temperature"), [(2, 2.5), (2, 0.4), (4, 3.0)])
def test_a_known_temperature_is_recovered(num_labels: int, true_temperature: float) -> None:
    logits, labels = simulate(20_000, num_labels, true_temperature, seed=8)
    calibrator, warnings = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    assert warnings == []
    assert calibrator.num_rows == 20_000
    assert calibrator.temperature == pytest.approx(true_temperature, rel=0.05)


def test_the_optimum_meets_the_first_order_condition_and_is_a_minimum() -> None:
    logits, labels = simulate(500, 3, 2.0, seed=9)
    calibrator, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    beta = 1 / calibrator.temperature
    assert slope(beta, logits, labels) == pytest.approx(0, abs=1e-6)
    assert nll(beta, logits, labels) < min(nll(beta * 1.02, logits, labels), nll(beta / 1.02, logits, labels))
    # Convex in beta: the slope rises everywhere, so there is no other minimum.
    slopes = [slope(b, logits, labels) for b in np.linspace(0.01, 5, 100)]
    assert all(low < high for low, high in itertools.pairwise(slopes))


def test_two_labels_agree_with_logistic_regression_without_intercept() -> None:
    logits, labels = simulate(1000, 2, 1.8, seed=10)
    calibrator, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    odds = (logits[:, 1] - logits[:, 0])[:, None]
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(odds, labels).coef_[0, 0]
    assert 1 / calibrator.temperature == pytest.approx(oracle, rel=1e-5)


def test_rows_without_a_label_are_ignored() -> None:
    logits, labels = simulate(200, 2, 2.0, seed=11)
    alone, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    more = np.concatenate([logits, 50 * logits[:40]])
    padded, _ = fit_calibrator(more, np.append(labels, [-1] * 40), method="temperature", max_temperature=100.0)
    assert padded == alone


def test_perfect_separation_stops_at_the_lower_bound_and_warns() -> None:
    logits, _ = simulate(100, 3, 1.0, seed=12)
    calibrator, warnings = fit_calibrator(logits, logits.argmax(axis=1), method="temperature", max_temperature=50.0)
    assert calibrator.temperature == 1 / 50
    assert len(warnings) == 1
    assert "lower bound, 0.02" in warnings[0]


def test_logits_that_point_away_stop_at_the_upper_bound_and_warn() -> None:
    logits, labels = simulate(300, 2, 1.0, seed=13)
    calibrator, warnings = fit_calibrator(logits, 1 - labels, method="temperature", max_temperature=50.0)
    assert calibrator.temperature == 50.0
    assert len(warnings) == 1
    assert "upper bound, 50" in warnings[0]


def test_logits_that_say_nothing_leave_the_temperature_at_one_and_warn() -> None:
    calibrator, warnings = fit_calibrator(
        np.full((40, 2), 3.0), [0, 1] * 20, method="temperature", max_temperature=50.0
    )
    assert calibrator.temperature == 1.0
    assert "equal" in warnings[0]


def test_method_none_needs_no_labels() -> None:
    assert fit_calibrator([[0.0, 1.0]], [-1], method="none", max_temperature=100.0) == (IDENTITY, [])


def _spoiled(**change: object) -> dict[str, object]:
    logits, labels = simulate(60, 2, 1.0, seed=14)
    return {"logits_NK": logits, "labels_N": labels} | change


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
def test_rows_that_cannot_be_calibrated_on_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_calibrator(**_spoiled(**change), method="temperature", max_temperature=100.0)  # type: ignore[arg-type]


def test_unknown_methods_and_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="isotonic"):
        fit_calibrator([[0.0, 1.0]], [0], method="isotonic", max_temperature=100.0)
    with pytest.raises(ConfigError, match="above 1"):
        fit_calibrator([[0.0, 1.0]], [0], method="temperature", max_temperature=1.0)


def test_apply_refuses_what_is_not_a_number() -> None:
    with pytest.raises(NumericsError, match="1 of 2 rows"):
        IDENTITY.apply([[0.0, 1.0], [math.nan, 1.0]])


def test_json_gives_the_same_calibrator_back() -> None:
    calibrator = Calibrator(method="temperature", temperature=1 / 3, num_rows=77)
    assert Calibrator.from_json(json.loads(json.dumps(calibrator.to_json()))) == calibrator
    assert Calibrator.from_json(IDENTITY.to_json()) == IDENTITY


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "2"},
        {"temperature": True},
        {"temperature": None},
        {"method": "isotonic"},
        {"method": "none"},
        {"num_rows": -1},
        {"num_rows": 1.5},
        {"extra": 1},
    ],
)
def test_a_malformed_calibrator_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="calibrator of the bundle"):
        Calibrator.from_json({"method": "temperature", "temperature": 2.0, "num_rows": 50} | change)


def test_a_calibrator_that_is_no_object_or_lacks_a_key_is_refused() -> None:
    with pytest.raises(BundleError, match="expected the keys"):
        Calibrator.from_json([1, 2])  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="expected the keys"):
        Calibrator.from_json({"method": "temperature", "temperature": 2.0})
