"""A few seconds of `make campaign-fuzz`."""

from __future__ import annotations

from tests.campaigns.fuzz import fuzz


def test_mutated_inputs_end_in_errors_of_ours_or_not_at_all() -> None:
    found = fuzz(seconds=5, seed=1)
    assert not found["crashes"]
    assert set(found["tried"]) == {"jsonl", "json", "csv", "parquet", "config", "bundle", "spoken"}
