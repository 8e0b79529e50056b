"""Calibration of parts: against brute force, and whether a part that is off is told from one that is small."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from clsgen_dist.errors import ConfigError, DataError, NumericsError
from clsgen_dist.evaluate.metrics import calibration_error
from clsgen_dist.evaluate.subgroups import Subgroup, subgroup_calibration


def two(probability: np.ndarray) -> np.ndarray:
    return np.stack([1 - probability, probability], axis=1)


def draw(num_rows: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels of rows whose true log-odds are larger by `shift`."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(size=num_rows) * 1.5
    return expit(log_odds), (generator.random(num_rows) < expit(log_odds + shift)).astype(int)


def measure(
    probability: np.ndarray, labels: np.ndarray, names: list[str], groups: object = None, **options: object
) -> list[Subgroup]:
    given: dict[str, object] = {"num_bins": 10, "num_bootstrap": 200, "seed": 0} | options
    return subgroup_calibration(probability, labels, names, groups, **given)  # type: ignore[arg-type]


def intercept(probability: np.ndarray, positive: np.ndarray) -> float:
    return float(brentq(lambda a: np.sum(expit(logit(probability) + a) - positive), -60, 60, xtol=1e-13))


def test_each_part_is_measured_by_itself() -> None:
    probability, labels = draw(400, 0)
    names = ["b" if i % 4 else "a" for i in range(400)]
    found = measure(two(probability), labels, names)
    assert [(part.name, part.num_rows, part.num_groups) for part in found] == [("b", 300, 300), ("a", 100, 100)]
    own = np.asarray(names) == "a"
    part = found[1]
    assert part.mean_probability == pytest.approx(probability[own].mean())
    assert part.share_positive == pytest.approx(labels[own].mean())
    assert part.ece == pytest.approx(calibration_error(probability[own], labels[own], 10))
    assert part.intercept == pytest.approx(intercept(probability[own], labels[own]), abs=1e-9)
    assert part.auroc == pytest.approx(roc_auc_score(labels[own], probability[own]))
    # What the others are changes nothing.
    alone = measure(two(probability[own]), labels[own], ["a"] * 100)
    assert alone == [part]


def test_the_intervals_agree_with_copying_the_rows_of_each_drawn_group() -> None:
    probability, labels = draw(120, 1, shift=0.5)
    group = np.arange(120) // 3
    errors, intercepts = [], []
    for groups in np.random.default_rng(4).integers(0, 40, size=(150, 40)):
        rows = np.concatenate([np.flatnonzero(group == g) for g in groups])
        errors.append(calibration_error(probability[rows], labels[rows], 10))
        intercepts.append(intercept(probability[rows], labels[rows]))
    (part,) = measure(two(probability), labels, ["a"] * 120, group, num_bootstrap=150, seed=4)
    assert part.num_groups == 40
    assert part.ece_ci == pytest.approx(np.percentile(errors, [2.5, 97.5]), abs=1e-9)
    assert part.intercept_ci == pytest.approx(np.percentile(intercepts, [2.5, 97.5]), abs=1e-8)


def test_a_part_that_is_off_is_told_from_one_that_is_not() -> None:
    honest, shifted = draw(1500, 2), draw(1500, 3, shift=1.0)
    probability, labels = (np.concatenate(parts) for parts in zip(honest, shifted, strict=True))
    good, bad = measure(two(probability), labels, ["a good one"] * 1500 + ["bad"] * 1500)
    assert good.ece_null_ci[0] < good.ece < good.ece_null_ci[1]
    assert bad.ece > 2 * bad.ece_null_ci[1]
    assert good.intercept_ci is not None
    assert bad.intercept_ci is not None
    assert good.intercept_ci[0] < 0 < good.intercept_ci[1]
    assert bad.intercept_ci[0] < 1.0 < bad.intercept_ci[1]
    assert bad.intercept_ci[0] > 0


def test_the_null_is_the_error_of_labels_drawn_from_the_probabilities() -> None:
    probability, labels = draw(300, 5)
    (part,) = measure(two(probability), labels, ["a"] * 300)
    generator = np.random.default_rng(99)
    drawn = [calibration_error(probability, generator.random(300) < probability, 10) for _ in range(2000)]
    # 200 draws against 2,000.
    assert part.ece_null == pytest.approx(np.mean(drawn), rel=0.06)
    assert part.ece_null_ci == pytest.approx(np.percentile(drawn, [2.5, 97.5]), rel=0.2)


def test_the_interval_of_the_intercept_holds_the_truth_about_nineteen_times_in_twenty() -> None:
    held = 0
    for seed in range(100):
        (part,) = measure(two(draw(200, seed)[0]), draw(200, seed, shift=0.7)[1], ["a"] * 200, seed=seed)
        assert part.intercept_ci is not None
        held += part.intercept_ci[0] <= 0.7 <= part.intercept_ci[1]
    assert 88 <= held <= 99


def test_small_parts_are_put_together_and_no_row_is_lost() -> None:
    probability, labels = draw(200, 6)
    names = ["large"] * 120 + ["edge"] * 50 + ["x"] * 20 + ["y"] * 10
    found = measure(two(probability), labels, names)
    assert [(part.name, part.num_rows) for part in found] == [
        ("large", 120),
        ("edge", 50),
        ("(fewer than 50 rows)", 30),
    ]
    assert [part.name for part in measure(two(probability), labels, names, min_rows=20)] == [
        *("large", "edge", "x", "(fewer than 20 rows)")
    ]


def test_a_part_of_one_label_has_no_intercept_and_no_ranking() -> None:
    probability, labels = draw(200, 7)
    names = np.where(labels == 1, "yes", "no").tolist()
    for part in measure(two(probability), labels, names):
        assert (part.intercept, part.intercept_ci, part.auroc) == (None, None, None)
        assert part.ece_ci is not None
        assert part.share_positive == float(part.name == "yes")
    # With one positive row, a third of the resamples have none, and nothing bounds the intercept from below.
    labels = (np.arange(200) == 0).astype(int)
    (part,) = measure(two(probability), labels, ["a"] * 200)
    assert part.intercept is not None
    assert part.intercept_ci is None


def test_a_part_of_one_group_has_no_intervals() -> None:
    probability, labels = draw(200, 8)
    group = np.where(np.arange(200) < 100, "one patient", np.arange(200).astype(str))
    found = measure(two(probability), labels, ["a"] * 100 + ["b"] * 100, group)
    assert [(part.num_groups, part.ece_ci is None, part.intercept_ci is None) for part in found] == [
        (1, True, True),
        (100, False, False),
    ]


def test_probabilities_of_0_and_1_that_err_have_an_intercept() -> None:
    probability = np.repeat([1.0, 0.0], [150, 50])
    labels = np.concatenate([np.ones(135), np.zeros(15), np.ones(5), np.zeros(45)]).astype(int)
    (part,) = measure(two(probability), labels, ["a"] * 200)
    bounded = np.clip(probability, 1e-12, 1 - 1e-12)  # as a float, 1 - 1e-12 is only near that bound
    assert part.intercept == pytest.approx(intercept(bounded, labels), abs=1e-3)
    assert part.intercept_ci is not None
    assert part.intercept_ci[0] <= part.intercept <= part.intercept_ci[1]


def test_of_three_labels_the_event_is_that_the_top_label_is_right() -> None:
    generator = np.random.default_rng(9)
    probability = generator.dirichlet(np.ones(3), size=300)
    labels = (generator.random((300, 1)) > probability.cumsum(axis=1)).sum(axis=1)
    right = probability.argmax(axis=1) == labels
    (part,) = measure(probability, labels, ["a"] * 300)
    assert part.mean_probability == pytest.approx(probability.max(axis=1).mean())
    assert part.share_positive == pytest.approx(right.mean())
    assert part.auroc == pytest.approx(roc_auc_score(right, probability.max(axis=1)))
    (last,) = measure(probability, labels, ["a"] * 300, event="last_label")
    assert last.mean_probability == pytest.approx(probability[:, 2].mean())
    assert last.share_positive == pytest.approx((labels == 2).mean())


def test_overconfidence_at_both_ends_shows_in_the_top_label() -> None:
    generator = np.random.default_rng(10)
    high = generator.random(2000) < 0.5
    probability = np.where(high, 0.95, 0.05)
    labels = (generator.random(2000) < np.where(high, 0.8, 0.2)).astype(int)
    (last,) = measure(two(probability), labels, ["high"] * 2000)
    (top,) = measure(two(probability), labels, ["high"] * 2000, event="top_label")
    assert last.intercept_ci is not None
    assert top.intercept_ci is not None
    assert last.intercept_ci[0] < 0 < last.intercept_ci[1]
    assert top.intercept_ci[1] < -1
    assert (top.mean_probability, top.share_positive) == (pytest.approx(0.95), pytest.approx(0.8, abs=0.03))


def test_it_is_plain_json_and_the_same_at_every_run() -> None:
    probability, labels = draw(200, 11)
    names = ["a"] * 150 + ["b"] * 50
    first = [asdict(part) for part in measure(two(probability), labels, names)]
    assert json.loads(json.dumps(first, allow_nan=False)) == first
    assert first == [asdict(part) for part in measure(two(probability), labels, names)]
    assert first != [asdict(part) for part in measure(two(probability), labels, names, seed=1)]


def test_bad_input_is_refused() -> None:
    probability, labels = draw(60, 12)
    with pytest.raises(DataError, match="each of the 60 labelled rows"):
        measure(two(probability), labels, ["a"] * 59)
    with pytest.raises(DataError, match="not all text"):
        measure(two(probability), labels, [None] * 60)  # type: ignore[list-item]
    with pytest.raises(DataError, match="groups of shape"):
        measure(two(probability), labels, ["a"] * 60, [1, 2])
    with pytest.raises(ConfigError, match="middle"):
        measure(two(probability), labels, ["a"] * 60, event="middle")
    with pytest.raises(ConfigError, match="min_rows"):
        measure(two(probability), labels, ["a"] * 60, min_rows=0)
    with pytest.raises(NumericsError):
        measure(two(probability) * 2, labels, ["a"] * 60)
