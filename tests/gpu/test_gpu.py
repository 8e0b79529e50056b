"""The flow on a GPU. Skipped where there is none; run by hand on a machine that has one: pytest tests/gpu."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]

ROOT = Path(__file__).parents[2]
SMALL = (
    *("--data.vignettes.num_train", "512", "--data.vignettes.num_validation", "64", "--data.vignettes.num_test", "128"),
    *("--data.vignettes.num_calibration", "64", "--train.epochs", "1", "--train.global_batch", "32"),
    *("--train.num_workers", "1", "--evaluate.max_explained_rows", "16", "--evaluate.num_bootstrap", "100"),
)


def launch(folder: Path, name: str, *overrides: str, gpu: bool = True) -> Path:
    """Runs launchers/train.py as a process of its own; returns the run folder."""
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true"}
    if not gpu:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "launchers/train.py", "--config", "examples/demo.yaml", *SMALL, "--run.name", name]
    command += ["--run.output_dir", str(folder), "--tracking.uri", f"file:{folder}/mlruns", *overrides]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / name


def step_losses(folder: Path) -> list[float]:
    """train/loss by step, from the MLflow file store of a run."""
    (metric,) = (folder.parent / "mlruns").glob(
        f"*/{json.loads((folder / 'tracking.json').read_text())['run_id']}/metrics/train/loss"
    )
    return [float(line.split()[1]) for line in metric.read_text().splitlines()]


def test_bf16_zero3_trains_and_its_bundle_predicts_alike_on_gpu_and_cpu(tmp_path: Path) -> None:
    from clsgen_dist.bundle import load_bundle
    from clsgen_dist.data.store import stored_rows
    from clsgen_dist.predict.predictor import Predictor

    run = launch(tmp_path, "bf16", "--train.precision", "bf16", "--train.deepspeed", "ds_configs/zero3_bf16.json")
    losses = step_losses(run)
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    rows = list(stored_rows(run / "rows" / "test.parquet"))[:32]
    answers = {}
    for device in ("cuda", "cpu"):
        bundle = load_bundle(run / "bundle", device=torch.device(device))
        answers[device] = Predictor(bundle, 8192, 48, torch.device(device)).predict(rows, num_explained=4)
    difference = np.abs(
        [a.probability["yes"] - b.probability["yes"] for a, b in zip(answers["cuda"], answers["cpu"], strict=True)]
    ).max()
    assert difference < 3e-2
    assert all(answers["cuda"][n].explanation for n in range(4))


@pytest.mark.parametrize("zero", ["zero3_bf16.json", "zero2_bf16.json", "zero3_offload.json"])
def test_fp32_losses_are_those_of_a_cpu(tmp_path: Path, zero: str) -> None:
    settings = ("--train.precision", "fp32", "--train.deepspeed", f"ds_configs/{zero}", "--train.max_steps", "8")
    on_gpu = step_losses(launch(tmp_path / "gpu", "run", *settings))
    settings = ("--train.precision", "fp32", "--train.deepspeed", "ds_configs/zero3_cpu.json", "--train.max_steps", "8")
    on_cpu = step_losses(launch(tmp_path / "cpu", "run", *settings, gpu=False))
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-3)


@pytest.mark.parametrize("policy", ["selective", "full"])
def test_activations_that_wait_on_the_host_leave_the_gpu_and_change_no_gradient(policy: str) -> None:
    from clsgen_dist.model.recomputation import recompute_layers
    from tests.support.tiny import tiny_model

    gradients, peaks = [], []
    ids = torch.randint(0, 320, (1, 4096), generator=torch.Generator().manual_seed(0)).cuda()
    for inputs_on_host in (False, True):
        shape = {"num_hidden_layers": 8, "hidden_size": 256, "max_position_embeddings": 4096}
        model = tiny_model("llama", **shape).cuda().train()
        recompute_layers(model, policy, inputs_on_host=inputs_on_host)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        peaks.append(torch.cuda.memory_allocated() - before)
        hidden.square().sum().backward()
        gradients.append([p.grad.cpu() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    num_moved = 8 if policy == "full" else 4
    assert peaks[0] - peaks[1] >= 0.9 * (num_moved - 1) * 4096 * 256 * 4


def test_auto_takes_no_recomputation_where_all_fits(tmp_path: Path) -> None:
    settings = ("--model.gradient_checkpointing", "auto", "--train.max_steps", "4")
    auto = step_losses(launch(tmp_path / "auto", "run", *settings))
    plain = step_losses(launch(tmp_path / "plain", "run", "--train.max_steps", "4"))
    assert auto == plain


def test_kernels_of_liger_train_alike(tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed: pip install 'clsgen_dist[liger]'")
    settings = ("--train.precision", "fp32", "--train.max_steps", "8")
    own = step_losses(launch(tmp_path / "own", "run", *settings))
    liger = step_losses(launch(tmp_path / "liger", "run", *settings, "--model.liger_kernels", "true"))
    assert liger != own, "other kernels round differently"
    np.testing.assert_allclose(liger, own, rtol=1e-3)


def test_flash_attention_trains_as_the_other_kernels_do(tmp_path: Path) -> None:
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    settings = ("--train.precision", "bf16", "--train.max_steps", "8")
    masked = step_losses(launch(tmp_path / "sdpa", "run", *settings))
    skipping = step_losses(launch(tmp_path / "auto", "run", *settings, "--model.attention", "auto"))
    assert skipping != masked, "auto takes FlashAttention here"
    np.testing.assert_allclose(skipping, masked, rtol=2e-2)
