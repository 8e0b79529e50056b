"""One side on one device, with random weights: ours without ZeRO, TRL's SFTTrainer, or the plain way to write it.

    python benchmarks/gpu_side.py JOB.json RESULT.json

Needs torch, transformers, peft, numpy, pyarrow, pydantic and PyYAML; the side `trl` needs trl and datasets besides.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

import clsgen_dist.accelerator  # noqa: F401 - before transformers, which looks for GPUs

#: Tokens of a row that carry language-model loss, at most; the rest of it is prompt.
MOST_SCORED = 256

LORA_RANK = 16


class GpuJob(NamedTuple):
    """What a side is asked to do.

    Attributes:
        side: ours, plain or trl.
        shape: settings of a LlamaConfig.
        lengths: tokens of a row; one is timed, of several the longest is looked for that trains.
        num_tokens: of a step; rows are as many as fit, one at least.
        num_warm, num_timed: steps.
        policies: of recomputation, tried in turn until one has memory enough.
        activation_offload: inputs of recomputed layers wait in CPU memory.
        compiled: decoder layers go through torch.compile.
        liger: norms, rotary positions and feed-forward parts are Liger's (`model.liger_kernels`).
    """

    side: str
    shape: dict[str, Any]
    lengths: list[int]
    num_tokens: int
    num_warm: int
    num_timed: int
    policies: list[str]
    activation_offload: bool
    compiled: bool
    liger: bool


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_job(job: GpuJob) -> dict[str, Any]:
    """Trains; what has no memory is found out by trying.

    Returns:
        `policy`, `seconds` of each timed step, `tokens`, `scored` and `peak_bytes` of the longest length that trained,
        and `failed`, the length that did not; `seconds` is empty where none did.
    """
    found: dict[str, Any] = {"seconds": [], "failed": None}
    for length in job.lengths:
        one = _first_that_fits(job, length)
        if one is None:
            return found | {"failed": length}
        found = one
    return found


def _first_that_fits(job: GpuJob, length: int) -> dict[str, Any] | None:
    for policy in job.policies:
        try:
            return _timed(job, length, policy)
        except torch.OutOfMemoryError:
            pass
        # Outside the handler, which would keep the tensors of the frames that failed.
        _empty()
    return None


def _timed(job: GpuJob, length: int, policy: str) -> dict[str, Any]:
    num_rows = max(1, job.num_tokens // length)
    num_scored = min(MOST_SCORED, length // 4)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    moments: list[float] = []

    def tick() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        moments.append(time.perf_counter())

    SIDES[job.side](job, rows_of(job, length, num_rows, num_scored), policy, tick)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    _empty()
    return {
        "policy": policy,
        "seconds": np.diff(moments)[job.num_warm :].tolist(),
        "length": length,
        "tokens": num_rows * length,
        "scored": num_rows * num_scored,
        "peak_bytes": peak,
        "failed": None,
    }


def _empty() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def backbone(job: GpuJob, policy: str) -> Any:
    """A Llama of this shape with an adapter, all of it drawn on the device, in bf16."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from clsgen_dist.config.sections import Lora
    from clsgen_dist.model.build import add_new_adapter
    from clsgen_dist.model.liger import use_liger_kernels
    from clsgen_dist.model.recomputation import recompute_layers

    with device():
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(**job.shape), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        if job.liger:
            use_liger_kernels(model)
        model = add_new_adapter(model, Lora(rank=LORA_RANK), seed=0)
    recompute_layers(model, policy, inputs_on_host=job.activation_offload)
    if job.compiled:
        for layer in model.get_base_model().get_decoder().layers:
            layer.compile()
    return model.train()


def rows_of(job: GpuJob, length: int, num_rows: int, num_scored: int) -> list[Any]:
    """Rows of random tokens, all of one length when they are trained on."""
    from clsgen_dist.data.tokens import TokenizedRow

    draw = np.random.default_rng(0)
    ids = draw.integers(3, job.shape["vocab_size"], size=(num_rows, length + 1))
    cut = length + 1 - num_scored  # the last token is predicted, never read
    return [TokenizedRow(row[:cut], row[cut:], n % 2, 0) for n, row in enumerate(ids)]


def ours(job: GpuJob, rows: list[Any], policy: str, tick: Callable[[], None]) -> None:
    """Both losses by the parts of a step, with torch's AdamW in place of ZeRO."""
    from clsgen_dist.data.batch import collate
    from clsgen_dist.model.build import parameter_groups
    from clsgen_dist.model.dual_head import DualHead
    from clsgen_dist.model.heads import ClassificationHead
    from clsgen_dist.objective import Denominators, Weights, joint_loss, loss_sums

    head = ClassificationHead(job.shape["hidden_size"], 2, seed=0).to(device(), torch.bfloat16)
    model = DualHead(backbone(job, policy), head).train()
    groups = parameter_groups(model, learning_rate=2e-4, head_learning_rate=1e-3, weight_decay=0.0)
    optimizer = torch.optim.AdamW(groups, fused=torch.cuda.is_available())
    weights = Weights(1.0, 1.0, 0.0, 0.0, (1.0, 1.0))
    labels, scored = np.array([row.label for row in rows]), np.array([len(row.completion) for row in rows])
    counts = Denominators.count(labels, scored, weights.class_weights)

    def loss() -> torch.Tensor:
        batch = collate(rows).to(device())
        output = model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
        sums = loss_sums(
            output.cls_logits_EK, batch.labels, output.lm_logits_NV, batch.lm_targets, batch.lm_rows, None, weights
        )
        return joint_loss(sums, counts, weights)

    _take_steps(job, model, optimizer, loss, tick)


def plain(job: GpuJob, rows: list[Any], policy: str, tick: Callable[[], None]) -> None:
    """Explanations alone by the loss that transformers computes, of logits at every position."""
    model = backbone(job, policy)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    examples = [_example(row) for row in rows]
    ids, labels = (torch.tensor([one[name] for one in examples]).to(device()) for name in ("input_ids", "labels"))

    def loss() -> torch.Tensor:
        return torch.as_tensor(model(input_ids=ids, labels=labels, use_cache=False).loss)

    _take_steps(job, model, optimizer, loss, tick)


def _example(row: Any) -> dict[str, list[int]]:
    prompt, completion = row.prompt.tolist(), row.completion.tolist()
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


def _take_steps(
    job: GpuJob, model: Any, optimizer: Any, loss_of: Callable[[], torch.Tensor], tick: Callable[[], None]
) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    tick()
    for _ in range(job.num_warm + job.num_timed):
        loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tick()
        assert torch.isfinite(loss), "the time of a loss that is no number means nothing"


def trl(job: GpuJob, rows: list[Any], policy: str, tick: Callable[[], None]) -> None:
    """TRL's SFTTrainer with its own chunked loss, explanations alone."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Ticking(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            tick()

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))  # noqa: S106
    arguments: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(prefix="clsgen-gpu-"),
        "per_device_train_batch_size": len(rows),
        "max_steps": job.num_warm + job.num_timed,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "bf16": False,  # the weights are bf16 themselves; no autocast on top
        "use_cpu": not torch.cuda.is_available(),
        "remove_unused_columns": False,
        "gradient_checkpointing": False,  # the layers are told already
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    SFTTrainer(
        model=backbone(job, policy),
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list([_example(row) for row in rows] * (job.num_warm + job.num_timed)),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>"),  # noqa: S106
        callbacks=[Ticking()],
    ).train()


SIDES = {"ours": ours, "plain": plain, "trl": trl}


def main() -> None:
    job_file, result_file = sys.argv[1:3]
    job = GpuJob(**json.loads(Path(job_file).read_text(encoding="utf-8")))
    Path(result_file).write_text(json.dumps(run_job(job)), encoding="utf-8")


if __name__ == "__main__":
    main()
