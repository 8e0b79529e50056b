"""The learned map: temperature where features say nothing, better where they do."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.metrics import log_loss

from clsgen_dist.calibrate.scaling import fit_calibrator
from clsgen_dist.calibrate.simplex import softmax
from clsgen_dist.errors import DataError
from clsgen_dist.verbalize.learned import (
    BIAS_PENALTY,
    FEATURE_NAMES,
    PENALTIES,
    LearnedMap,
    fit_learned_map,
    text_features,
)

Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def simulate(num_rows: int, num_labels: int, *, seed: int, effect: float) -> Rows:
    """Logits, features, labels, folds: the second feature shifts the last label's log-odds by `effect` a unit."""
    generator = np.random.default_rng(seed)
    honest_NK = generator.normal(size=(num_rows, num_labels))
    features_NF = generator.normal(size=(num_rows, 3)) * [1.0, 5.0, 0.1] + [0.0, 100.0, 0.0]
    true_NK = honest_NK.copy()
    true_NK[:, -1] += effect * (features_NF[:, 1] - 100) / 5
    p_NK = softmax(true_NK)
    labels_N = (generator.random((num_rows, 1)) > p_NK.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    return 2 * honest_NK, features_NF, labels_N, np.arange(num_rows) % 5


def fit(rows: Rows) -> tuple[LearnedMap, list[str]]:
    return fit_learned_map(*rows, feature_names=("a", "b", "c"), max_temperature=20.0)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_a_feature_that_matters_is_used(num_labels: int) -> None:
    learned, _ = fit(simulate(800, num_labels, seed=0, effect=1.5))
    logits, features, labels, _ = simulate(2000, num_labels, seed=1, effect=1.5)
    calibrator, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=20.0)
    p_NK = learned.apply(logits, features)
    np.testing.assert_allclose(p_NK.sum(axis=1), 1, atol=1e-12)
    # The temperature was even fitted on the rows that it is measured on.
    assert log_loss(labels, p_NK) < log_loss(labels, calibrator.apply(logits)) - 0.05
    weights = learned.feature_weights[:, -1] - learned.feature_weights[:, 0]
    assert np.abs(weights).argmax() == 1
    assert weights[1] > 0


def test_without_any_use_of_features_it_is_about_the_temperature() -> None:
    rows = simulate(400, 2, seed=0, effect=0.0)
    learned, _ = fit(rows)
    logits, features, labels, _ = simulate(4000, 2, seed=1, effect=0.0)
    calibrator, _ = fit_calibrator(rows[0], rows[2], method="temperature", max_temperature=20.0)
    assert log_loss(labels, learned.apply(logits, features)) < log_loss(labels, calibrator.apply(logits)) + 0.01


def test_the_strongest_penalty_is_said() -> None:
    rows = simulate(60, 2, seed=3, effect=0.0)
    learned, warnings = fit(rows)
    assert learned.penalty == PENALTIES[-1]
    assert len(warnings) == 1
    assert "60 rows" in warnings[0]


def test_the_fit_is_a_stationary_point_of_the_penalised_loss() -> None:
    logits, features, labels, folds = simulate(150, 3, seed=2, effect=1.0)
    learned, _ = fit((logits, features, labels, folds))
    centred = logits - logits.mean(axis=1, keepdims=True)
    inputs = np.concatenate(
        [centred / learned.logit_scale, (features - learned.feature_mean) / learned.feature_scale], axis=1
    )
    calibrator, _ = fit_calibrator(logits, labels, method="temperature", max_temperature=20.0)
    assert calibrator.temperature is not None
    toward = np.concatenate([np.eye(3) * learned.logit_scale / calibrator.temperature, np.zeros((3, 3))])

    def loss(flat: np.ndarray) -> float:
        weights, bias = flat[:18].reshape(6, 3), flat[18:]
        nll = log_loss(labels, softmax(inputs @ weights + bias))
        return float(nll + learned.penalty / 2 * ((weights - toward) ** 2).sum() + BIAS_PENALTY / 2 * (bias**2).sum())

    found = np.concatenate([learned.logit_weights.ravel(), learned.feature_weights.ravel(), learned.bias])
    np.testing.assert_allclose(approx_fprime(found, loss, 1e-6), 0, atol=2e-5)


def test_a_constant_added_to_the_logits_of_a_row_changes_nothing() -> None:
    rows = simulate(200, 3, seed=0, effect=0.5)
    learned, _ = fit(rows)
    shift_N1 = np.random.default_rng(0).normal(size=(200, 1)) * 10
    shifted, _ = fit((rows[0] + shift_N1, *rows[1:]))
    np.testing.assert_allclose(
        shifted.apply(rows[0] + shift_N1, rows[1]), learned.apply(rows[0], rows[1]), rtol=1e-5, atol=1e-6
    )


def test_a_label_without_a_row_keeps_a_probability() -> None:
    logits, features, labels, folds = simulate(200, 3, seed=0, effect=0.0)
    labels[labels == 2] = 1
    learned, _ = fit((logits, features, labels, folds))
    assert 0 < learned.apply(logits, features)[:, 2].min() < 0.02


def test_unknown_and_constant_features_are_harmless() -> None:
    logits, features, labels, folds = simulate(200, 2, seed=0, effect=0.0)
    features[:, 0], features[:, 2] = 7.3, np.nan
    features[::5, 1] = np.nan
    learned, _ = fit((logits, features, labels, folds))
    assert np.isfinite(learned.apply(logits, features)).all()
    at_mean = features.copy()
    at_mean[::5, 1] = learned.feature_mean[1]
    np.testing.assert_allclose(learned.apply(logits, features), learned.apply(logits, at_mean), atol=1e-12)


def test_parameters_are_counted_without_those_that_shift_a_whole_row() -> None:
    assert fit(simulate(100, 2, seed=0, effect=0.0))[0].num_parameters == 1 + 3 + 1
    assert fit(simulate(100, 4, seed=0, effect=0.0))[0].num_parameters == (3 + 3 + 1) * 3


def test_features_of_texts_are_finite_but_for_texts_without_words() -> None:
    features_NF = text_features(["It may not be so.", "Sure.", "..."])
    assert features_NF.shape == (3, len(FEATURE_NAMES))
    np.testing.assert_allclose(features_NF[0, [0, 2, 3]], np.log1p([5, 1, 1]))
    assert np.isnan(features_NF[2, 1])
    assert np.isfinite(np.delete(features_NF, 1, axis=1)).all()


def test_too_few_rows_and_one_label_are_refused() -> None:
    logits, features, labels, folds = simulate(100, 2, seed=0, effect=0.0)
    with pytest.raises(DataError, match="19 labelled rows"):
        fit((logits[:19], features[:19], labels[:19], folds[:19]))
    with pytest.raises(DataError, match="label number 0"):
        fit((logits, features, np.zeros_like(labels), folds))


def test_one_fold_is_a_fault_of_ours() -> None:
    logits, features, labels, folds = simulate(100, 2, seed=0, effect=0.0)
    with pytest.raises(AssertionError, match="two groups or more"):
        fit((logits, features, labels, np.zeros_like(folds)))


def test_the_map_is_json_as_a_whole() -> None:
    learned, _ = fit(simulate(100, 2, seed=0, effect=0.5))
    content = learned.to_json()
    arrays = {name: np.array(value) for name, value in content.items() if isinstance(value, list)}
    arrays.pop("feature_names")
    again = LearnedMap(
        **arrays,
        feature_names=tuple(content["feature_names"]),
        logit_scale=content["logit_scale"],
        penalty=content["penalty"],
    )
    logits, features, *_ = simulate(10, 2, seed=5, effect=0.5)
    np.testing.assert_array_equal(again.apply(logits, features), learned.apply(logits, features))
