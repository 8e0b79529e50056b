"""The map from ranks: order is all it believes."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtri
from sklearn.metrics import log_loss, roc_auc_score

from clsgen_dist.calibrate.scaling import Calibrator
from clsgen_dist.errors import DataError
from clsgen_dist.verbalize.answers import Answers
from clsgen_dist.verbalize.rank import RankMap, fit_rank_map


def parsed(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    return answers.said_NK[answers.parsed_N], answers.labels_N[answers.parsed_N]


def test_scores_are_normal_quantiles_of_mid_ranks() -> None:
    said = np.array([0.1] * 10 + [0.5] * 20 + [0.9] * 10)
    labels = np.tile([0, 1], 20)
    fitted, _ = fit_rank_map(np.stack([1 - said, said], axis=1), labels, max_temperature=20)
    assert fitted.values == ((0.1, 0.5, 0.9),)
    np.testing.assert_allclose(fitted.scores[0], ndtri([5 / 40, 20 / 40, 35 / 40]), atol=1e-12)


def test_of_two_labels_order_and_ties_stay(make_answers: Callable[..., Answers]) -> None:
    said_NK, labels_N = parsed(make_answers(300))
    fitted, _ = fit_rank_map(said_NK, labels_N, max_temperature=20)
    p_NK = fitted.apply(said_NK)
    np.testing.assert_allclose(p_NK.sum(axis=1), 1, atol=1e-12)
    assert roc_auc_score(labels_N, p_NK[:, 1]) == pytest.approx(roc_auc_score(labels_N, said_NK[:, 1]), abs=1e-12)
    assert len(np.unique(p_NK[:, 1].round(9))) == len(np.unique(said_NK[:, 1].round(6)))


@pytest.mark.parametrize("distort", [lambda p: p**3, lambda p: 0.9 + 0.1 * p, lambda p: 0.2 * p])
def test_any_rising_distortion_of_what_is_said_changes_nothing(
    make_answers: Callable[..., Answers], distort: Callable[[np.ndarray], np.ndarray]
) -> None:
    said_NK, labels_N = parsed(make_answers(200))
    bent_N = distort(said_NK[:, 1])
    bent_NK = np.stack([1 - bent_N, bent_N], axis=1)
    plain, _ = fit_rank_map(said_NK, labels_N, max_temperature=20)
    bent, _ = fit_rank_map(bent_NK, labels_N, max_temperature=20)
    np.testing.assert_allclose(bent.apply(bent_NK), plain.apply(said_NK), atol=1e-9)


@pytest.mark.parametrize("num_labels", [2, 4])
def test_it_mends_what_is_too_sure(make_answers: Callable[..., Answers], num_labels: int) -> None:
    labels = tuple("abcd"[:num_labels])
    fit, test = (parsed(make_answers(600, labels, name=name, sharpness=4.0)) for name in "pq")
    fitted, _ = fit_rank_map(*fit, max_temperature=20)
    before = np.maximum(test[0], 0.01) / np.maximum(test[0], 0.01).sum(axis=1, keepdims=True)
    assert log_loss(test[1], fitted.apply(test[0])) < log_loss(test[1], before) - 0.05


def test_values_never_said_in_the_fit_lie_between_their_neighbours() -> None:
    said = np.repeat([0.1, 0.4, 0.9], 20)
    labels = np.concatenate([np.tile([0, 0, 0, 1], 5), np.tile([0, 1], 10), np.tile([0, 1, 1, 1], 5)])
    fitted, _ = fit_rank_map(np.stack([1 - said, said], axis=1), labels, max_temperature=20)
    probe = np.array([0.0, 0.1, 0.25, 0.4, 0.6, 0.9, 1.0])
    p_N = fitted.apply(np.stack([1 - probe, probe], axis=1))[:, 1]
    assert (np.diff(p_N) >= 0).all()
    assert p_N[1] < p_N[2] < p_N[3] < p_N[4] < p_N[5]
    assert p_N[0] == p_N[1]
    assert p_N[5] == p_N[6]


def test_json_holds_all_of_it(make_answers: Callable[..., Answers]) -> None:
    said_NK, labels_N = parsed(make_answers(200, ("a", "b", "c")))
    fitted, _ = fit_rank_map(said_NK, labels_N, max_temperature=20)
    content = fitted.to_json()
    again = RankMap(
        values=tuple(map(tuple, content["values"])),
        scores=tuple(map(tuple, content["scores"])),
        calibrator=Calibrator.from_json(content["calibrator"]),
    )
    np.testing.assert_array_equal(again.apply(said_NK), fitted.apply(said_NK))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="19 labelled rows"):
        fit_rank_map(np.full((19, 2), 0.5), np.arange(19) % 2, max_temperature=20)
