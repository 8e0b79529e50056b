"""What the benchmarks of overheads and of starts make of what they measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import overhead, startup


def block(side: str, wall: float, cpu: float, **counted: float) -> dict[str, Any]:
    return {"side": side, "wall_seconds": wall, "cpu_seconds": cpu, "counted": counted}


def test_shares_are_of_the_blocks_without_in_the_same_turn() -> None:
    spent = {"telling a step": 0.03, "MLflow thread": 0.05}
    blocks = [
        block("with", 11.0, 20.4, **spent),
        block("without", 10.0, 20.0),
        block("with", 20.4, 20.8, **spent),
        block("without", 20.0, 20.0),
        block("with", 10.3, 20.0, **spent | {"checkpoint thread": 0.3}),
        block("without", 10.0, 20.0),
    ]

    found = overhead.judged(blocks, 5)

    assert found["seconds_a_step"] == 2.0
    assert found["wall_share"] == pytest.approx({"median": 0.03, "low": 0.02, "high": 0.1})
    assert found["cpu_share"] == pytest.approx({"median": 0.02, "low": 0.0, "high": 0.04})
    assert found["counted_share"] == pytest.approx(0.008)
    assert found["counted"]["telling a step"] == pytest.approx(30.0)
    assert found["counted"]["checkpoint thread"] == 0.0
    assert "| telling a step, 30 ms | 0.30 % |" in overhead.table(found)


def test_what_is_counted_is_there_and_is_put_back() -> None:
    from collections import Counter

    from clsgen_dist.engine.checkpoint import CheckpointWriter

    seconds, before = Counter[str](), CheckpointWriter.save
    with overhead.counted(seconds):
        assert CheckpointWriter.save is not before
        with pytest.raises(AttributeError):
            CheckpointWriter.save(None, None, 1, {})  # type: ignore[arg-type]
    assert CheckpointWriter.save is before
    assert seconds["beginning a checkpoint"] > 0


def test_starts_are_over_the_libraries_of_their_round() -> None:
    def start(side: str, wall: float) -> dict[str, Any]:
        return {"side": side, "wall": wall, "cpu": 2 * wall, "parts": {"imports": [wall / 2, wall]}}

    starts = [start("libraries", 10.0), start("begin", 15.0), start("again", 12.0), start("tried", 30.0)]
    starts += [start("libraries", 20.0), start("begin", 20.0), start("again", 22.0), start("tried", 30.0)]

    found = startup.judged(starts)

    assert found["again"]["wall"] == pytest.approx({"seconds": 17.0, "ratio": 1.15, "low": 1.1, "high": 1.2})
    assert found["begin"]["cpu"]["seconds"] == 35.0
    assert found["begin"]["parts"] == {"imports": [8.75, 17.5]}
    assert "| the same run, started again | 17.0 | 1.15 (1.10 to 1.20) | 34.0 |" in startup.table(found)
    assert "| a run that begins, with `train.dry_batch: true` | 30.0 | 2.25 (1.50 to 3.00) |" in startup.table(found)
