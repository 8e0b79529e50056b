"""Whole runs: from rows to a run folder, an MLflow run and a bundle that predicts."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clsgen_dist.bundle import load_bundle, read_manifest
from clsgen_dist.claim import claimed
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, load_config
from clsgen_dist.data.store import stored_rows
from clsgen_dist.errors import BundleError
from clsgen_dist.predict.decoding import prefill
from clsgen_dist.records import SPLITS, PredictRequest
from tests.support.ranks import RankPool, RanksFailed
from tests.support.runs import compared_config, flow_on_rank, long_rows, train_on_rank
from tests.support.tiny import ROOT, tiny_config, write_jsonl

CPU = torch.device("cpu")
NUM_TEST_ROWS, NUM_EXPLAINED = 60, 8
NUM_STEPS, KILLED_AFTER, LAST_CHECKPOINT = 10, 7, 6


@dataclass(frozen=True)
class Finished:
    """A run that was killed on the way, went on, and was then started once more."""

    config: RunConfig
    folder: RunFolder
    resumed: list[tuple[str, int]]
    repeated: list[tuple[str, int]]


@pytest.fixture(scope="module")
def finished(two_ranks: RankPool, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Vignettes, a backbone from scratch, two ranks under the shipped ZeRO-3 file."""
    sizes = {"num_train": 300, "num_validation": 40, "num_calibration": 60, "num_test": NUM_TEST_ROWS}
    small = {"hidden_size": 32, "intermediate_size": 64, "num_layers": 2, "num_heads": 2, "vocab_size": 400}
    overrides: dict[str, Any] = {
        "run.name": "vignettes",
        "data.train": None,
        "data.vignettes": sizes,
        "data.true_probability_column": "true_probability",
        "data.max_prompt_tokens": 160,
        "data.max_explanation_tokens": 96,
        "model.from_scratch": small,
        "model.lora": None,
        "train.epochs": 2,
        "train.global_batch": 60,
        "train.token_budget": 4096,
        "train.checkpoint_steps": 2,
        "train.collective_timeout_seconds": 60,
        "evaluate.max_explained_rows": NUM_EXPLAINED,
        "tracking.uri": None,
    }
    config = tiny_config(tmp_path_factory.mktemp("run"), **{"calibrate.method": "temperature", **overrides})
    with pytest.raises(RanksFailed, match="rank 0 ended without a word"):
        two_ranks.run(flow_on_rank, config, KILLED_AFTER)
    resumed = two_ranks.run(flow_on_rank, config)[0]
    repeated = two_ranks.run(flow_on_rank, config)[0]
    return Finished(config, RunFolder(config.folder), resumed, repeated)


def test_resume_goes_on_and_a_finished_run_is_not_trained_again(finished: Finished) -> None:
    assert [done for stage, done in finished.resumed if stage == "train"] == list(
        range(LAST_CHECKPOINT + 1, NUM_STEPS + 1)
    )
    assert "train" not in {stage for stage, _ in finished.repeated}


def test_nobody_goes_on_with_a_run_that_another_process_is_at(finished: Finished, one_rank: RankPool) -> None:
    with claimed(finished.folder.path), pytest.raises(RanksFailed, match="is at work there; wait until it ends"):
        one_rank.run(flow_on_rank, finished.config)


def test_run_folder_is_as_the_contract_says(finished: Finished) -> None:
    folder = finished.folder
    assert load_config(folder.config) == finished.config
    manifest = json.loads(folder.manifest.read_text())
    assert {split: facts["num_rows"] for split, facts in manifest["splits"].items()} == {
        "train": 300,
        "validation": 40,
        "calibration": 60,
        "test": NUM_TEST_ROWS,
    }
    for split in ("train", "validation"):
        assert (folder.path / "explained" / f"{split}.parquet").is_file()
    assert any(folder.checkpoints.glob("step_*/manifest.json"))
    assert not [p for p in folder.path.rglob("*") if "partial" in p.name or p.suffix == ".tmp"]
    assert not list(folder.path.glob("bundle.*"))
    place = folder.evaluation("test")
    assert (place / "report.html").stat().st_size > 1000
    assert len(list(place.glob("*.png"))) >= 3


def test_metrics_are_as_the_contract_says(finished: Finished) -> None:
    metrics = json.loads((finished.folder.evaluation("test") / "metrics.json").read_text())
    for part in ("raw", "calibrated"):
        for name in ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label"):
            assert math.isfinite(metrics[part][name]), f"{part}.{name}"
        for name in ("auroc_ci", "f1_ci", "nll_ci", "ece_ci"):
            low, high = metrics[part][name]
            assert low <= high, f"{part}.{name}"
    assert {"kappa", "auroc_alignment", "coverage", "unparsed"} <= metrics["explanation"].keys()
    assert 0.0 <= metrics["threshold"] <= 1.0
    assert metrics["num_rows"] == NUM_TEST_ROWS
    assert math.isfinite(metrics["language"]["reference_explanation_nll"])
    assert {"auroc", "nll", "brier"} <= metrics["bayes"].keys()


def test_predictions_are_as_the_contract_says(finished: Finished) -> None:
    rows = list(stored_rows(finished.folder.rows("test")))
    predictions = read_jsonl(finished.folder.evaluation("test") / "predictions.jsonl")
    assert [p["id"] for p in predictions] == [row.id for row in rows]
    for number, (row, prediction) in enumerate(zip(rows, predictions, strict=True)):
        assert prediction["label"] == ("no", "yes")[int(row.label or 0)]
        for name in ("probability", "raw_probability"):
            assert prediction[name].keys() == {"no", "yes"}
            assert sum(prediction[name].values()) == pytest.approx(1.0, abs=1e-6)
        assert prediction["predicted"] in ("no", "yes")
        assert (prediction["explanation"] is not None) == (number < NUM_EXPLAINED)


def test_mlflow_has_one_run_with_all_of_it(finished: Finished) -> None:
    import mlflow

    config = finished.config
    client = mlflow.MlflowClient(f"sqlite:///{config.run.output_dir}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == config.tracking.experiment]
    (run,) = client.search_runs([experiment.experiment_id])

    assert run.info.status == "FINISHED"
    assert run.info.run_name == config.run.name
    assert run.info.run_id == json.loads(finished.folder.tracking.read_text())["run_id"]
    assert run.data.params["train.learning_rate"] == str(config.train.learning_rate)
    assert run.data.params["model.from_scratch.hidden_size"] == "32"
    tags = run.data.tags
    assert tags["run_folder"] == str(finished.folder.path)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", tags["git_commit"])
    assert tags["mlflow.source.name"] == "clsgen_dist"
    assert tags["mlflow.source.git.commit"] == tags["git_commit"]
    for name in ("loss", "loss_cls", "loss_gen", "learning_rate", "grad_norm", "tokens_per_second", "tokens_seen"):
        history = client.get_metric_history(run.info.run_id, f"train/{name}")
        assert {point.step for point in history} == set(range(1, NUM_STEPS + 1)), name
    assert run.data.metrics["validation/loss"] > 0
    assert run.data.metrics["test/auroc"] == pytest.approx(
        json.loads((finished.folder.evaluation("test") / "metrics.json").read_text())["calibrated"]["auroc"]
    )
    given = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert given.keys() == set(SPLITS)
    assert json.loads(given["train"].profile)["num_rows"] == 300
    top = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "bundle", "evaluation"} <= top
    assert {file.path for file in client.list_artifacts(run.info.run_id, "explained")} == {
        *("explained/manifest.json", "explained/explain_report.html"),
    }
    assert {"bundle/manifest.json", "bundle/head.safetensors"} <= {
        file.path for file in client.list_artifacts(run.info.run_id, "bundle")
    }
    evaluation = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation/test")}
    assert {"evaluation/test/report.html", "evaluation/test/metrics.json"} <= evaluation


def test_launcher_predicts_what_the_run_did(finished: Finished, tmp_path: Path) -> None:
    rows = stored_rows(finished.folder.rows("test"))
    source = write_jsonl(tmp_path / "rows.jsonl", [{"id": row.id, "text": row.text} for row in rows])
    output = tmp_path / "predictions.jsonl"
    words = ["--bundle", str(finished.folder.bundle), "--input", str(source), "--output", str(output)]
    answer = subprocess.run(
        [sys.executable, str(ROOT / "launchers" / "predict.py"), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    expected = read_jsonl(finished.folder.evaluation("test") / "predictions.jsonl")
    for now, then in zip(read_jsonl(output), expected, strict=True):
        assert now["id"] == then["id"]
        assert now["label"] is None
        assert now["probability"] == pytest.approx(then["probability"], abs=1e-6)
        assert now["raw_probability"] == pytest.approx(then["raw_probability"], abs=1e-6)
        assert now["predicted"] == then["predicted"]
        assert now["explanation"] is not None
        if then["explanation"] is not None:
            assert now["explanation"] == then["explanation"]


def test_full_model_reopens_with_transformers(finished: Finished) -> None:
    from transformers import AutoModelForCausalLM

    trained = AutoModelForCausalLM.from_pretrained(finished.folder.bundle / "model").state_dict()
    start = load_file(finished.folder.backbone / "model.safetensors")
    assert start.keys() <= trained.keys()
    for name, weight in start.items():
        assert trained[name].shape == weight.shape
        assert (trained[name] - weight).norm() > 0, name
    head = load_file(finished.folder.bundle / "head.safetensors")
    assert {name: tuple(w.shape) for name, w in head.items()} == {"weight": (2, 32), "bias": (2,)}
    assert all(w.norm() > 0 for w in head.values())


@pytest.mark.parametrize("name", ["head.safetensors", "task.json", "calibrator.json", "tokenizer/tokenizer.json"])
def test_altered_bundle_is_refused(finished: Finished, tmp_path: Path, name: str) -> None:
    from clsgen_dist.predict.files import predict_file
    from clsgen_dist.progress import silent

    bundle = tmp_path / "bundle"
    shutil.copytree(finished.folder.bundle, bundle)
    content = bytearray((bundle / name).read_bytes())
    content[-2] ^= 1
    (bundle / name).write_bytes(content)
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "An old man coughs."}])
    request = PredictRequest(bundle, str(source), tmp_path / "out.jsonl", None, (), ("--predict.explain=none",))
    with pytest.raises(BundleError, match=f"{name} was altered"):
        predict_file(request, silent)
    assert not list(tmp_path.glob("out.jsonl*"))


def test_adapter_reopens_with_peft(two_ranks: RankPool, tmp_path: Path) -> None:
    """Names, shapes and norms of adapter and head; and PEFT alone makes of the files what the bundle does."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    config = compared_config(tmp_path, "lora", long_rows(20))
    two_ranks.run(train_on_rank, config)
    place = RunFolder(config.folder).bundle

    adapter = load_file(place / "adapter" / "adapter_model.safetensors")
    sizes = {"q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32)}
    sizes |= {"gate_proj": (64, 32), "up_proj": (64, 32), "down_proj": (32, 64)}
    parts = {module: "self_attn" if module[0] in "qkvo" else "mlp" for module in sizes}
    shapes = {}
    for module, (out, into) in sizes.items():
        for layer in range(2):
            stem = f"base_model.model.model.layers.{layer}.{parts[module]}.{module}"
            shapes |= {f"{stem}.lora_A.weight": (4, into), f"{stem}.lora_B.weight": (out, 4)}
    assert {name: tuple(weight.shape) for name, weight in adapter.items()} == shapes
    head = load_file(place / "head.safetensors")
    assert {name: tuple(weight.shape) for name, weight in head.items()} == {"weight": (2, 32), "bias": (2,)}
    assert all(weight.norm() > 0 for weight in [*adapter.values(), *head.values()])
    assert read_manifest(place)["base"]["name_or_path"] == config.model.name_or_path

    base = AutoModelForCausalLM.from_pretrained(config.model.name_or_path)
    theirs = PeftModel.from_pretrained(base, place / "adapter").eval()
    bundle = load_bundle(place, device=CPU)
    prompt = bundle.tokenizer.encode_prompts(["tired old fever"])
    with torch.no_grad():
        ids = torch.tensor(prompt)
        output = theirs(input_ids=ids, output_hidden_states=True)
        logits = torch.nn.functional.linear(output.hidden_states[-1][:, -1], head["weight"], head["bias"])
        ours = prefill(bundle.model, prompt, CPU, with_cache=False).hidden_BD
        torch.testing.assert_close(bundle.model.head(ours), logits, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(bundle.model.lm_logits(ours), output.logits[:, -1], atol=1e-5, rtol=1e-5)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
