"""A real model, asked for probabilities in words: what it fails at is counted, and its tokens still speak; held to the
form, it fails at nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.progress import Event, silent
from clsgen_dist.verbalize.stage import verbalize_run
from tests.support.tiny import tiny_config

ROOT = Path(__file__).parents[2]
BACKBONE = ROOT / "models" / "gemma3-270m"
ROWS = ROOT.parent / "shared" / "data"
NUM_ROWS = 24

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not BACKBONE.is_dir(), reason=f"no backbone at {BACKBONE}; see make backbone"),
    pytest.mark.skipif(not ROWS.is_dir(), reason=f"no real rows at {ROWS}"),
]


def real_config(folder: Path, **settings: Any) -> RunConfig:
    """The backbone, asked about the first rows of e-SNLI."""
    splits = {
        f"data.{s}": str(ROWS / f"esnli_binary_{s}.jsonl") for s in ("train", "validation", "calibration", "test")
    }
    return tiny_config(
        folder,
        **splits,
        **{
            "task.question": "Does the premise entail the hypothesis, or contradict it?",
            "task.labels": ["contradiction", "entailment"],
            "data.max_train_rows": 50,
            "data.max_eval_rows": NUM_ROWS,
            "verbalize.source": "local",
            "verbalize.model": str(BACKBONE),
            "verbalize.prompt": "direct",
            "verbalize.max_tokens": 32,
            "evaluate.num_bootstrap": 100,
        },
        **settings,
    )


def test_a_base_model_of_270m_says_little_and_its_tokens_can_be_calibrated(tmp_path: Path) -> None:
    config = real_config(tmp_path)
    folder = verbalize_run(config, silent)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert metrics["num_rows"] == NUM_ROWS
    assert len(answers) == 2 * NUM_ROWS
    assert metrics["num_parsed_rows"] + sum(metrics["failures"].values()) == NUM_ROWS
    for name in ("label_tokens", "label_tokens_temperature", "digit_expectation_temperature"):
        assert metrics[name]["num_rows"] == NUM_ROWS, "tokens speak for every row"
        assert set(metrics["all_rows"][name]) >= {"nll", "ece", "auroc", "auroc_ci"}
    # Far too sure before: what the temperature finds is above 1, and it helps on rows that it has not seen.
    assert metrics["label_tokens_temperature"]["temperature"] > 1
    assert metrics["label_tokens_temperature"]["nll"] < metrics["label_tokens"]["nll"]

    heard: list[Event] = []
    verbalize_run(config, heard.append)
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert not RunFolder(config.folder).config.exists(), "nothing was prepared for training"


def test_held_to_the_form_it_says_a_distribution_of_every_row(tmp_path: Path) -> None:
    config = real_config(tmp_path, **{"verbalize.guided": True, "verbalize.token_probabilities": False})
    folder = verbalize_run(config, silent)
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["parse_rate"], metrics["parse_rate_fit"]) == (1.0, 1.0)
    assert metrics["raw"]["num_rows"] == metrics["invert_softmax_temperature"]["num_rows"] == NUM_ROWS
    for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        assert list(json.loads(answer["answer"])) == ["contradiction", "entailment"]
        assert answer["raw_sum"] == 1.0
    # It knows nothing of entailment; what it says as if it were sure is not left standing.
    assert metrics["invert_softmax_temperature"]["nll"] < metrics["raw_floored"]["nll"]
