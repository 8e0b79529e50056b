"""The maps for two labels and for more: their formulas, their fits against other solvers, and their bounds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit
from sklearn.calibration import _sigmoid_calibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from clsgen_dist.calibrate.newton import minimise
from clsgen_dist.calibrate.scaling import Calibrator, fit_calibrator
from clsgen_dist.calibrate.vector import BIAS_RIDGE, SCALE_RIDGE
from clsgen_dist.errors import NumericsError

ODDS = np.linspace(-8, 8, 161)


def two(odds: np.ndarray) -> np.ndarray:
    """Logits of two labels with these log-odds."""
    return np.stack([np.full(len(odds), 0.7), odds + 0.7], axis=1)


def biased(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are twice too sure and 1.5 too low, and labels."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(-0.5, 1.5, num_rows)
    return 2 * honest - 1.5, (generator.random(num_rows) < expit(honest)).astype(int)


def many(num_rows: int, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that need a scale of 1.2 down to 0.6 and a bias of -1 up to 1, and labels."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (num_rows, num_labels))
    honest = (logits - logits.mean(axis=1, keepdims=True)) * scales(num_labels) + np.linspace(-1, 1, num_labels)
    return logits, (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)


def scales(num_labels: int) -> np.ndarray:
    return np.linspace(1.2, 0.6, num_labels)


def fitted(odds: np.ndarray, labels: np.ndarray, method: str, bound: float = 100.0) -> tuple[Calibrator, list[str]]:
    return fit_calibrator(two(odds), labels, method=method, max_temperature=bound)


def platts_rows(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and weights of which a logistic regression on labels is one on Platt's smoothed targets."""
    num_positive, num_negative = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2))
    ones = np.ones(len(labels), dtype=int)
    return np.concatenate([features] * 2), np.append(ones, 1 - ones), np.append(target, 1 - target)


def slope_and_intercept(features: np.ndarray, labels: np.ndarray) -> list[float]:
    rows, targets, weights = platts_rows(features, labels)
    oracle = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-13, max_iter=500)
    oracle.fit(rows, targets, sample_weight=weights)
    return [*oracle.coef_[0], oracle.intercept_[0]]


def test_the_maps_are_their_formulas() -> None:
    platt = Calibrator("platt", {"slope": (0.7,), "intercept": (-1.1,)}, 5)
    np.testing.assert_allclose(platt.apply(two(ODDS))[:, 1], expit(0.7 * ODDS - 1.1), atol=1e-14)
    beta = Calibrator("beta", {"a": (0.6,), "b": (1.4,), "c": (0.3,)}, 5)
    p = expit(ODDS)
    expected = expit(0.6 * np.log(p) - 1.4 * np.log(1 - p) + 0.3)
    np.testing.assert_allclose(beta.apply(two(ODDS))[:, 1], expected, atol=1e-13)
    isotonic = Calibrator("isotonic", {"logit": (-1.0, 1.0, 2.0), "probability": (0.2, 0.4, 0.9)}, 5)
    odds = np.array([-9.0, -1.0, 0.0, 1.0, 1.5, 2.0, 1e6])
    expected = np.array([0.2, 0.2, 0.3, 0.4, 0.65, 0.9, 0.9])
    np.testing.assert_allclose(isotonic.apply(two(odds))[:, 1], expected, atol=1e-14)
    average = Calibrator("average", {"weight": (0.25, 0.75), "slope": (2.0, 0.5), "intercept": (0.0, -1.0)}, 5)
    expected = 0.25 * expit(2 * ODDS) + 0.75 * expit(0.5 * ODDS - 1)
    np.testing.assert_allclose(average.apply(two(ODDS))[:, 1], expected, atol=1e-14)
    vector = Calibrator("vector", {"scale": (0.5, 1.0, 2.0), "bias": (0.1, 0.0, -0.4)}, 5)
    logits = np.array([[1.0, 2.0, 6.0]])
    expected = np.array([[0.5 * -2 + 0.1, -1.0, 2 * 3 - 0.4]])
    np.testing.assert_allclose(np.log(vector.apply(logits)), log_softmax(expected, axis=1), atol=1e-14)


def test_simple_maps_are_special_cases_of_the_others() -> None:
    temperature = Calibrator("temperature", {"temperature": (2.5,)}, 5).apply(two(ODDS))
    platt = Calibrator("platt", {"slope": (0.4,), "intercept": (0.0,)}, 5).apply(two(ODDS))
    beta = Calibrator("beta", {"a": (0.4,), "b": (0.4,), "c": (0.0,)}, 5).apply(two(ODDS))
    np.testing.assert_allclose(platt, temperature, atol=1e-14)
    np.testing.assert_allclose(beta, temperature, atol=1e-14)
    logits, _ = many(50, 4, seed=0)
    vector = Calibrator("vector", {"scale": (0.4,) * 4, "bias": (0.0,) * 4}, 5).apply(logits)
    np.testing.assert_allclose(
        vector, Calibrator("temperature", {"temperature": (2.5,)}, 5).apply(logits), rtol=0, atol=1e-14
    )


def test_an_average_is_exact_where_probabilities_round_to_one_and_for_many_rows() -> None:
    average = Calibrator("average", {"weight": (0.5, 0.5), "slope": (1.0, 2.0), "intercept": (0.0, 0.0)}, 5)
    odds = np.linspace(-700, 700, 25_001)
    p = average.apply(two(odds))
    assert p[0, 1] == pytest.approx(0.5 * math.exp(-700), rel=1e-10)
    assert p[-1, 0] == pytest.approx(0.5 * math.exp(-700), rel=1e-10)
    np.testing.assert_allclose(p[:, 1], (expit(odds) + expit(2 * odds)) / 2, rtol=0, atol=1e-14)


def test_a_beta_map_is_exact_where_probabilities_round_to_one() -> None:
    beta = Calibrator("beta", {"a": (0.01,), "b": (0.02,), "c": (0.0,)}, 5)
    far = beta.apply(two(np.array([-500.0, 500.0])))[:, 1]
    np.testing.assert_allclose(far, [expit(-5.0), expit(10.0)], rtol=1e-12)


@settings(max_examples=60)
@given(
    st.one_of(
        st.builds(
            lambda a, b: Calibrator("platt", {"slope": (a,), "intercept": (b,)}, 5),
            st.floats(0.01, 100),
            st.floats(-20, 20),
        ),
        st.builds(
            lambda a, b, c: Calibrator("beta", {"a": (a,), "b": (b,), "c": (c,)}, 5),
            st.floats(0.01, 100),
            st.floats(0, 100),
            st.floats(-20, 20),
        ),
        st.builds(
            lambda p: Calibrator(
                "isotonic",
                {"logit": tuple(np.linspace(-4.0, 4.0, len(p)).tolist()), "probability": tuple(sorted(p))},
                5,
            ),
            st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=6),
        ),
        st.builds(
            lambda maps: Calibrator(
                "average",
                {
                    "weight": (1 / len(maps),) * len(maps),
                    "slope": tuple(slope for slope, _ in maps),
                    "intercept": tuple(intercept for _, intercept in maps),
                },
                5,
            ),
            st.lists(st.tuples(st.floats(0.01, 100), st.floats(-20, 20)), min_size=1, max_size=6),
        ),
    ),
    st.lists(st.floats(-50, 50), min_size=2, max_size=10),
)
def test_maps_of_the_log_odds_never_turn_two_rows_around(calibrator: Calibrator, odds: list[float]) -> None:
    rising = np.sort(odds)
    assert (np.diff(calibrator.apply(np.stack([-rising / 2, rising / 2], axis=1))[:, 1]) >= -1e-15).all()


def test_platt_agrees_with_scikit_learn_on_log_odds() -> None:
    odds, labels = biased(800, seed=1)
    calibrator, warnings = fitted(odds, labels, "platt")
    assert warnings == []
    slope, intercept = calibrator.parameters["slope"][0], calibrator.parameters["intercept"][0]
    assert [slope, intercept] == pytest.approx(slope_and_intercept(odds[:, None], labels), rel=1e-8)
    # scikit-learn's Platt has the opposite signs, and stops where the gradient is 1e-6 of all rows together.
    theirs = _sigmoid_calibration(odds, labels)
    assert [-slope, -intercept] == pytest.approx(list(theirs), rel=1e-5)


def test_platt_mends_sharpness_and_bias() -> None:
    odds, labels = biased(20_000, seed=2)
    calibrator, _ = fitted(odds, labels, "platt")
    assert calibrator.parameters["slope"][0] == pytest.approx(0.5, rel=0.05)
    assert calibrator.parameters["intercept"][0] == pytest.approx(0.75, abs=0.06)


def test_beta_agrees_with_logistic_regression_on_the_two_logarithms() -> None:
    odds, labels = biased(3000, seed=3)
    calibrator, warnings = fitted(odds, labels, "beta")
    assert warnings == []
    found = [calibrator.parameters[name][0] for name in "abc"]
    features = np.stack([np.log(expit(odds)), -np.log(expit(-odds))], axis=1)
    assert min(found[:2]) > 0
    assert found == pytest.approx(slope_and_intercept(features, labels), rel=1e-7)


def test_a_beta_slope_below_zero_is_held_at_zero_and_the_others_are_best_there() -> None:
    generator = np.random.default_rng(4)
    odds = generator.normal(0, 2, 4000)
    # Of the odds above 0, higher ones are less likely: only log p, which is flat there, may count.
    labels = (generator.random(4000) < expit(1.5 * np.minimum(odds, 0) - 0.3 * np.maximum(odds, 0))).astype(int)
    calibrator, _ = fitted(odds, labels, "beta")
    assert calibrator.parameters["b"] == (0.0,)
    alone = slope_and_intercept(np.log(expit(odds))[:, None], labels)
    assert [calibrator.parameters["a"][0], calibrator.parameters["c"][0]] == pytest.approx(alone, rel=1e-7)


def test_isotonic_agrees_with_scikit_learn_between_the_smallest_and_largest_share() -> None:
    odds, labels = biased(1200, seed=5)
    calibrator, warnings = fitted(odds, labels, "isotonic")
    assert warnings == []
    theirs = IsotonicRegression(out_of_bounds="clip").fit(odds, labels)
    expected = theirs.predict(odds).clip(1 / 1202, 1 - 1 / 1202)
    mine = calibrator.apply(two(odds))[:, 1]
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-12)
    assert mine.min() == pytest.approx(1 / 1202)
    # Between two rows it is linear, as theirs.
    middle = np.quantile(odds, np.linspace(0.2, 0.8, 50))
    np.testing.assert_allclose(calibrator.apply(two(middle))[:, 1], theirs.predict(middle), rtol=0, atol=1e-12)
    assert calibrator.num_parameters == len(np.unique(expected))
    assert 3 < calibrator.num_parameters < 100


def test_isotonic_ties_rows_but_never_says_never() -> None:
    odds = np.linspace(-3, 3, 1000)
    calibrator, warnings = fitted(odds, (odds > 0).astype(int), "isotonic")
    assert "separates" in warnings[0]
    p = calibrator.apply(two(np.array([-1e300, 1e300])))[:, 1]
    np.testing.assert_allclose(p, [1 / 1002, 1001 / 1002], rtol=1e-12)


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
def test_separated_rows_give_a_bounded_map_and_a_warning(method: str) -> None:
    odds = np.concatenate([np.linspace(-3, -0.1, 30), np.linspace(0.1, 3, 30)])
    calibrator, warnings = fitted(odds, (odds > 0).astype(int), method)
    assert any("separates the 60 calibration rows" in warning for warning in warnings)
    p = calibrator.apply(two(odds))[:, 1]
    assert 1e-6 < p[0] < 0.1
    assert 0.9 < p[-1] < 1 - 1e-6


@pytest.mark.parametrize("method", ["platt", "beta"])
def test_log_odds_that_point_away_keep_their_order_nearly_flat_and_warn(method: str) -> None:
    odds, labels = biased(1500, seed=6)
    calibrator, warnings = fitted(odds, 1 - labels, method, bound=50.0)
    assert len(warnings) == 1
    assert "lower bound, 0.02" in warnings[0]
    p = calibrator.apply(two(np.sort(odds)))[:, 1]
    assert (np.diff(p) > 0).all()
    assert p.mean() == pytest.approx(1 - labels.mean(), abs=0.01)


def test_isotonic_on_log_odds_that_point_away_is_flat_and_warns() -> None:
    odds = np.linspace(-3, 3, 1000)
    calibrator, warnings = fitted(odds, (odds < 0.3).astype(int), "isotonic")
    assert "flat" in warnings[0]
    assert calibrator.num_parameters == 1
    np.testing.assert_allclose(calibrator.apply(two(ODDS))[:, 1], np.mean(odds < 0.3), atol=1e-12)


@pytest.mark.parametrize("method", ["platt", "beta", "isotonic"])
def test_equal_log_odds_give_the_share_of_the_label(method: str) -> None:
    labels = np.array([0, 1, 1, 1] * 300)
    calibrator, _ = fitted(np.full(1200, 2.0), labels, method)
    assert calibrator.apply(two(np.array([2.0])))[0, 1] == pytest.approx(0.75, abs=0.002)


def test_slopes_stop_at_the_upper_bound_and_warn() -> None:
    odds, labels = biased(1500, seed=7)
    calibrator, warnings = fitted(odds / 1000, labels, "platt", bound=10.0)
    assert calibrator.parameters["slope"] == (10.0,)
    assert "upper bound, 10" in warnings[0]
    assert "upper bound, 10" in fitted(odds / 1000, labels, "beta", bound=10.0)[1][0]


def test_vector_agrees_with_another_solver_on_the_same_objective() -> None:
    logits, labels = many(400, 4, seed=8)
    calibrator, warnings = fit_calibrator(logits, labels, method="vector", max_temperature=100.0)
    temperature, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    assert warnings == []
    assert temperature.temperature is not None
    centred, beta = logits - logits.mean(axis=1, keepdims=True), 1 / temperature.temperature

    def objective(at: np.ndarray) -> float:
        scale, bias = at[:4], at[4:]
        log_p = log_softmax(scale * centred + bias, axis=1)[np.arange(400), labels]
        return float(
            -log_p.sum() + SCALE_RIDGE / 2 * np.sum((scale / beta - 1) ** 2) + BIAS_RIDGE / 2 * np.sum(bias**2)
        )

    found = np.array([*calibrator.parameters["scale"], *calibrator.parameters["bias"]])
    theirs = minimize(objective, np.array([beta] * 4 + [0.0] * 4), method="BFGS", options={"gtol": 1e-5}).x
    np.testing.assert_allclose(found, theirs, atol=1e-5)
    assert objective(found) <= objective(theirs) + 1e-9


def test_vector_mends_what_a_temperature_cannot() -> None:
    logits, labels = many(60_000, 4, seed=9)
    calibrator, _ = fit_calibrator(logits[:40_000], labels[:40_000], method="vector", max_temperature=100.0)
    temperature, _ = fit_calibrator(logits[:40_000], labels[:40_000], method="temperature", max_temperature=100.0)

    def loss(fit: Calibrator) -> float:
        return float(-np.log(fit.apply(logits[40_000:])[np.arange(20_000), labels[40_000:]]).mean())

    assert loss(calibrator) < loss(temperature) - 0.05
    np.testing.assert_allclose(calibrator.parameters["scale"], scales(4), atol=0.04)
    np.testing.assert_allclose(calibrator.parameters["bias"], np.linspace(-1, 1, 4), atol=0.08)


def test_vector_is_finite_for_a_label_that_no_row_has_and_for_separated_rows() -> None:
    logits, labels = many(300, 4, seed=10)
    seen = labels != 3
    calibrator, _ = fit_calibrator(logits[seen], labels[seen], method="vector", max_temperature=100.0)
    assert np.abs([*calibrator.parameters["scale"], *calibrator.parameters["bias"]]).max() < 20
    assert 0 < calibrator.apply(logits[seen])[:, 3].mean() < 0.1
    calibrator, warnings = fit_calibrator(logits, logits.argmax(axis=1), method="vector", max_temperature=100.0)
    assert "lower bound, 0.01" in warnings[0]
    assert np.isfinite(calibrator.apply(logits)).all()


def test_a_label_whose_logit_points_away_is_named() -> None:
    logits, labels = many(3000, 3, seed=11)
    logits[:, 1] *= -1
    warnings = fit_calibrator(logits, labels, method="vector", max_temperature=100.0)[1]
    assert any("scale of label number 1 is not above 0" in warning for warning in warnings)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_fits_do_not_depend_on_the_scale_of_the_log_odds(scale: float, offset: float) -> None:
    odds, labels = biased(400, seed=12)
    plain = fitted(odds, labels, "platt")[0].apply(two(odds))
    # A bound that no slope meets: 0.5 / scale.
    moved = scale * odds + offset
    np.testing.assert_allclose(fitted(moved, labels, "platt", bound=1e9)[0].apply(two(moved)), plain, atol=1e-7)


def test_a_search_that_does_not_end_says_so() -> None:
    def downhill(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return float(-at[0]), np.array([-1.0]), np.array([[1.0]])

    unbounded = np.array([math.inf])
    with pytest.raises(NumericsError, match="no least likelihood after"):
        minimise(downhill, np.zeros(1), -unbounded, unbounded)


def test_the_search_stops_on_a_face_of_the_box() -> None:
    matrix = np.array([[2.0, 1.9], [1.9, 2.0]])

    def bowl(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        away = at - np.array([3.0, -4.0])
        return float(away @ matrix @ away) / 2, matrix @ away, matrix

    found = minimise(bowl, np.array([5.0, 5.0]), np.zeros(2), np.full(2, math.inf))
    # At second = 0 the first solves 2 (x - 3) + 1.9 * 4 = 0, which is below 0 as well.
    np.testing.assert_allclose(found, [0.0, 0.0], atol=1e-12)
    found = minimise(bowl, np.array([5.0, 5.0]), np.array([-9.0, -1.0]), np.full(2, math.inf))
    np.testing.assert_allclose(found, [3 - 1.9 * 3 / 2, -1.0], atol=1e-9)


def test_thresholds_move_with_platt() -> None:
    platt = Calibrator("platt", {"slope": (0.7,), "intercept": (-1.1,)}, 5)
    moved = expit(0.7 * logit(0.3) - 1.1)
    assert np.array_equal(expit(ODDS) >= 0.3, platt.apply(two(ODDS))[:, 1] >= moved)
