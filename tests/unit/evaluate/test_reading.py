"""What readers read, put beside the head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clsgen_dist.evaluate.columns import to_columns
from clsgen_dist.evaluate.reading import Reading, Unavailable, describe_readings, read_verdicts, read_words
from clsgen_dist.records import Prediction, Row

Split = tuple[list[Prediction], list[Row]]

NO_YES = ["no", "yes"]


class Lengths:
    """Reads the label off the number of words, two or more; keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def read(self, texts: Sequence[str]) -> tuple[np.ndarray, Mapping[str, Any]]:
        self.seen = list(texts)
        return np.array([len(text.split()) - 2 for text in texts], dtype=np.int64), {"num_texts": len(texts)}


def predict(id: str, p_yes: float, verdict: str | None, free: str | None, own: str | None) -> Prediction:
    return Prediction(
        id=id,
        label=None,
        probability={"no": 1 - p_yes, "yes": p_yes},
        raw_probability={"no": 1 - p_yes, "yes": p_yes},
        predicted="yes" if p_yes >= 0.5 else "no",
        explanation=own,
        free_verdict=verdict,
        free_explanation=free,
        is_cut=False,
        is_free_cut=False,
        logits=[0.0, 0.0],
    )


#: Four predictions; the last one without any explanation.
PREDICTIONS = [
    predict("a", 0.9, "yes", "one two three", "one two"),
    predict("b", 0.2, "yes", "one two", "one two"),
    predict("c", 0.3, None, "one", "one two three"),
    predict("d", 0.8, None, None, None),
]


def test_the_verdict_is_read_off_the_predictions() -> None:
    found = read_verdicts(PREDICTIONS, NO_YES)
    assert found.free_N.tolist() == [1, 1, -1, -1]
    assert found.conditioned_N.tolist() == [1, 0, 0, -1]
    assert found.facts == {}


def test_a_reader_sees_every_text_once_at_one_time_and_its_labels_find_their_rows() -> None:
    reader = Lengths()
    found = read_words(reader, PREDICTIONS)
    assert reader.seen == ["one two three", "one two", "one two", "one two", "one", "one two three"]
    assert found.free_N.tolist() == [1, 0, -1, -1]
    assert found.conditioned_N.tolist() == [0, 0, 1, -1]
    assert found.facts == {"num_texts": 6}


def test_alignment_of_each_reader_by_hand() -> None:
    rows = [Row(id=p.id, text="") for p in PREDICTIONS]
    columns = to_columns(PREDICTIONS, rows, NO_YES)
    read = {"verdict": read_verdicts(PREDICTIONS, NO_YES), "text": read_words(Lengths(), PREDICTIONS)}
    found = describe_readings(columns, {**read, "judge": Unavailable("nobody")}, num_bootstrap=100, seed=0)
    # The head says yes, no, no; the verdicts are yes, yes, none.
    assert (found["agreement"], found["contradiction_rate"], found["coverage"]) == (0.5, 0.5, pytest.approx(2 / 3))
    assert (found["num_rows"], found["unparsed"], found["auroc_alignment"]) == (3, 1, None)
    verdict, text = found["readers"]["verdict"], found["readers"]["text"]
    assert {name: verdict["free"][name] for name in ("kappa", "agreement")} == {
        name: found[name] for name in ("kappa", "agreement")
    }
    assert (verdict["conditioned"]["agreement"], verdict["conditioned"]["coverage"]) == (1.0, 1.0)
    assert "reader" not in verdict
    # The words say yes, no, unclear; of the conditioned ones no, no, yes.
    assert (text["free"]["kappa"], text["free"]["auroc_alignment"]) == (1.0, 1.0)
    assert text["conditioned"]["agreement"] == pytest.approx(1 / 3)
    assert text["reader"] == {"num_texts": 6}
    assert found["unavailable"] == {"judge": "nobody"}
    assert list(found["readers"]) == ["verdict", "text"]


def test_explanations_that_nobody_asked_for_are_not_missing() -> None:
    """Without a free text, only the conditioned one counts, and the other way round."""
    predictions = [replace(PREDICTIONS[0], free_verdict=None, free_explanation=None), *PREDICTIONS[1:]]
    predictions[1] = replace(predictions[1], explanation=None)
    columns = to_columns(predictions, [Row(id=p.id, text="") for p in predictions], NO_YES)
    found = describe_readings(columns, {"verdict": read_verdicts(predictions, NO_YES)}, num_bootstrap=100, seed=0)
    kinds = found["readers"]["verdict"]
    assert (kinds["free"]["num_rows"], kinds["conditioned"]["num_rows"]) == (2, 2)


def test_a_reading_of_simulated_predictions_has_intervals(make_split: Callable[..., Split]) -> None:
    predictions, rows = make_split(400, NO_YES, threshold=0.4)
    columns = to_columns(predictions, rows, NO_YES)
    unsure = Reading(np.full(400, -1), np.full(400, -1))
    found = describe_readings(
        columns, {"verdict": read_verdicts(predictions, NO_YES), "text": unsure}, num_bootstrap=100, seed=0
    )
    free = found["readers"]["verdict"]["free"]
    for name in ("kappa", "auroc_alignment"):
        low, high = free[f"{name}_ci"]
        assert low < free[name] < high
    assert sum(bin["num_rows"] for bin in free["by_confidence"]) == free["num_rows"] - free["unparsed"]
    assert found["readers"]["text"]["free"]["coverage"] == 0
    assert found["readers"]["text"]["free"]["kappa"] is None
