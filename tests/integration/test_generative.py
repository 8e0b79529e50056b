"""A run without a head, whole: trained, verified, calibrated and evaluated through the words of its verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.sealed import PROBABILITY, VERDICT
from tests.support.ranks import RankPool
from tests.support.runs import flow_on_rank, split_files
from tests.support.tiny import tiny_config, tiny_rows


def test_a_run_without_a_head_decides_by_its_words(tmp_path: Path, two_ranks: RankPool) -> None:
    config = tiny_config(
        tmp_path,
        **{
            "objective.w_cls": 0.0,
            "train.epochs": 6,
            "model.lora": None,
            "train.num_workers": 2,
            "train.learning_rate": 5e-3,
            "calibrate.method": "temperature",
            **split_files(tmp_path, tiny_rows(96)),
        },
    )

    two_ranks.run(flow_on_rank, config, seconds=240)

    folder = RunFolder(config.folder)
    assert json.loads((folder.bundle / "manifest.json").read_text())[PROBABILITY] == VERDICT
    lines = [json.loads(line) for line in (folder.evaluation("test") / "predictions.jsonl").read_text().splitlines()]
    logits = np.array([line["logits"] for line in lines])
    assert (logits < 0).all(), "log-likelihoods"
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.array([line["raw_probability"]["yes"] for line in lines]) == pytest.approx(shares[:, 1])
    metrics = json.loads((folder.evaluation("test") / "metrics.json").read_text())
    assert metrics["is_calibrated"]
    # Half of the text is one word that decides; a head with its first weights would find it by luck alone.
    assert metrics["calibrated"]["auroc"] > 0.8
    best = json.loads((folder.best / "state.json").read_text())
    assert best["best_loss"] == pytest.approx(best["validation_loss_gen"])
