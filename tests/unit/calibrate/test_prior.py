"""Prior shift, against populations that are simulated with other shares of labels."""

import numpy as np
import pytest

from clsgen_dist.calibrate.prior import with_prior
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, fit_calibrator
from clsgen_dist.errors import ConfigError, DataError

CENTRES = np.array([[0.0, 0.0], [1.5, 0.5], [0.0, 2.0]])


def draw(num_rows: int, prior: list[float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A feature and a label of each row; rows of one label look the same whatever the prior is."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(len(prior), size=num_rows, p=prior)
    return CENTRES[labels] + generator.normal(size=(num_rows, 2)), labels


def posterior(features: np.ndarray, prior: list[float]) -> np.ndarray:
    """What Bayes' rule says where labels have these shares."""
    distance = ((features[:, None, :] - CENTRES[: len(prior)]) ** 2).sum(axis=2)
    weights = np.exp(-distance / 2) * prior
    return weights / weights.sum(axis=1, keepdims=True)


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize(("before", "after"), [([0.5, 0.5], [0.97, 0.03]), ([0.2, 0.3, 0.5], [0.7, 0.2, 0.1])])
def test_the_posterior_of_one_population_becomes_that_of_the_other(before: list[float], after: list[float]) -> None:
    features, _ = draw(500, after, seed=0)
    # As many rows of each label as its share says: beside 10 000 rows the halves that are added hardly count.
    labels = np.repeat(np.arange(len(before)), np.rint(10_000 * np.array(before)).astype(int))
    shifted = with_prior(IDENTITY, labels, after)
    found = shifted.apply(np.log(posterior(features, before)))
    np.testing.assert_allclose(found, posterior(features, after), rtol=0, atol=5e-5)


def test_a_calibrator_of_balanced_rows_is_right_where_labels_are_rare() -> None:
    rare = [0.95, 0.05]
    features, labels = draw(4000, [0.5, 0.5], seed=1)
    # A head that is too sure, and biased beside it.
    logits = 2.0 * np.log(posterior(features, [0.5, 0.5])) + [0.0, 0.7]
    calibrator, _ = fit_calibrator(logits, labels, method="platt", max_temperature=100.0)
    shifted = with_prior(calibrator, labels, rare)

    features, labels = draw(40_000, rare, seed=2)
    logits = 2.0 * np.log(posterior(features, [0.5, 0.5])) + [0.0, 0.7]
    truth = posterior(features, rare)
    before, after = calibrator.apply(logits), shifted.apply(logits)
    assert before[:, 1].mean() > 0.2
    assert after[:, 1].mean() == pytest.approx(labels.mean(), abs=0.01)
    assert np.abs(after - truth).mean() < 0.01
    assert nll(after, labels) < nll(before, labels) - 0.1
    assert nll(after, labels) == pytest.approx(nll(truth, labels), abs=0.005)


def test_three_labels_are_shifted_by_their_shares_among_the_calibration_rows() -> None:
    features, labels = draw(20_000, [0.2, 0.3, 0.5], seed=3)
    shifted = with_prior(IDENTITY, labels, [0.7, 0.2, 0.1])
    logits = np.log(posterior(features, [0.2, 0.3, 0.5]))
    np.testing.assert_allclose(shifted.apply(logits), posterior(features, [0.7, 0.2, 0.1]), rtol=0, atol=0.02)


def test_probabilities_are_multiplied_by_the_change_of_shares_and_an_earlier_shift_is_replaced() -> None:
    labels = np.array([0] * 30 + [1] * 10 + [-1] * 60)
    share = np.array([30.5, 10.5]) / 41
    logits = np.random.default_rng(4).normal(size=(20, 2)) * 3
    calibrator = Calibrator(method="temperature", parameters={"temperature": (1.7,)}, num_rows=40)
    once = with_prior(calibrator, labels, [0.9, 0.1])
    weights = calibrator.apply(logits) * [0.9, 0.1] / share
    np.testing.assert_allclose(once.apply(logits), weights / weights.sum(axis=1, keepdims=True), rtol=0, atol=1e-12)
    assert with_prior(once, labels, [0.9, 0.1]) == once
    assert once.num_rows == 40


def test_a_label_that_no_calibration_row_has_keeps_a_finite_shift() -> None:
    shifted = with_prior(IDENTITY, [0] * 30 + [1] * 30, [0.5, 0.4, 0.1])
    assert shifted.log_prior_shift is not None
    assert np.isfinite(shifted.log_prior_shift).all()


def test_the_prior_of_the_rows_themselves_shifts_nothing() -> None:
    shifted = with_prior(IDENTITY, [0, 1] * 50, [0.5, 0.5])
    assert shifted.log_prior_shift == pytest.approx((0.0, 0.0), abs=1e-15)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ([0.5, 0.4], "sum to 0.9"),
        ([1.0, 0.0], "above 0"),
        ([1.5, -0.5], "above 0"),
        ([np.nan, 1.0], "above 0"),
        ([0.2, 0.3, 0.5], "found 3 shares, expected 2"),
        ([1.0], "found 1 shares"),
    ],
)
def test_what_is_no_distribution_over_the_labels_is_refused(prior: list[float], message: str) -> None:
    platt = Calibrator(method="platt", parameters={"slope": (1.0,), "intercept": (0.0,)}, num_rows=40)
    with pytest.raises(ConfigError, match=message):
        with_prior(platt, [0, 1] * 20, prior)


def test_one_label_is_no_distribution_for_a_map_of_any_number_of_labels() -> None:
    with pytest.raises(ConfigError, match="found 1 shares, expected 2"):
        with_prior(IDENTITY, [0, 0], [1.0])


def test_the_labels_of_vector_scaling_are_counted() -> None:
    vector = Calibrator(method="vector", parameters={"scale": (1.0, 1.0, 1.0), "bias": (0.0, 0.0, 0.0)}, num_rows=40)
    with pytest.raises(ConfigError, match="found 2 shares, expected 3"):
        with_prior(vector, [0, 1, 2], [0.5, 0.5])
    assert with_prior(vector, [0, 1, 2], [0.2, 0.3, 0.5]).log_prior_shift is not None


def test_rows_without_labels_or_with_others_are_refused() -> None:
    with pytest.raises(DataError, match="no labelled"):
        with_prior(IDENTITY, [-1, -1], [0.5, 0.5])
    with pytest.raises(DataError, match="labels from 0 to 2"):
        with_prior(IDENTITY, [0, 1, 2], [0.5, 0.5])
