"""General text: made once, dealt to ranks, and a divergence whose gradient holds the tuned model to its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import DataError
from clsgen_dist.train.general import NUM_WRITTEN, GeneralText, open_general_text
from tests.support.tiny import shared_backbone, tiny_config

ALONE = Ranks(0, 1, torch.device("cpu"))


def settings(tmp_path: Path, **others: Any) -> RunConfig:
    return tiny_config(tmp_path, **{"objective.general_weight": 0.5, "objective.general_tokens": 16, **others})


def opened(config: RunConfig, tmp_path: Path) -> GeneralText:
    found = open_general_text(config, tmp_path / "general.arrow", shared_backbone(), ALONE)
    assert found is not None
    return found


def test_nothing_is_made_where_nothing_is_looked_at(tmp_path: Path) -> None:
    assert open_general_text(tiny_config(tmp_path), tmp_path / "general.arrow", "absent", ALONE) is None
    assert not (tmp_path / "general.arrow").exists()


def test_the_base_model_writes_its_own_passages_once(tmp_path: Path) -> None:
    general = opened(settings(tmp_path), tmp_path)
    assert 0.9 * NUM_WRITTEN <= len(general.split) <= NUM_WRITTEN
    assert general.split.lengths.max() == 15, "the last token is predicted, never read"
    assert (general.split.labels == -1).all()
    before = (tmp_path / "general.arrow").read_bytes()
    open_general_text(settings(tmp_path), tmp_path / "general.arrow", "absent", ALONE)
    assert (tmp_path / "general.arrow").read_bytes() == before


def test_a_file_is_cut_into_pieces(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("fever and cough " * 40 + "\n\nno rash\n\nx", encoding="utf-8")
    general = opened(settings(tmp_path, **{"data.general_text": str(tmp_path / "text.txt")}), tmp_path)
    assert len(general.split) > 5
    assert general.split.num_scored.max() == 15
    openings = {int(general.split[n].prompt[0]) for n in range(len(general.split))}
    assert len(openings) == 1


def test_a_file_without_passages_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x\n\ny", encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.general_text: no passage of 4 tokens or more"):
        opened(settings(tmp_path, **{"data.general_text": str(tmp_path / "text.txt")}), tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        opened(settings(tmp_path, **{"data.general_text": str(tmp_path / "none.txt")}), tmp_path)
    assert not (tmp_path / "general.arrow").exists()


@pytest.mark.parametrize("world_size", [1, 2, 6])
def test_every_passage_of_a_step_is_dealt_once(tmp_path: Path, world_size: int) -> None:
    general = opened(settings(tmp_path), tmp_path)
    parts = [general.plan(0, 7, Ranks(rank, world_size, torch.device("cpu")), 64) for rank in range(world_size)]
    dealt = [row for plan, _ in parts for members in plan for row in members]
    alone, num_tokens = general.plan(0, 7, ALONE, 64)
    assert sorted(dealt) == sorted(row for members in alone for row in members)
    assert len(dealt) == len(set(dealt)) == 4
    assert {count for _, count in parts} == {num_tokens} == {int(general.split.num_scored[dealt].sum())}
    assert len({len(plan) for plan, _ in parts}) == 1, "ranks stay aligned"


def test_steps_walk_through_all_passages(tmp_path: Path) -> None:
    general = opened(settings(tmp_path), tmp_path)
    steps = -(-len(general.split) // 4)
    seen = [row for step in range(steps) for m in general.plan(0, step, ALONE, 64)[0] for row in m]
    assert sorted(seen) == list(range(len(general.split)))
    assert isinstance(general.split, TokenizedSplit)
    assert np.unique(seen).size == len(seen)
