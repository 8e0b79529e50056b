"""The short version of benchmarks/serving.py: its server, its clients, its looks at every answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.serving import Answer, Asked, faults_of, is_right, measure
from tests.support.bundles import write_tiny_bundle

#: Memory may grow by so much over the requests after the first half: allocators keep what they had once, a leak of a
#: request's rows or words would be far below that in a short run and shows in `make campaign-serving`.
MOST_GROWTH_MB = 60


def test_no_answer_is_lost_or_mixed_up_and_malformed_requests_break_nothing(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path, **{"data.max_prompt_tokens": 400, "train.token_budget": 1024})
    found = measure(bundle, tmp_path / "server.log", num_requests=78, clients=8, explained=0.2)
    assert is_right(found), found
    assert sum(found["malformed"].values()) == 78
    assert set(found["malformed"]) == {"400", "413", "415", "422"}
    assert found["rss_mb_after_load"] - found["rss_mb_after_warm"] < MOST_GROWTH_MB
    log = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert "fever" not in log
    assert "Traceback" not in log


ASKED = Asked("r-1", {"a": "fever", "b": "calm"}, explain=False)
ALONE = {
    ("fever", False): {"predicted": "yes", "explanation": None, "probability": {"no": 0.2, "yes": 0.8}},
    ("calm", False): {"predicted": "no", "explanation": None, "probability": {"no": 0.7, "yes": 0.3}},
}
ROWS = [{"id": "a", **ALONE["fever", False]}, {"id": "b", **ALONE["calm", False]}]


def answer(rows: object) -> Answer:
    return Answer(200, "r-1", json.dumps({"predictions": rows}).encode(), 0.1)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (answer(ROWS), None),
        (replace(answer(ROWS), status=503), "status 503"),
        (replace(answer(ROWS), request_id="r-2"), "id of another request"),
        (answer(ROWS[:1]), "ids of other rows"),
        (answer(ROWS[::-1]), "ids of other rows"),
        (answer([ROWS[0], ROWS[1] | {"predicted": "yes"}]), "label or words of another answer"),
        (answer([ROWS[0], ROWS[1] | {"probability": {"no": 0.6, "yes": 0.4}}]), "probability of another answer"),
    ],
)
def test_the_benchmark_sees_what_is_wrong_with_an_answer(given: Answer, fault: str | None) -> None:
    assert faults_of(ASKED, given, ALONE) == fault
