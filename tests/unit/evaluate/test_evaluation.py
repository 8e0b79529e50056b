"""The content of metrics.json, and how it is written."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clsgen_dist.errors import ConfigError, DataError, NumericsError
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics, null_ece
from clsgen_dist.evaluate.columns import to_columns
from clsgen_dist.evaluate.decisions import estimate_at_threshold
from clsgen_dist.evaluate.evaluation import evaluate
from clsgen_dist.evaluate.metrics import probability_metrics
from clsgen_dist.evaluate.reading import Unavailable, read_verdicts
from clsgen_dist.integrity import write_json
from clsgen_dist.records import LanguageScores, Prediction, Row, SwapScore, TextScore

Split = tuple[list[Prediction], list[Row]]

NO_YES = ["no", "yes"]


def measure(split: Split, labels: list[str] = NO_YES, **change: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "labels": labels,
        "threshold": 0.4 if len(labels) == 2 else None,
        "calibrated": True,
        "costs": None,
        "sure_probability": 0.9,
        "num_bootstrap": 100,
        "num_bins": 10,
        "seed": 0,
    }
    return evaluate(*split, **(settings | change))


@pytest.fixture(scope="module")
def split(make_split: Callable[..., Split]) -> Split:
    return make_split(400, NO_YES, threshold=0.4)


def test_the_contract_of_metrics_json_holds(split: Split) -> None:
    found = measure(split)
    for part in ("raw", "calibrated"):
        for key in ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label"):
            assert math.isfinite(found[part][key])
        for key in ("auroc_ci", "f1_ci", "nll_ci", "ece_ci"):
            low, high = found[part][key]
            assert low <= high
    assert {"kappa", "auroc_alignment", "coverage", "unparsed"} <= set(found["explanation"])
    assert found["threshold"] == 0.4
    assert found["language"] == {}
    assert (found["num_rows"], found["num_labelled_rows"], found["num_groups"]) == (400, 360, 200)
    assert found["labels"] == NO_YES
    assert found["is_calibrated"] is True


def test_words_are_measured_with_what_the_models_say_of_them(split: Split) -> None:
    predictions, rows = split
    explained = [p for p in predictions if p.explanation]
    swaps = [SwapScore(id=p.id, num_tokens=4, own=0, log_likelihoods=[-6.0, -8.0]) for p in explained[:30]]
    general = [TextScore(id=name, num_tokens=10, tuned=33.0, base=30.0, kl=2.0) for name in ("a", "b")]
    scores = LanguageScores(swaps=swaps, references=[], free=[], general=general, no_base=None)
    found = measure(split, scores=scores)
    words, language = found["explanation"], found["language"]
    assert words["form"]["conditioned"]["num_rows"] == len(explained)
    assert words["form"]["free"]["rep_4"] == language["free_rep_4"]
    assert words["faithfulness"]["mean_log_ratio"] == pytest.approx(0.5)
    assert words["references"] is None
    assert language["general_text_change"] == pytest.approx(0.1)
    assert language["general_text_kl"] == pytest.approx(0.2)
    written = [replace(row, explanation="Because of 1.") for row in rows]
    assert measure((predictions, written))["explanation"]["references"]["num_rows"] > 0
    assert measure(split)["explanation"]["faithfulness"] is None


def test_confusions_are_counted_as_decided(split: Split) -> None:
    predictions, _ = split
    (_, false_alarms), (missed, found) = measure(split)["decisions"]["confusion"]
    assert false_alarms == sum(p.label == "no" and p.predicted == "yes" for p in predictions)
    assert missed == sum(p.label == "yes" and p.predicted == "no" for p in predictions)
    assert found == sum(p.label == p.predicted == "yes" for p in predictions)


def labelled_arrays(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Raw and calibrated probabilities, labels and groups of the labelled rows."""
    columns = to_columns(*split, NO_YES)
    known = columns.label_N >= 0
    every = (columns.raw_probability_NK, columns.probability_NK, columns.label_N, columns.group_N)
    raw, probability, labels, groups = (values[known] for values in every)
    return raw, probability, labels, groups


def test_more_about_calibration_stands_beside_the_contract(split: Split) -> None:
    found = measure(split)
    raw, probability, labels, _ = labelled_arrays(split)
    for part, own in (("raw", raw), ("calibrated", probability)):
        more = calibration_metrics(own, labels, num_bins=10)
        assert {name: found[part][name] for name in more} == more
        assert {f"{name}_ci" for name in more} <= set(found[part])
        assert found[part]["ece_null"] == null_ece(own, num_bins=10, seed=0)["ece_null"]
        low, high = found[part]["ece_null_ci"]
        assert low < found[part]["ece_null"] < high
        parts = (found[part][f"brier_{name}"] for name in ("reliability", "resolution", "uncertainty"))
        reliability, resolution, uncertainty = parts
        assert found[part]["brier"] == pytest.approx(reliability - resolution + uncertainty)
    assert found["raw"]["calibration_slope"] == pytest.approx(found["calibrated"]["calibration_slope"] / 2)
    assert found["raw"]["ece"] > found["raw"]["ece_null_ci"][1], "raw probabilities are twice too sure"


def test_decisions_are_those_of_calibrated_probabilities(split: Split) -> None:
    found = measure(split, costs=[[0, 1], [5, 0]], sure_probability=0.7)
    _, probability, labels, groups = labelled_arrays(split)
    at = estimate_at_threshold(probability[:, 1], labels == 1, groups, 0.4, 100, 0)
    assert found["decisions"]["at_threshold"] == at
    assert found["calibrated"]["f1"] == pytest.approx(at["f1"])
    sure = probability.max(axis=1) >= 0.7
    assert found["decisions"]["answer_when_sure"]["num_answered"] == sure.sum()
    right = probability.argmax(axis=1) == labels
    assert found["decisions"]["answer_when_sure"]["accuracy"] == pytest.approx(right[sure].mean())
    decided = probability[:, 1] >= 1 / 6
    cost = np.where(labels == 1, 5.0 * ~decided, decided)
    assert found["decisions"]["expected_cost"]["bayes"] == pytest.approx(cost.mean())
    assert measure(split)["decisions"]["expected_cost"] is None
    with pytest.raises(ConfigError, match="cost matrix"):
        measure(split, costs=[[0, 1, 1], [1, 0, 1], [1, 1, 0]])


def test_probabilities_without_a_finite_line_are_null_and_not_nan(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    best = [0.9 if row.label == 1 else 0.1 for row in rows]
    separated = [
        replace(
            p,
            probability={"no": 1 - q, "yes": q},
            raw_probability={"no": 1 - q, "yes": q},
            predicted="yes" if q >= 0.4 else "no",
        )
        for p, q in zip(predictions, best, strict=True)
    ]
    found = measure((separated, rows))
    assert found["calibrated"]["calibration_slope"] is None
    assert found["calibrated"]["calibration_slope_ci"] is None
    assert found["decisions"]["selective"]["aurc_ci"] is None
    write_json(tmp_path / "m.json", found)
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == found


def test_raw_decides_by_the_largest_probability_and_calibrated_at_the_threshold(split: Split) -> None:
    predictions, rows = split
    labelled = [(p, r.label) for p, r in zip(predictions, rows, strict=True) if r.label is not None]
    found = measure(split)
    raw_right = [(p.raw_probability["yes"] > 0.5) == (label == 1) for p, label in labelled]
    right = [(p.probability["yes"] >= 0.4) == (label == 1) for p, label in labelled]
    assert found["raw"]["accuracy"] == pytest.approx(np.mean(raw_right))
    assert found["calibrated"]["accuracy"] == pytest.approx(np.mean(right))
    assert raw_right != right
    assert found["raw"]["auroc"] == found["calibrated"]["auroc"]
    assert found["calibrated"]["nll"] < found["raw"]["nll"]


def test_the_truth_is_measured_where_it_is_known(split: Split) -> None:
    predictions, rows = split
    found = measure(split)["bayes"]
    labelled = [(p, r) for p, r in zip(predictions, rows, strict=True) if r.label is not None]
    true = np.array([r.true_probability for _, r in labelled], dtype=float)
    labels = np.array([r.label for _, r in labelled])
    expected = probability_metrics(np.stack([1 - true, true], axis=1), labels, true > 0.5, num_bins=10)
    for key in ("auroc", "nll", "brier", "ece"):
        assert found[key] == expected[key]
    assert found["mean_abs_error_calibrated"] == pytest.approx(
        np.mean([abs(p.probability["yes"] - (r.true_probability or 0)) for p, r in labelled])
    )
    assert found["mean_abs_error_calibrated"] < found["mean_abs_error_raw"]
    without = [replace(rows[0], true_probability=None), *rows[1:]]
    assert "bayes" not in measure((predictions, without))


def test_only_explained_rows_count_in_the_alignment(split: Split) -> None:
    predictions, rows = split
    found = measure(split)["explanation"]
    explained = [p for p in predictions if p.explanation is not None]
    assert found["num_rows"] == len(explained) == 300
    assert found["unparsed"] == sum(p.free_verdict is None for p in explained)
    silent = [replace(p, explanation=None, free_verdict=None, free_explanation=None) for p in predictions]
    assert measure((silent, rows))["explanation"]["coverage"] == 0
    assert measure((silent, rows))["explanation"]["kappa"] is None
    # A verdict alone is an explanation that was asked for.
    verdict_only = [replace(silent[0], free_verdict="yes"), *silent[1:]]
    assert measure((verdict_only, rows))["explanation"]["num_rows"] == 1


def test_what_was_read_stands_beside_the_verdict(split: Split) -> None:
    found = measure(split, read={"verdict": read_verdicts(split[0], NO_YES), "judge": Unavailable("nobody answers")})
    part = found["explanation"]
    assert part["readers"]["verdict"]["free"]["kappa"] == part["kappa"]
    assert part["unavailable"] == {"judge": "nobody answers"}
    without = measure(split)["explanation"]
    assert (without["readers"], without["unavailable"]) == ({}, {})
    assert without["kappa"] == part["kappa"], "whoever reads, the verdict of the free explanations is measured"


def test_more_labels(make_split: Callable[..., Split]) -> None:
    labels = ["supported", "refuted", "unclear"]
    found = measure(make_split(300, labels, threshold=None), labels)
    assert found["threshold"] is None
    assert "bayes" not in found
    assert math.isfinite(found["calibrated"]["auroc"])
    assert found["decisions"]["at_threshold"] is None
    assert found["decisions"]["net_benefit"] is None
    assert found["calibrated"]["calibration_in_the_large"] is None
    assert math.isfinite(found["calibrated"]["calibration_slope"])


def test_the_same_input_gives_the_same_bytes_whatever_the_order_of_rows(split: Split, tmp_path: Path) -> None:
    predictions, rows = split
    write_json(tmp_path / "a.json", measure(split))
    write_json(tmp_path / "b.json", measure((predictions, rows[::-1])))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert measure(split, seed=1)["raw"]["auroc_ci"] != measure(split)["raw"]["auroc_ci"]


def test_rows_of_one_group_are_resampled_together(split: Split) -> None:
    predictions, rows = split
    alone = [replace(row, group=None) for row in rows]
    numbered = to_columns(predictions, alone, NO_YES).group_N
    assert len(set(numbered)) == 400
    assert to_columns(predictions, rows, NO_YES).group_N.tolist() == [i // 2 for i in range(400)]
    # A group may be named like the id of a row that has none.
    mixed = [replace(rows[0], group=None), replace(rows[1], group=rows[0].id)]
    assert len(set(to_columns(predictions[:2], mixed, NO_YES).group_N)) == 2


def _spoil(split: Split, kind: str) -> Split:
    predictions, rows = split
    first = predictions[0]
    spoiled = {
        "none": ([], []),
        "missing": (predictions[1:], rows),
        "twice": ([*predictions, first], rows),
        "stranger": ([replace(first, id="x"), *predictions[1:]], rows),
        "verdict": ([replace(first, free_verdict="maybe"), *predictions[1:]], rows),
        "names": ([replace(first, probability={"no": 0.5, "maybe": 0.5}), *predictions[1:]], rows),
        "label": ([replace(first, label=None), *predictions[1:]], rows),
        "one label": (
            [replace(p, label="no") for p in predictions],
            [replace(r, label=0) for r in rows],
        ),
        "unlabelled": (
            [replace(p, label=None) for p in predictions],
            [replace(r, label=None) for r in rows],
        ),
    }
    return spoiled[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "no predictions"),
        ("missing", "without a partner: r0"),
        ("twice", "each id once"),
        ("stranger", "without a partner: r0, x"),
        ("verdict", "maybe"),
        ("names", "maybe"),
        ("label", "row r0 has label number"),
        ("one label", "all 400 labelled rows"),
        ("unlabelled", "no labelled rows"),
    ],
)
def test_predictions_that_do_not_fit_the_rows_are_refused(split: Split, kind: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure(_spoil(split, kind))


def test_predictions_of_another_threshold_are_refused(split: Split) -> None:
    with pytest.raises(NumericsError, match="do not follow from their probabilities"):
        measure(split, threshold=0.9)
    with pytest.raises(NumericsError, match="do not follow from their probabilities"):
        measure(split, threshold=None)


def test_numbers_that_are_none_are_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(NumericsError, match="NaN or infinite"):
        write_json(tmp_path / "m.json", {"a": math.inf})
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_the_order_and_replaces_in_one_move(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_json(path, {"old": 1})
    write_json(path, {"b": 1, "a": None, "name": "\u00e9"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": null,\n  "name": "\u00e9"\n}\n'
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": None, "name": "\u00e9"}
    assert list(tmp_path.iterdir()) == [path]
