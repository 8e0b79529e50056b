"""The first lines of a report."""

from collections.abc import Callable

import pytest

from clsgen_dist.evaluate.confusion import count_confusions
from clsgen_dist.evaluate.evaluation import evaluate
from clsgen_dist.evaluate.summary_wording import say_summary
from tests.support.evaluated import Split, everything_measured

NO_YES = ["no", "yes"]


@pytest.mark.parametrize("prior_differs", [False, True])
def test_each_topic_that_was_measured_has_its_line(make_split: Callable[..., Split], prior_differs: bool) -> None:
    predictions, rows = make_split(200, NO_YES, threshold=0.4)
    settings = {"threshold": 0.4, "calibrated": True, "costs": None, "sure_probability": 0.9}
    metrics = evaluate(predictions, rows, labels=NO_YES, num_bootstrap=100, num_bins=10, seed=0, **settings)
    confusion = count_confusions(predictions, NO_YES)
    said = dict(say_summary(metrics, confusion, prior_differs))
    assert list(said) == ["Decisions", *(() if prior_differs else ("Probabilities",)), "Explanations"]
    num_yes = sum(p.label == "yes" for p in predictions)
    assert f"{100 * metrics['calibrated']['accuracy']:.1f} % of the rows are decided rightly" in said["Decisions"]
    assert f"would be right in {100 * max(num_yes, 180 - num_yes) / 180:.1f} %." in said["Decisions"]
    assert said["Explanations"].endswith(f"(kappa {metrics['explanation']['kappa']:.3f}).")
    whole = dict(say_summary(metrics | everything_measured(metrics["explanation"]), confusion, prior_differs))
    assert whole["Explanations"].endswith(", 0.801 to 0.912).")
    assert whole["Language"].startswith("Some general language is lost")
    silent = {"explanation": metrics["explanation"] | {"num_rows": 0}}
    assert "Explanations" not in dict(say_summary(metrics | silent, confusion, prior_differs))
