"""Every metric against libraries that others wrote: scikit-learn, torchmetrics and netcal, to 1e-9."""

import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    log_loss,
    roc_auc_score,
)

from clsgen_dist.evaluate.calibration_metrics import calibration_metrics
from clsgen_dist.evaluate.metrics import probability_metrics

NUM_BINS = 10
CASES = [(num_labels, rounded, seed) for num_labels in (2, 3, 7) for rounded in (False, True) for seed in range(3)]


def same(found: float | None, expected: float) -> None:
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def draw(num_labels: int, rounded: bool, seed: int, num_rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident probabilities, on a grid of twentieths where rounded, so that there are ties, zeros and ones."""
    generator = np.random.default_rng([num_labels, seed])
    true = generator.dirichlet(np.ones(num_labels), size=num_rows)
    labels = (generator.random((num_rows, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    said = true**1.6 * np.linspace(1, 1.5, num_labels)
    said /= said.sum(axis=1, keepdims=True)
    if rounded:
        said[:, :-1] = np.floor(said[:, :-1] * 20) / 20
        said[:, -1] = (1 - said[:, :-1].sum(axis=1)).round(2)
    return said, labels


@pytest.fixture(scope="module")
def torchmetrics() -> Iterator[SimpleNamespace]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from torchmetrics.functional import classification
    usual = torch.get_default_dtype()
    # It divides counts, which gives the default type: single precision is good to 1e-7 only.
    torch.set_default_dtype(torch.float64)
    yield SimpleNamespace(of=classification, tensor=torch.tensor)
    torch.set_default_dtype(usual)


@pytest.fixture(scope="module")
def netcal() -> SimpleNamespace:
    # Loads pyro, gpytorch and tensorboard for three functions of numpy: seconds, and whatever they say meanwhile.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from netcal.metrics import ECE, MCE
    return SimpleNamespace(ECE=ECE, MCE=MCE)


@pytest.mark.parametrize(("num_labels", "rounded", "seed"), CASES)
def test_scikit_learn_agrees_on_the_eight_numbers(num_labels: int, rounded: bool, seed: int) -> None:
    p, labels = draw(num_labels, rounded, seed)
    predicted = p.argmax(axis=1)
    found = probability_metrics(p, labels, predicted, num_bins=NUM_BINS)
    same(found["accuracy"], accuracy_score(labels, predicted))
    floor = np.finfo(np.float64).tiny
    same(found["nll"], -np.mean(np.log(np.maximum(p[np.arange(len(p)), labels], floor))))
    if not rounded:
        same(found["nll"], log_loss(labels, p))
    if num_labels == 2:
        same(found["auroc"], roc_auc_score(labels, p[:, 1]))
        same(found["auprc"], average_precision_score(labels, p[:, 1]))
        same(found["f1"], f1_score(labels, predicted))
        same(found["brier"], brier_score_loss(labels, p[:, 1]))
    else:
        same(found["auroc"], roc_auc_score(labels, p, multi_class="ovr", average="macro"))
        same(found["auprc"], average_precision_score(np.eye(num_labels)[labels], p, average="macro"))
        same(found["f1"], f1_score(labels, predicted, average="macro"))
        same(found["brier"], brier_score_loss(labels, p, scale_by_half=False))


@pytest.mark.parametrize(("num_labels", "rounded", "seed"), CASES)
def test_scikit_learn_agrees_on_the_decomposition(num_labels: int, rounded: bool, seed: int) -> None:
    p, labels = draw(num_labels, rounded, seed)
    found = calibration_metrics(p, labels, num_bins=NUM_BINS)
    parts = np.zeros(3)
    for k in (1,) if num_labels == 2 else range(num_labels):
        y = (labels == k).astype(float)
        best = IsotonicRegression().fit(p[:, k], y).predict(p[:, k])
        score, best_score, constant = np.mean((p[:, k] - y) ** 2), np.mean((best - y) ** 2), np.var(y)
        parts += score - best_score, constant - best_score, constant
    for name, part in zip(("brier_reliability", "brier_resolution", "brier_uncertainty"), parts, strict=True):
        same(found[name], part)


@pytest.mark.parametrize(("num_labels", "rounded", "seed"), CASES)
def test_scikit_learn_agrees_on_slope_and_intercept(num_labels: int, rounded: bool, seed: int) -> None:
    p, labels = draw(num_labels, rounded, seed)
    # Zeros and ones would be told apart by where each side bounds them.
    p = (p + 0.001) / (1 + 0.001 * num_labels)
    found = calibration_metrics(p, labels, num_bins=NUM_BINS)
    which = [1] if num_labels == 2 else range(num_labels)
    x = np.concatenate([np.log(p[:, k] / (1 - p[:, k])) for k in which])
    y = np.concatenate([labels == k for k in which])
    fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-13, max_iter=1000).fit(x[:, None], y)
    same(found["calibration_slope"], fit.coef_[0, 0])
    same(found["calibration_intercept"], fit.intercept_[0])
    if num_labels == 2:
        shifted = 1 / (1 + np.exp(-x - found["calibration_in_the_large"]))
        same(shifted.mean(), y.mean())
    else:
        assert found["calibration_in_the_large"] is None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_scikit_learn_agrees_on_bins(strategy: str, seed: int) -> None:
    p, labels = draw(2, False, seed)
    found = calibration_metrics(p, labels, num_bins=NUM_BINS)
    frequency, mean = calibration_curve(labels, p[:, 1], n_bins=NUM_BINS, strategy=strategy)
    inner = np.arange(1, NUM_BINS) / NUM_BINS
    edges = inner if strategy == "uniform" else np.quantile(p[:, 1], inner)
    rows = np.bincount(np.searchsorted(edges, p[:, 1]), minlength=NUM_BINS)
    error = np.abs(frequency - mean) @ rows[rows > 0] / len(p)
    if strategy == "uniform":
        same(probability_metrics(p, labels, labels, num_bins=NUM_BINS)["ece"], error)
        same(found["mce"], np.abs(frequency - mean).max())
    else:
        same(found["ece_equal_mass"], error)


@pytest.mark.parametrize(("num_labels", "rounded", "seed"), CASES)
def test_torchmetrics_agrees(torchmetrics: SimpleNamespace, num_labels: int, rounded: bool, seed: int) -> None:
    p, labels = draw(num_labels, rounded, seed)
    predicted = p.argmax(axis=1)
    found = probability_metrics(p, labels, predicted, num_bins=NUM_BINS)
    more = calibration_metrics(p, labels, num_bins=NUM_BINS)
    of, tensor = torchmetrics.of, torchmetrics.tensor
    said, truth = tensor(p), tensor(labels)
    top, right = tensor(p.max(axis=1)), tensor(predicted == labels)
    judged, event = (tensor(p[:, 1].copy()), truth) if num_labels == 2 else (top, right)
    if num_labels == 2:
        same(found["auroc"], of.binary_auroc(judged, truth).item())
        same(found["auprc"], of.binary_average_precision(judged, truth).item())
        same(found["f1"], of.binary_f1_score(tensor(predicted), truth).item())
    else:
        same(found["auroc"], of.multiclass_auroc(said, truth, num_classes=num_labels).item())
        same(found["auprc"], of.multiclass_average_precision(said, truth, num_classes=num_labels).item())
        same(found["f1"], of.multiclass_f1_score(said, truth, num_classes=num_labels, average="macro").item())
    if rounded:
        return  # it gives a probability of exactly 1 a bin of its own
    same(found["ece_top_label"], of.binary_calibration_error(top, right, n_bins=NUM_BINS, norm="l1").item())
    same(more["mce"], of.binary_calibration_error(judged, event, n_bins=NUM_BINS, norm="max").item())
    if num_labels == 2:
        same(found["ece"], of.binary_calibration_error(judged, truth, n_bins=NUM_BINS, norm="l1").item())
    else:  # it goes through single precision here
        error = of.multiclass_calibration_error(said, truth, num_classes=num_labels, n_bins=NUM_BINS, norm="l1")
        assert found["ece_top_label"] == pytest.approx(error.item(), abs=1e-6)


@pytest.mark.parametrize(("num_labels", "rounded", "seed"), CASES)
def test_netcal_agrees(netcal: SimpleNamespace, num_labels: int, rounded: bool, seed: int) -> None:
    p, labels = draw(num_labels, rounded, seed)
    found = probability_metrics(p, labels, p.argmax(axis=1), num_bins=NUM_BINS)
    more = calibration_metrics(p, labels, num_bins=NUM_BINS)
    which = [1] if num_labels == 2 else range(num_labels)
    same(found["ece"], np.mean([netcal.ECE(NUM_BINS).measure(p[:, k], labels == k) for k in which]))
    each = [netcal.ECE(NUM_BINS).measure(p[:, k], labels == k) for k in range(num_labels)]
    same(more["ece_classwise"], np.mean(each))
    top, right = p.max(axis=1), p.argmax(axis=1) == labels
    same(found["ece_top_label"], netcal.ECE(NUM_BINS).measure(top, right))
    judged, event = (p[:, 1], labels == 1) if num_labels == 2 else (top, right)
    same(more["mce"], netcal.MCE(NUM_BINS).measure(judged, event))
    if not rounded:  # it refuses edges that coincide
        by_mass = netcal.ECE(NUM_BINS, equal_intervals=False)
        same(more["ece_equal_mass"], np.mean([by_mass.measure(p[:, k], labels == k) for k in which]))
