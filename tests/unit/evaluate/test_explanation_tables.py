"""What metrics.json says of explanations, in order."""

from typing import Any

from clsgen_dist.evaluate.explanation_tables import alignment_lines, contradictions_by_confidence, form_lines

OLD: dict[str, Any] = {"kappa": 0.8, "num_rows": 10}


def band(low: float, high: float, rate: float | None) -> dict[str, Any]:
    return {"low": low, "high": high, "num_rows": 5, "contradiction_rate": rate}


def test_metrics_without_readers_have_the_line_of_the_verdict() -> None:
    (line,) = alignment_lines(OLD)
    assert (line.written, line.numbers) == ("left alone", OLD)
    assert contradictions_by_confidence(OLD) is None
    assert form_lines(OLD) == []


def test_each_reader_is_named_once_and_what_it_lacks_is_left_out() -> None:
    readers = {"verdict": {"free": OLD, "conditioned": OLD}, "judge": {"free": OLD, "conditioned": None}}
    readers["text"] = {"free": OLD | {"num_rows": 0}, "conditioned": None}
    lines = alignment_lines({"readers": readers})
    assert [(line.reader.split(":")[0], line.written) for line in lines] == [
        ("Opening", "left alone"),
        ("", "following the decision"),
        ("Judge", "left alone"),
    ]


def test_contradictions_stand_by_confidence_the_surest_first() -> None:
    verdict = {"free": {"by_confidence": [band(0.5, 0.9, 0.2), band(0.9, 1.0, 0.0)]}}
    text = {"free": {"by_confidence": [band(0.5, 0.9, None)]}}
    table = contradictions_by_confidence({"readers": {"verdict": verdict, "text": text}})
    assert table is not None
    assert table.readers == ["Opening", "Text classifier"]
    assert table.lines == [("0.9 to 1", [(0.0, 5), (None, 0)]), ("0.5 to 0.9", [(0.2, 5), (None, 5)])]


def test_form_has_a_line_for_what_either_way_of_writing_was_measured_for() -> None:
    lines = form_lines({"form": {"free": {"rep_4": 0.1, "mean_words": None}, "conditioned": None}})
    assert [(name, is_share, values) for name, is_share, _, values in lines] == [
        ("Repeated runs of four", True, [0.1, None])
    ]
