"""What a model should not be used for follows from its numbers."""

from typing import Any

import numpy as np
import pytest

from clsgen_dist.evaluate.confusion import Confusion
from clsgen_dist.evaluate.limits import majority, say_limits

FAIR = Confusion(["no", "yes"], np.array([[180, 20], [30, 170]]))

PART: dict[str, Any] = {"name": "north", "ece": 0.05, "ece_null_ci": [0.01, 0.06], "intercept_ci": [0.2, 0.9]}


def metrics(calibrated: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A model of which nothing speaks against it, changed."""
    own = {"auroc_ci": [0.9, 0.95], "accuracy_ci": [0.84, 0.91], "ece": 0.02, "ece_null_ci": [0.01, 0.03]}
    found = {
        "num_labelled_rows": 400,
        "is_calibrated": True,
        "calibrated": own | (calibrated or {}),
        "subgroups": {"site": [PART]},
        "explanation": {"num_rows": 100, "contradiction_rate": 0.0, "coverage": 1.0},
        "language": {},
    }
    return found | changes


def explained(**changes: Any) -> dict[str, Any]:
    return metrics(explanation=metrics()["explanation"] | changes)


def test_a_model_of_which_nothing_speaks_against_it_has_no_limits_of_its_own() -> None:
    assert say_limits(metrics(), FAIR, prior_differs=False) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (metrics(bayes={}), "these rows are simulated"),
        (metrics(num_labelled_rows=199), "there are 199 labelled rows only"),
        (metrics({"auroc_ci": [0.48, 0.7]}), "may be no better than chance (AUROC 0.480 to 0.700)"),
        (metrics({"accuracy_ci": [0.5, 0.6]}), "always saying \u201cno\u201d is right in 50.0 % of these rows"),
        (metrics({"ece": 0.031}), "off by more than chance (ECE 0.031; a perfect model shows 0.030 at most"),
        (metrics(is_calibrated=False), "no calibrator was fitted"),
        (metrics(subgroups={"site": [PART | {"ece": 0.07}]}), "site \u201cnorth\u201d, ECE 0.070, too low."),
        (explained(contradiction_rate=0.072), "another label than the one decided on in 7.2 % of the rows"),
        (explained(coverage=0.9), "left alone, 10.0 % of them name no label"),
        (explained(form={"free": {}, "conditioned": {"cut_share": 0.08}}), "8.0 % of them are cut before their end"),
        (explained(faithfulness={"swap_share": 0.6}), "under another in 60.0 % of the rows only"),
        (explained(num_rows=0), "whether they argue for what is decided was not measured"),
        (metrics(language={"general_text_change": 0.021}), "training cost it language"),
        (metrics(language={"free_rep_4": 0.3}), "training cost it language"),
    ],
)
def test_what_speaks_against_it_is_said_and_nothing_else(found: dict[str, Any], words: str) -> None:
    (said,) = say_limits(found, FAIR, prior_differs=False)
    assert words in said


def test_another_prior_is_said_instead_of_the_error() -> None:
    (said,) = say_limits(metrics({"ece": 0.5}), FAIR, prior_differs=True)
    assert "made for other shares of labels" in said


def test_rare_labels_are_named_with_their_rows() -> None:
    rare = Confusion(["a", "b", "c"], np.array([[200, 0, 0], [0, 29, 0], [0, 0, 30]]))
    (said,) = say_limits(metrics(), rare, prior_differs=False)
    assert said.startswith("Not for labels that hardly occur here: \u201cb\u201d (29). ")


def test_own_columns_come_before_traits_and_only_some_parts_are_named() -> None:
    off = PART | {"ece": 0.07, "intercept_ci": None}
    parts = {"hedging": [off | {"name": f"t{n}", "ece": 0.5} for n in range(6)], "site": [off, PART]}
    (said,) = say_limits(metrics(subgroups=parts), FAIR, prior_differs=False)
    assert "in 7 of 8 the probabilities are off" in said
    assert "about 0.2: site \u201cnorth\u201d, ECE 0.070; Hedging in the text \u201ct0\u201d, ECE 0.500; " in said
    assert said.endswith("; and others.")


def test_the_majority_is_that_of_the_true_labels() -> None:
    assert majority(Confusion(["no", "yes"], np.array([[0, 30], [10, 0]]))) == ("no", 0.75)
