"""Selection of a calibrator: what it finds in simulated rows, and what it must never do to them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import expit, logit

from clsgen_dist.calibrate import selection as module
from clsgen_dist.calibrate.averaging import fit_average
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator, fit_calibrator
from clsgen_dist.calibrate.selection import (
    MIN_CHOICE_ROWS,
    NUM_STANDARD_ERRORS,
    Selection,
    design_effect,
    select_calibrator,
)
from clsgen_dist.data.synthetic import vignettes
from clsgen_dist.errors import ConfigError, DataError

MAX_TEMPERATURE = 100.0
METHODS = ("none", "temperature", "platt")


def logits_of(log_odds: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(log_odds), log_odds], axis=1)


def simulate(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Honest log-odds, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(-0.5, 2, size=num_rows)
    return odds, (generator.random(num_rows) < expit(odds)).astype(np.int64)


def select(odds: np.ndarray, labels: np.ndarray, **options: object) -> Selection:
    given: dict[str, object] = {"max_temperature": MAX_TEMPERATURE, "seed": 0, "num_repeats": 2} | options
    return select_calibrator(logits_of(odds), labels, **given)  # type: ignore[arg-type]


def expected_nll(calibrator: Calibrator, odds: np.ndarray, truth: np.ndarray) -> float:
    p = calibrator.apply(logits_of(odds))
    return float(-np.mean((1 - truth) * np.log(p[:, 0]) + truth * np.log(p[:, 1])))


# Which one is chosen.


@pytest.mark.parametrize(
    ("distort", "expected"),
    [
        (lambda z: z, "none"),
        (lambda z: 3 * z, "temperature"),
        (lambda z: 2 * z + 2, "platt"),
        (lambda z: np.where(z > 0, 4 * z, 0.5 * z) + 1, "beta"),
        (lambda z: 6 * (z > 1) + 6 * (z > -1) + 1e-3 * z - 6, "isotonic"),
    ],
)
def test_the_map_that_undoes_what_was_done_is_chosen(distort: object, expected: str) -> None:
    odds, labels = simulate(4000, seed=0)
    found = select(distort(odds), labels)  # type: ignore[operator]
    assert found.calibrator.method == expected
    assert [c.weight for c in found.candidates if c.method == expected] == [1.0]
    assert sum(c.weight for c in found.candidates) == 1.0
    assert found.calibrator.num_rows in (0, 4000)


def test_the_chosen_one_is_the_fit_on_all_rows() -> None:
    odds, labels = simulate(1500, seed=1)
    plain, _ = fit_calibrator(logits_of(3 * odds), labels, method="temperature", max_temperature=MAX_TEMPERATURE)
    assert select(3 * odds, labels).calibrator == plain


def test_fewer_parameters_win_within_the_standard_error() -> None:
    odds, labels = simulate(1000, seed=2)
    found = select(1.05 * odds, labels)
    best = min(candidate.mean_nll for candidate in found.candidates)
    within = [c.mean_nll <= best + NUM_STANDARD_ERRORS * c.standard_error for c in found.candidates]
    assert [c.weight for c in found.candidates].index(1.0) == within.index(True)
    numbers = [candidate.num_parameters for candidate in found.candidates]
    assert numbers == sorted(numbers)
    assert [c.standard_error for c in found.candidates if c.mean_nll == best] == [0.0]


def test_cross_validation_tells_of_rows_that_were_left_out() -> None:
    odds, labels = simulate(2000, seed=3)
    found = select(3 * odds, labels, methods=["none", "temperature"])
    fresh_odds, fresh_labels = simulate(50_000, seed=4)
    for candidate in found.candidates:
        calibrator, _ = fit_calibrator(
            logits_of(3 * odds), labels, method=candidate.method, max_temperature=MAX_TEMPERATURE
        )
        fresh = expected_nll(calibrator, 3 * fresh_odds, fresh_labels)
        assert candidate.mean_nll == pytest.approx(fresh, rel=0.1)
    # "none" fits nothing, so its figure is that of the rows themselves.
    own = expected_nll(IDENTITY, 3 * odds, labels)
    assert found.candidates[0].mean_nll == pytest.approx(own, abs=1e-12)


def test_noise_in_copies_of_a_row_is_not_taken_for_evidence() -> None:
    # Twenty copies of each of 60 rows: isotonic, which follows single rows, would win if copies crossed the folds.
    odds, labels = simulate(60, seed=5)
    copies, groups = np.repeat(np.arange(60), 20), np.repeat([f"patient {n}" for n in range(60)], 20)
    odds, labels = odds[copies], labels[copies]
    leaky = {c.method: c for c in select(odds, labels).candidates}
    whole = {c.method: c for c in select(odds, labels, groups_N=groups).candidates}
    assert leaky["isotonic"].mean_nll < leaky["none"].mean_nll
    assert whole["isotonic"].mean_nll > whole["none"].mean_nll
    assert whole["platt"].standard_error > 2 * leaky["platt"].standard_error


def test_more_labels_choose_among_their_own_methods() -> None:
    generator = np.random.default_rng(6)
    honest = generator.normal(size=(800, 4)) * 2
    p = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    labels = (generator.random((800, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=3)
    for logits, expected in (
        (honest, "none"),
        (3 * honest, "temperature"),
        (honest + np.array([0, 2, 0, -2]), "vector"),
    ):
        found = select_calibrator(logits, labels, max_temperature=MAX_TEMPERATURE, num_repeats=1, seed=0)
        assert found.calibrator.method == expected
        assert [c.method for c in found.candidates] == ["none", "temperature", "vector"]


# Few rows.


def test_few_rows_are_averaged_over_the_candidates() -> None:
    odds, labels = simulate(60, seed=7)
    found = select(2 * odds + 1, labels)
    average, weight = fit_average(
        logits_of(2 * odds + 1), labels, methods=METHODS, max_temperature=MAX_TEMPERATURE, evidence=1.0
    )
    assert found.calibrator == average
    assert {c.method: c.weight for c in found.candidates} == weight
    assert all(0 < value < 1 for value in weight.values())


def test_averaging_ends_where_choosing_begins() -> None:
    odds, labels = simulate(MIN_CHOICE_ROWS, seed=8)
    assert select(3 * odds, labels).calibrator.method != "average"
    assert select(3 * odds[1:], labels[1:]).calibrator.method == "average"


def test_candidates_that_are_not_asked_for_are_not_averaged_over() -> None:
    odds, labels = simulate(60, seed=9)
    found = select(odds + 1, labels, methods=("temperature", "none"))
    assert [c.method for c in found.candidates] == ["none", "temperature"]
    assert set(found.calibrator.parameters["intercept"]) == {0.0}
    assert sum(c.weight for c in found.candidates) == pytest.approx(1)


def test_copies_of_a_row_say_no_more_than_one_of_them() -> None:
    odds, labels = simulate(60, seed=20)
    once = select(3 * odds, labels)
    copies = np.repeat(np.arange(60), 5)
    whole = select(3 * odds[copies], labels[copies], groups_N=copies)
    leaky = select(3 * odds[copies], labels[copies])
    assert leaky.candidates[0].weight < 1e-3 * once.candidates[0].weight
    for few, many in zip(once.candidates, whole.candidates, strict=True):
        assert many.weight == pytest.approx(few.weight, abs=0.02)


def test_the_design_effect_of_copies_of_pairs_and_of_rows() -> None:
    residual, copies = np.array([0.3, -0.4, 0.9]), np.repeat(np.arange(3), 4)
    assert design_effect(residual, np.arange(3)) == 1
    assert design_effect(residual[copies], copies) == pytest.approx(4)
    # Rows of a group that make up for each other, as the two labels of a pair do, are no less than single ones.
    assert design_effect(np.array([0.5, -0.5, 0.2, -0.2]), np.array([0, 0, 1, 1])) == 1
    assert design_effect(np.zeros(4), np.array([0, 0, 1, 1])) == 1


def test_a_method_that_is_asked_for_alone_is_fitted_as_ever() -> None:
    odds, labels = simulate(60, seed=10)
    for method in ("none", "temperature", "platt"):
        plain, _ = fit_calibrator(logits_of(odds), labels, method=method, max_temperature=MAX_TEMPERATURE)
        assert select(odds, labels, methods=[method]).calibrator == plain


def test_separated_rows_are_warned_of_and_stay_moderate() -> None:
    odds, _ = simulate(60, seed=12)
    found = select(odds, (odds > 0).astype(np.int64))
    p = found.calibrator.apply(logits_of(np.array([-1.0, 1.0])))[:, 1]
    assert 0.001 < p[0] < 0.2 < 0.8 < p[1] < 0.999
    assert sum("separates the 60 calibration rows" in warning for warning in found.warnings) == 1
    assert not any("stopped at its lower bound" in warning for warning in found.warnings)


@pytest.mark.parametrize("num_rows", [20, 21, 24])
def test_as_few_rows_as_a_fit_takes_can_be_selected_on(num_rows: int) -> None:
    odds, labels = simulate(num_rows, seed=13)
    found = select(odds, labels)
    assert any("were left to fit on" in warning for warning in found.warnings) == (num_rows == 20)


def test_a_label_of_one_row_leaves_folds_that_fit_nothing() -> None:
    odds, labels = simulate(40, seed=14)
    labels[:] = 0
    labels[3] = 1
    found = select(odds, labels)
    assert any("in 2 of 10 folds" in warning for warning in found.warnings)


# Vignettes, where the truth is known.


def test_on_vignettes_it_stays_near_the_best_single_calibrator() -> None:
    num_seeds, num_rows = 6, 200
    rows = list(vignettes(num_seeds * num_rows, seed=1, split="calibration"))
    truth = np.array([row.true_probability for row in rows])
    labels = np.array([row.label for row in rows])
    noisy = logit(truth.clip(1e-6, 1 - 1e-6)) + np.random.default_rng(1).normal(size=len(rows)) * 0.5
    for odds in (noisy, 2.5 * noisy, noisy + 1.5):
        nll: dict[str, list[float]] = {}
        for seed in range(num_seeds):
            part = slice(seed * num_rows, (seed + 1) * num_rows)
            for method in ("none", "temperature", "platt"):
                single, _ = fit_calibrator(
                    logits_of(odds[part]), labels[part], method=method, max_temperature=MAX_TEMPERATURE
                )
                nll.setdefault(method, []).append(expected_nll(single, odds, truth))
            found = select(odds[part], labels[part], seed=seed)
            nll.setdefault("selection", []).append(expected_nll(found.calibrator, odds, truth))
        mean = {name: np.mean(values) for name, values in nll.items()}
        assert mean.pop("selection") <= min(mean.values()) + 0.005


# Housekeeping.


def test_the_seed_decides_and_rows_without_a_label_do_not() -> None:
    odds, labels = simulate(120, seed=15)
    first = select(odds, labels, seed=3)
    assert select(odds, labels, seed=3) == first
    assert select(odds, labels, seed=4) != first
    padded = select(np.append(odds, [9.0] * 30), np.append(labels, [-1] * 30), seed=3)
    assert padded == first


def test_many_rows_are_compared_on_some_and_fitted_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COMPARED_ROWS", 600)
    odds, labels = simulate(3000, seed=16)
    found = select(3 * odds, labels, methods=["none", "temperature"], groups_N=np.arange(3000) // 3)
    plain, _ = fit_calibrator(logits_of(3 * odds), labels, method="temperature", max_temperature=MAX_TEMPERATURE)
    assert found.calibrator == plain
    assert found.candidates[0].mean_nll != pytest.approx(expected_nll(IDENTITY, 3 * odds, labels), abs=1e-9)


def test_json_has_all_of_it() -> None:
    odds, labels = simulate(60, seed=18)
    found = select(odds, labels)
    content = json.loads(json.dumps(found.to_json()))
    assert Calibrator.from_json(content["calibrator"]) == found.calibrator
    assert content["candidates"] == [asdict(candidate) for candidate in found.candidates]
    assert content["warnings"] == list(found.warnings)


@pytest.mark.parametrize(
    ("num_rows", "change", "error", "message"),
    [
        (19, {}, DataError, "found 19 labelled rows"),
        (60, {"methods": []}, ConfigError, "one or more"),
        (60, {"methods": ["none", "none"]}, ConfigError, "twice"),
        (60, {"methods": ["vector"]}, ConfigError, "vector"),
        (60, {"methods": ["magic"]}, ConfigError, "magic"),
        (60, {"max_temperature": 1.0}, ConfigError, "above 1"),
        (60, {"groups_N": ["a"] * 60}, DataError, "one group"),
        (60, {"groups_N": ["a"] * 59}, DataError, "one a row"),
    ],
)
def test_what_cannot_be_selected_on_is_refused(
    num_rows: int, change: dict[str, object], error: type[Exception], message: str
) -> None:
    odds, labels = simulate(num_rows, seed=19)
    with pytest.raises(error, match=message):
        select(odds, labels, **change)


def test_rows_of_one_label_or_with_a_logit_that_is_no_number_are_refused() -> None:
    odds, labels = simulate(60, seed=20)
    with pytest.raises(DataError, match="label number 1"):
        select(odds, np.ones(60, dtype=int))
    odds[5] = np.nan
    with pytest.raises(DataError, match="1 of 60 rows"):
        select(odds, labels)
