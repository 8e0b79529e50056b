"""The identities of calibration, to 1e-9, and what scikit-learn makes of the same numbers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit, logsumexp
from scipy.special import softmax as scipy_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, _TemperatureScaling
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, fit_calibrator
from clsgen_dist.calibrate.simplex import invert_softmax, normalise

EXACT = 1e-9

LOGITS = arrays(np.float64, (5, 4), elements=st.floats(-20, 20))
TEMPERATURES = st.floats(0.05, 50)


def at(temperature: float) -> Calibrator:
    return Calibrator("temperature", {"temperature": (temperature,)}, 100)


def simulate(num_rows: int, num_labels: int, sharpness: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too sure by `sharpness`, and labels drawn from the honest probabilities."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(size=(num_rows, num_labels)) * 1.5
    return sharpness * honest, (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)


def nll(beta: float, logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood at temperature 1 / beta, by its formula."""
    return float((logsumexp(beta * logits, axis=1) - beta * logits[np.arange(len(labels)), labels]).mean())


def temperature_of(logits: np.ndarray, labels: np.ndarray) -> float:
    found = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)[0].temperature
    assert found is not None
    return found


class Said(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose features are its probabilities, as scikit-learn would calibrate it."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "Said":
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return X

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[X.argmax(axis=1)]


class Head(Said):
    """A classifier whose features are its logits."""

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        return X


@settings(max_examples=100)
@given(LOGITS)
def test_logits_come_back_from_probabilities_up_to_a_constant(logits: np.ndarray) -> None:
    difference = logits - invert_softmax(IDENTITY.apply(logits), floor=0, constant="zero")
    np.testing.assert_allclose(difference, np.repeat(logsumexp(logits, axis=1)[:, None], 4, axis=1), atol=EXACT)


@settings(max_examples=100)
@given(LOGITS, TEMPERATURES)
def test_a_temperature_is_a_power_of_the_probabilities(logits: np.ndarray, temperature: float) -> None:
    p = IDENTITY.apply(logits)
    power = (p / p.max(axis=1, keepdims=True)) ** (1 / temperature)
    power /= power.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(at(temperature).apply(logits), power, rtol=0, atol=EXACT)
    for constant in ("zero", "centred"):
        said = invert_softmax(p, floor=0, constant=constant)  # type: ignore[arg-type]
        np.testing.assert_allclose(at(temperature).apply(said), power, rtol=0, atol=EXACT)


@settings(max_examples=100)
@given(LOGITS, TEMPERATURES, TEMPERATURES)
def test_temperatures_compose_by_multiplication(logits: np.ndarray, first: float, second: float) -> None:
    once = logits / first
    np.testing.assert_allclose(at(second).apply(once), at(first * second).apply(logits), rtol=0, atol=EXACT)
    if first >= 1:  # a sharper first one underflows to probabilities of 0, which no logarithm brings back
        twice = at(second).apply(invert_softmax(at(first).apply(logits), floor=0, constant="zero"))
        np.testing.assert_allclose(twice, at(first * second).apply(logits), rtol=0, atol=EXACT)


@settings(max_examples=100)
@given(arrays(np.float64, (5, 2), elements=st.floats(-8, 8)), TEMPERATURES)
def test_two_labels_are_a_sigmoid_of_the_log_odds(logits: np.ndarray, temperature: float) -> None:
    expected = expit(logit(IDENTITY.apply(logits)[:, 1]) / temperature)
    np.testing.assert_allclose(at(temperature).apply(logits)[:, 1], expected, rtol=0, atol=EXACT)


@settings(max_examples=100)
@given(LOGITS)
def test_a_temperature_of_one_is_softmax_and_the_extremes_are_uniform_and_one_hot(logits: np.ndarray) -> None:
    np.testing.assert_allclose(at(1.0).apply(logits), scipy_softmax(logits, axis=1), rtol=0, atol=EXACT)
    np.testing.assert_allclose(at(1e12).apply(logits), 0.25, rtol=0, atol=EXACT)
    distinct = np.round(logits, 2) + np.array([0.0, 0.001, 0.002, 0.003])
    np.testing.assert_allclose(at(1e-6).apply(distinct), np.eye(4)[distinct.argmax(axis=1)], rtol=0, atol=EXACT)


@settings(max_examples=100)
@given(arrays(np.float64, (5, 4), elements=st.floats(1e-6, 1)), st.floats(0.01, 1000))
def test_a_wrong_sum_is_repaired(p: np.ndarray, factor: float) -> None:
    logits = invert_softmax(factor * p, floor=0, constant="centred")
    np.testing.assert_allclose(IDENTITY.apply(logits), normalise(p), rtol=0, atol=EXACT)


@pytest.mark.parametrize("num_labels", [2, 3, 6, 77])
def test_a_second_softmax_squeezes_all_probabilities_into_a_narrow_range(num_labels: int) -> None:
    sharp = np.eye(num_labels)[:1]
    squeezed = IDENTITY.apply(sharp)  # probabilities taken for logits
    highest, lowest = math.e / (math.e + num_labels - 1), 1 / (math.e + num_labels - 1)
    np.testing.assert_allclose(squeezed[0, :2], [highest, lowest], rtol=0, atol=EXACT)
    p = np.random.default_rng(0).dirichlet(np.full(num_labels, 0.1), size=500)
    again = IDENTITY.apply(p)
    assert again.max() <= highest + EXACT
    assert again.min() >= lowest - EXACT
    assert (again.max(axis=1) / again.min(axis=1)).max() <= math.e + EXACT


def test_a_second_softmax_of_two_labels_is_a_sigmoid_and_no_temperature_repairs_it() -> None:
    p = np.linspace(0, 1, 101)
    again = IDENTITY.apply(np.stack([1 - p, p], axis=1))[:, 1]
    np.testing.assert_allclose(again, expit(2 * p - 1), rtol=0, atol=EXACT)
    assert (again[0], again[-1]) == (pytest.approx(1 / (1 + math.e)), pytest.approx(math.e / (1 + math.e)))
    # What brings 0.9 back spoils 0.99, and the other way round.
    needed = [(2 * q - 1) / logit(q) for q in (0.9, 0.99)]
    assert needed == pytest.approx([0.364, 0.213], abs=5e-4)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_the_likelihood_is_convex_in_the_inverse_temperature_with_the_variance_as_curvature(seed: int) -> None:
    logits, labels = simulate(60, 4, 2.0, seed)
    betas = np.linspace(0.05, 3, 60)
    losses = np.array([nll(beta, logits, labels) for beta in betas])
    assert (np.diff(losses, 2) > -1e-12).all()
    # NLL'(beta) = mean E[z] - mean z_y and NLL''(beta) = mean Var[z], against differences of one another.
    p = at(1 / 0.7).apply(logits)
    mean = (p * logits).sum(axis=1)
    variance = float(((p * logits**2).sum(axis=1) - mean**2).mean())
    step = 1e-4
    second = (
        nll(0.7 + step, logits, labels) - 2 * nll(0.7, logits, labels) + nll(0.7 - step, logits, labels)
    ) / step**2
    assert second == pytest.approx(variance, rel=1e-5)


def test_the_likelihood_is_not_convex_in_the_temperature() -> None:
    logits, labels = simulate(300, 3, 2.0, seed=1)
    losses = [nll(1 / temperature, logits, labels) for temperature in np.linspace(1, 30, 100)]
    assert np.diff(losses, 2).min() < -1e-6


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 6]), st.floats(0.3, 4))
def test_the_optimum_is_where_the_expected_logit_is_that_of_the_labels(
    seed: int, num_labels: int, sharpness: float
) -> None:
    logits, labels = simulate(300, num_labels, sharpness, seed)
    temperature = temperature_of(logits, labels)
    p = at(temperature).apply(logits)
    expected, own = (p * logits).sum(axis=1).mean(), logits[np.arange(300), labels].mean()
    assert expected == pytest.approx(own, abs=EXACT)
    best = nll(1 / temperature, logits, labels)
    for low, high in itertools.pairwise(np.geomspace(0.01, 100, 30)):
        assert best <= min(nll(1 / low, logits, labels), nll(1 / high, logits, labels)) + 1e-12


@settings(max_examples=50)
@given(LOGITS, TEMPERATURES)
def test_arg_max_is_kept_for_any_labels(logits: np.ndarray, temperature: float) -> None:
    distinct = np.round(logits, 3) + np.array([0.0, 1e-4, 2e-4, 3e-4])
    assert np.array_equal(at(temperature).apply(distinct / 4).argmax(axis=1), distinct.argmax(axis=1))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.3, 30), st.floats(-3, 3))
def test_for_two_labels_auroc_and_auprc_are_kept_by_temperature_and_platt(
    seed: int, temperature: float, bias: float
) -> None:
    logits, labels = simulate(80, 2, 1.0, seed)
    if len(set(labels)) < 2:
        return
    odds = logits[:, 1] - logits[:, 0]
    platt = Calibrator("platt", {"slope": (1 / temperature,), "intercept": (bias,)}, 100)
    for calibrator in (at(temperature), platt):
        scores = calibrator.apply(logits)[:, 1]
        assert roc_auc_score(labels, scores) == pytest.approx(roc_auc_score(labels, odds), abs=EXACT)
        assert average_precision_score(labels, scores) == pytest.approx(
            average_precision_score(labels, odds), abs=EXACT
        )


def test_for_more_labels_one_against_the_rest_is_not_kept() -> None:
    p = np.array([[0.5, 0.5, 0.0], [0.45, 0.275, 0.275]])
    before = p[:, 0]
    after = at(0.25).apply(invert_softmax(p, floor=1e-12, constant="zero"))[:, 0]
    assert before[0] > before[1]
    assert after[0] < after[1]
    assert roc_auc_score([1, 0], before) == 1
    assert roc_auc_score([1, 0], after) == 0


@settings(max_examples=50)
@given(LOGITS, arrays(np.float64, (5, 1), elements=st.floats(-50, 50)), TEMPERATURES)
def test_the_constant_of_a_row_is_irrelevant_to_temperature(
    logits: np.ndarray, constant: np.ndarray, temperature: float
) -> None:
    moved = at(temperature).apply(logits + constant)
    np.testing.assert_allclose(moved, at(temperature).apply(logits), rtol=0, atol=EXACT)


def test_the_constant_is_irrelevant_to_a_fitted_temperature_and_to_platt_but_not_to_vector_scaling() -> None:
    logits, labels = simulate(400, 3, 2.0, seed=3)
    p = IDENTITY.apply(logits)
    zero, centred = (invert_softmax(p, floor=0.01, constant=c) for c in ("zero", "centred"))  # type: ignore[arg-type]
    assert temperature_of(zero, labels) == pytest.approx(temperature_of(centred, labels), rel=EXACT)
    pair, pair_labels = simulate(400, 2, 2.0, seed=4)
    moved = pair + np.linspace(-5, 5, 400)[:, None]
    fits = [fit_calibrator(given, pair_labels, method="platt", max_temperature=100.0)[0] for given in (pair, moved)]
    np.testing.assert_allclose(fits[0].apply(pair), fits[1].apply(moved), rtol=0, atol=EXACT)
    # Scales of each label act on the constant too: W (s + c 1) = W s + c W 1.
    scale = np.array([0.5, 1.0, 2.0])
    assert np.abs(scipy_softmax(scale * zero, axis=1) - scipy_softmax(scale * centred, axis=1)).max() > 0.1
    # That is why our vector scaling centres by itself: the same map from either.
    vectors = [fit_calibrator(given, labels, method="vector", max_temperature=100.0)[0] for given in (zero, centred)]
    np.testing.assert_allclose(vectors[0].apply(zero), vectors[1].apply(centred), rtol=0, atol=EXACT)


@settings(max_examples=50)
@given(st.floats(0.001, 0.999), TEMPERATURES, st.lists(st.floats(-7, 7), min_size=1, max_size=20))
def test_thresholds_move_with_the_temperature(threshold: float, temperature: float, odds: list[float]) -> None:
    far = np.array([d for d in odds if abs(d - logit(threshold)) > 1e-6])
    before = expit(far) >= threshold
    after = at(temperature).apply(np.stack([-far / 2, far / 2], axis=1))[:, 1] >= expit(logit(threshold) / temperature)
    assert np.array_equal(before, after)


def test_a_threshold_of_30_percent_at_2_7() -> None:
    assert at(2.7).apply([[math.log(0.7), math.log(0.3)]])[0, 1] == pytest.approx(0.4222, abs=5e-5)


def test_the_inverse_temperature_is_the_slope_of_a_logistic_regression_without_intercept() -> None:
    logits, labels = simulate(500, 2, 1.7, seed=5)
    odds = (logits[:, 1] - logits[:, 0])[:, None]
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    assert 1 / temperature_of(logits, labels) == pytest.approx(oracle.fit(odds, labels).coef_[0, 0], abs=EXACT)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_the_temperature_agrees_with_scikit_learn(num_labels: int) -> None:
    logits, labels = simulate(500, num_labels, 1.7, seed=6)
    temperature = temperature_of(logits, labels)
    theirs = _TemperatureScaling().fit(logits, labels)
    # Their search compares likelihoods, whose rounding hides about 1e-8 of beta.
    assert 1 / temperature == pytest.approx(theirs.beta_, rel=1e-6)
    ours = nll(1 / temperature, logits, labels)
    assert ours == pytest.approx(nll(float(theirs.beta_), logits, labels), abs=EXACT)
    assert ours <= nll(float(theirs.beta_), logits, labels) + 1e-15
    np.testing.assert_allclose(theirs.predict(logits), at(1 / float(theirs.beta_)).apply(logits), rtol=0, atol=EXACT)


def test_scikit_learn_takes_one_dimensional_scores_for_half_the_log_odds() -> None:
    logits, labels = simulate(500, 2, 1.7, seed=7)
    theirs = _TemperatureScaling().fit(logits[:, 1] - logits[:, 0], labels)
    assert temperature_of(logits, labels) == pytest.approx(1 / (2 * float(theirs.beta_)), rel=1e-6)


@pytest.mark.parametrize("num_labels", [3, 5])
def test_said_probabilities_agree_with_the_calibrated_classifier_of_scikit_learn(num_labels: int) -> None:
    logits, labels = simulate(600, num_labels, 2.0, seed=8)
    p = normalise(IDENTITY.apply(logits / 3) + 0.01)
    theirs = CalibratedClassifierCV(FrozenEstimator(Said().fit(p, labels)), method="temperature", ensemble=False)
    theirs.fit(p, labels)
    said = invert_softmax(p, floor=0, constant="zero")
    ours, _ = fit_calibrator(said, labels, method="temperature", max_temperature=100.0)
    np.testing.assert_allclose(ours.apply(said), theirs.predict_proba(p), rtol=0, atol=1e-6)
    logits_of_a_head = CalibratedClassifierCV(
        FrozenEstimator(Head().fit(logits, labels)), method="temperature", ensemble=False
    ).fit(logits, labels)
    ours, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=100.0)
    np.testing.assert_allclose(ours.apply(logits), logits_of_a_head.predict_proba(logits), rtol=0, atol=1e-6)


def test_one_row_that_sums_to_99_percent_turns_scikit_learn_but_not_us() -> None:
    logits, labels = simulate(1000, 2, 1.0, seed=9)
    p = normalise(np.maximum(IDENTITY.apply(logits), 0.01))
    spoiled = p.copy()
    spoiled[123] *= 0.99
    theirs = [float(_TemperatureScaling().fit(given, labels).beta_) for given in (p, spoiled)]
    assert theirs[1] > 2 * theirs[0]  # a silent re-softmax of all rows
    rest = np.arange(1000) != 123
    ours = []
    for given_p in (p, spoiled):
        said = invert_softmax(given_p, floor=0.005, constant="zero")
        calibrator, _ = fit_calibrator(said, labels, method="temperature", max_temperature=100.0)
        ours.append((calibrator.temperature, calibrator.apply(said)))
    assert ours[0][0] == pytest.approx(1 / theirs[0], rel=0.02)
    assert ours[0][0] == pytest.approx(ours[1][0], rel=EXACT)
    np.testing.assert_allclose(ours[0][1], ours[1][1], rtol=0, atol=EXACT)
    # With one calibrator for both, the other rows agree bit for bit: nothing looks at the batch.
    both = [at(2.0).apply(invert_softmax(given_p, floor=0.005, constant="zero"))[rest] for given_p in (p, spoiled)]
    assert np.array_equal(both[0], both[1])


def test_zeros_stay_zeros_at_every_temperature_so_that_a_floor_decides_the_fit() -> None:
    generator = np.random.default_rng(10)
    honest = generator.normal(0, 1.5, 2000)
    said = np.round(expit(2.5 * honest) / 0.05) * 0.05
    p, labels = np.stack([1 - said, said], axis=1), (generator.random(2000) < expit(honest)).astype(int)
    assert (p == 0).any()
    temperatures = [
        temperature_of(invert_softmax(p, floor=floor, constant="zero"), labels) for floor in (1e-12, 1e-6, 1e-3, 0.01)
    ]
    assert all(low > high for low, high in itertools.pairwise(temperatures))
    assert temperatures[0] > 2 * temperatures[-1]
