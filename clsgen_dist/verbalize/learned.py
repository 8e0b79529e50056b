"""A learned map from what was said, and the text it was said of, to probabilities.

Shape legend: N rows, K labels, F features of a text.

A multinomial logistic regression on the log probabilities and on features of the text. Its penalty draws it toward
plain temperature scaling and not toward nothing, so with few rows it becomes that (with a bias a label), and with many
it may learn that short texts, or texts full of doubt, deserve another probability than was said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp

from clsgen_dist.calibrate.scaling import fit_calibrator
from clsgen_dist.calibrate.simplex import shifted, softmax
from clsgen_dist.evaluate.traits import features_of

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Columns of `text_features`: counts as logarithms, because a hundred words more mean less in a long text.
FEATURE_NAMES = ("log_num_words", "reading_ease", "log_num_negations", "log_num_hedges")

#: Penalties tried, weakest first, in nats a row for a squared weight of 2 on a standardised input.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)

#: Penalty of a label's bias: as good as none, but a label without a row keeps a probability above 0.
BIAS_PENALTY = 1e-4

#: Folds that choose the penalty.
NUM_FOLDS = 5


def text_features(texts: Sequence[str]) -> FloatArray:
    """Features of texts, columns as `FEATURE_NAMES`; NaN where a text has no word."""
    words_N, ease_N, negations_N, hedges_N = features_of(texts).T
    return np.stack([np.log1p(words_N), ease_N, np.log1p(negations_N), np.log1p(hedges_N)], axis=1)


@dataclass(frozen=True)
class LearnedMap:
    """softmax(logits / logit_scale @ logit_weights + standardised features @ feature_weights + bias).

    Attributes:
        logit_scale: standard deviation of the centred logits of the fit.
        logit_weights: K x K; a row an input, a column a label.
        feature_names, feature_mean, feature_scale: F each.
        feature_weights: F x K.
        bias: K.
        penalty: the one of `PENALTIES` that was chosen.
    """

    logit_scale: float
    logit_weights: FloatArray
    feature_names: tuple[str, ...]
    feature_mean: FloatArray
    feature_scale: FloatArray
    feature_weights: FloatArray
    bias: FloatArray
    penalty: float

    def apply(self, logits_NK: FloatArray, features_NF: FloatArray) -> FloatArray:
        """Probabilities of K labels; rows sum to 1.

        Args:
            logits_NK: inverted softmax of what was said; a constant added to a row changes nothing.
            features_NF: features of the texts, in the order of `feature_names`; NaN counts as the mean of the fit.
        """
        standard_NF = np.nan_to_num((features_NF - self.feature_mean) / self.feature_scale)
        inputs_NI = np.concatenate([_centred(logits_NK) / self.logit_scale, standard_NF], axis=1)
        weights_IK = np.concatenate([self.logit_weights, self.feature_weights])
        return softmax(inputs_NI @ weights_IK + self.bias)

    @property
    def num_parameters(self) -> int:
        """Weights and biases, those that merely shift a whole row left out."""
        num_labels = len(self.logit_weights)
        return (num_labels - 1 + len(self.feature_names) + 1) * (num_labels - 1)

    def to_json(self) -> dict[str, Any]:
        """The map as JSON."""
        return {
            "logit_scale": self.logit_scale,
            "logit_weights": self.logit_weights.tolist(),
            "feature_names": list(self.feature_names),
            "feature_mean": self.feature_mean.tolist(),
            "feature_scale": self.feature_scale.tolist(),
            "feature_weights": self.feature_weights.tolist(),
            "bias": self.bias.tolist(),
            "penalty": self.penalty,
        }


def fit_learned_map(
    logits_NK: FloatArray,
    features_NF: FloatArray,
    labels_N: IntArray,
    folds_N: IntArray,
    *,
    feature_names: tuple[str, ...],
    max_temperature: float,
) -> tuple[LearnedMap, list[str]]:
    """Fit the map on labelled rows, the penalty by cross-validated negative log-likelihood.

    Args:
        logits_NK: inverted softmax of what was said; finite.
        features_NF: features of the texts; NaN counts as the mean.
        labels_N: number of the label, 0 to K - 1.
        folds_N: fold of each row, two folds or more; rows of one group are in one fold.
        feature_names: names of the F features.
        max_temperature: bound of the temperature that the penalty draws toward.

    Returns:
        The map, and a warning where the strongest penalty was chosen: then features and labels' own scales say nothing
        that the rows can tell from noise.

    Raises:
        DataError: as `fit_calibrator`: fewer than 20 rows, or one label only.
    """
    calibrator, _ = fit_calibrator(logits_NK, labels_N, method="temperature", max_temperature=max_temperature)
    assert calibrator.temperature is not None
    centred_NK = _centred(logits_NK)
    logit_scale = _positive(float(centred_NK.std()))
    mean_F, scale_F = _moments(features_NF)
    inputs_NI = np.concatenate([centred_NK / logit_scale, np.nan_to_num((features_NF - mean_F) / scale_F)], axis=1)
    num_labels, num_inputs = logits_NK.shape[1], inputs_NI.shape[1]
    start_IK = np.zeros((num_inputs, num_labels))
    start_IK[:num_labels] = np.eye(num_labels) * logit_scale / calibrator.temperature
    folds = [folds_N == fold for fold in np.unique(folds_N)]
    assert len(folds) > 1, "list_methods offers this method where there are two groups or more"
    losses = []
    for penalty in PENALTIES:
        loss = 0.0
        for held_N in folds:
            weights_IK, bias_K = _fit(inputs_NI[~held_N], labels_N[~held_N], start_IK, penalty)
            loss += float(_nll(inputs_NI[held_N] @ weights_IK + bias_K, labels_N[held_N]).sum())
        losses.append(loss / len(labels_N))
    # Of equal losses the stronger penalty.
    best = len(losses) - 1 - int(np.argmin(losses[::-1]))
    weights_IK, bias_K = _fit(inputs_NI, labels_N, start_IK, PENALTIES[best])
    warnings = []
    if best == len(PENALTIES) - 1:
        warnings.append(
            "the learned map took its strongest penalty, so it is a temperature with a bias for each label: the "
            f"{len(labels_N)} rows show no use of the texts' features"
        )
    learned = LearnedMap(
        logit_scale=logit_scale,
        logit_weights=weights_IK[:num_labels],
        feature_names=feature_names,
        feature_mean=mean_F,
        feature_scale=scale_F,
        feature_weights=weights_IK[num_labels:],
        bias=bias_K,
        penalty=PENALTIES[best],
    )
    return learned, warnings


def _fit(
    inputs_NI: FloatArray, labels_N: IntArray, start_IK: FloatArray, penalty: float
) -> tuple[FloatArray, FloatArray]:
    """Weights and biases of the least mean loss plus penalty / 2 of the squared distance to `start_IK`; convex."""
    num_inputs, num_labels = start_IK.shape
    truth_NK = np.eye(num_labels)[labels_N]

    def value_and_slope(flat: FloatArray) -> tuple[float, FloatArray]:
        weights_IK = flat[: num_inputs * num_labels].reshape(num_inputs, num_labels)
        bias_K = flat[num_inputs * num_labels :]
        scores_NK = shifted(inputs_NI @ weights_IK + bias_K)
        parts_NK = np.exp(scores_NK)
        sum_N = parts_NK.sum(axis=1)
        excess_NK = (parts_NK / sum_N[:, None] - truth_NK) / len(labels_N)
        away_IK = weights_IK - start_IK
        loss = np.log(sum_N).mean() - (scores_NK * truth_NK).sum() / len(labels_N)
        value = loss + penalty / 2 * (away_IK**2).sum() + BIAS_PENALTY / 2 * bias_K @ bias_K
        slope_IK = inputs_NI.T @ excess_NK + penalty * away_IK
        return float(value), np.concatenate([slope_IK.ravel(), excess_NK.sum(axis=0) + BIAS_PENALTY * bias_K])

    start = np.concatenate([start_IK.ravel(), np.zeros(num_labels)])
    found = minimize(value_and_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "gtol": 1e-8})
    flat = np.asarray(found.x, dtype=np.float64)
    return flat[: num_inputs * num_labels].reshape(num_inputs, num_labels), flat[num_inputs * num_labels :]


def _nll(scores_NK: FloatArray, labels_N: IntArray) -> FloatArray:
    return np.asarray(logsumexp(scores_NK, axis=1) - scores_NK[np.arange(len(labels_N)), labels_N], dtype=np.float64)


def _moments(features_NF: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each feature where it is known; 0 and 1 where there is nothing to scale."""
    columns = [column_N[~np.isnan(column_N)] for column_N in features_NF.T]
    mean_F = np.array([column.mean() if len(column) else 0.0 for column in columns])
    scale_F = np.array([column.std() if len(column) else 0.0 for column in columns])
    return mean_F, np.where(scale_F > 1e-9 * np.abs(mean_F), scale_F, 1.0)


def _centred(logits_NK: FloatArray) -> FloatArray:
    return np.asarray(logits_NK - logits_NK.mean(axis=1, keepdims=True), dtype=np.float64)


def _positive(scale: float) -> float:
    return scale if scale > 0 else 1.0
