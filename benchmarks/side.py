"""One side of a benchmark, in a process of its own: ours, TRL's SFTTrainer, a plain HF Trainer, or one that predicts.

    python benchmarks/side.py SIDE JOB.json RESULT.json

Every side gets the same rows as token ids, in the same order, the same model, LoRA and number format. It takes
`num_warm` steps that do not count and `num_timed` that do. Tokens are those of prompts and completions, without
padding, counted by whoever reads the result.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import clsgen_dist.accelerator  # noqa: F401 - before transformers, which looks for GPUs
from benchmarks.job import LEARNING_RATE, LORA, ROWS_A_STEP, Clock, Job
from benchmarks.side_predict import predict_ours, predict_pipeline


def train_ours(job: Job, clock: Clock) -> None:
    """Worker's own parts, in its order: plan, packed micro-batches, both losses, ZeRO engine."""
    import tempfile

    from benchmarks.training_techniques import without
    from clsgen_dist.config.sections import Lora, Model
    from clsgen_dist.config.zero import read_zero
    from clsgen_dist.data.tokens import TokenizedSplit, write_tokenized
    from clsgen_dist.engine.deepspeed import Engine, partitioned_loading, start_distributed
    from clsgen_dist.engine.ds_config import full_ds_config
    from clsgen_dist.model.build import DTYPES, build_model, parameter_groups
    from clsgen_dist.objective import Weights
    from clsgen_dist.train.step import Stepper

    ranks = start_distributed(600)
    ds_config = full_ds_config(
        read_zero(job.options["zero"]), precision=job.precision, max_grad_norm=1.0, world_size=ranks.world_size
    )
    lora = Lora(rank=LORA["rank"], alpha=LORA["alpha"], dropout=0.0, target_modules=LORA["targets"])
    settings = Model(name_or_path=job.backbone, lora=lora, attention=job.options.get("attention", "sdpa"))
    with partitioned_loading(ds_config):
        model = build_model(settings, job.backbone, 2, dtype=DTYPES[job.precision], seed=0)
    groups = parameter_groups(model, learning_rate=LEARNING_RATE, head_learning_rate=1e-3, weight_decay=0.0)
    engine = Engine(model, groups, ds_config, betas=(0.9, 0.999), eps=1e-8)
    with tempfile.TemporaryDirectory() as scratch, without(job.options.get("without")):
        write_tokenized(Path(scratch) / "rows.arrow", [_tokenized(job.rows)])
        stepper = Stepper(
            engine,
            ranks,
            TokenizedSplit(Path(scratch) / "rows.arrow"),
            Weights(1.0, 1.0, 0.0, 0.0, (1.0, 1.0)),
            seed=0,
            global_batch=ROWS_A_STEP,
            token_budget=job.options["token_budget"],
            one_line=False,
            factors=lambda step: {"backbone": 1.0, "head": 1.0},
            name_rows=lambda rows: [],
        )
        clock.start()
        for step in range(job.num_warm + job.num_timed):
            clock.losses.append(stepper.run(step).loss)
            clock.stop()


def _tokenized(rows: list[dict[str, Any]]) -> list[Any]:
    """Rows laid so that step s of seed 0 finds rows 16 s to 16 s + 15, as the other sides do."""
    import numpy as np

    from clsgen_dist.data.plan import rows_of_step
    from clsgen_dist.data.tokens import TokenizedRow

    laid: list[Any] = [None] * len(rows)
    order = [int(n) for s in range(len(rows) // ROWS_A_STEP) for n in rows_of_step(0, s, len(rows), ROWS_A_STEP)]
    for place, row in zip(order, rows, strict=True):
        laid[place] = TokenizedRow(np.array(row["prompt"]), np.array(row["completion"]), row["label"], 0)
    return laid


def _clocked(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Clocked(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.stop()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    return Clocked()


def _arguments(job: Job) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": "/tmp/bench-trainer",  # noqa: S108 - nothing is written there
        "per_device_train_batch_size": job.options["rows_a_pass"],
        "gradient_accumulation_steps": ROWS_A_STEP // job.options["rows_a_pass"],
        "max_steps": job.num_warm + job.num_timed,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": False,  # the weights are bf16 themselves, as ours are; no autocast on top
        "use_cpu": not torch.cuda.is_available(),
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "train_sampling_strategy": "sequential",
    }


def _peft_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        lora_dropout=0.0,
        target_modules=LORA["targets"],
        task_type="CAUSAL_LM",
    )


def _backbone(job: Job) -> Any:
    from transformers import AutoModelForCausalLM

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[job.precision]
    return AutoModelForCausalLM.from_pretrained(job.backbone, dtype=dtype)


def train_trl(job: Job, clock: Clock) -> None:
    """TRL's SFTTrainer: explanations only, its own chunked loss, padded or padding-free as the job says."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"input_ids": row["prompt"] + row["completion"], "labels": [-100] * len(row["prompt"]) + row["completion"]}
        for row in job.rows
    ]
    arguments = _arguments(job) | {
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "padding_free": job.options["layout"] == "padding-free",
    }
    trainer = SFTTrainer(
        model=_backbone(job),
        args=SFTConfig(**arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job.backbone),
        peft_config=_peft_config(),
        callbacks=[_clocked(clock)],
    )
    trainer.train()


def train_naive(job: Job, clock: Clock) -> None:
    """The obvious way to write both losses: padded rows, all logits, one weighted sum in `compute_loss`."""
    from peft import get_peft_model
    from torch.nn import functional
    from torch.nn.utils.rnn import pad_sequence
    from transformers import Trainer, TrainingArguments

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = get_peft_model(_backbone(job), _peft_config(), autocast_adapter_dtype=False)
            width = self.backbone.config.get_text_config().hidden_size
            self.head = torch.nn.Linear(width, 2, dtype=next(self.backbone.parameters()).dtype)

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any, cls_index: Any, cls_labels: Any) -> Any:
            output = self.backbone(
                input_ids=input_ids, attention_mask=attention_mask, labels=labels, output_hidden_states=True
            )
            hidden = output.hidden_states[-1][torch.arange(len(cls_index)), cls_index]
            return {"loss": output.loss + functional.cross_entropy(self.head(hidden).float(), cls_labels)}

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["prompt"] + row["completion"]) for row in rows]
        labels = [torch.tensor([-100] * len(row["prompt"]) + row["completion"]) for row in rows]
        return {
            "input_ids": pad_sequence(ids, batch_first=True),
            "attention_mask": pad_sequence([torch.ones_like(one) for one in ids], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            "cls_index": torch.tensor([len(row["prompt"]) - 1 for row in rows]),
            "cls_labels": torch.tensor([row["label"] for row in rows]),
        }

    trainer = Trainer(
        model=Both(),
        args=TrainingArguments(**_arguments(job)),
        train_dataset=job.rows,
        data_collator=collate,
        callbacks=[_clocked(clock)],
    )
    trainer.train()


SIDES = {
    "ours": train_ours,
    "trl": train_trl,
    "naive": train_naive,
    "predict_ours": predict_ours,
    "predict_pipeline": predict_pipeline,
}


def peak_bytes() -> int:
    """Most memory of this process so far: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    side, job_file, result_file = sys.argv[1:4]
    job = Job(**json.loads(Path(job_file).read_text(encoding="utf-8")))
    clock = Clock(job.num_warm)
    SIDES[side](job, clock)
    result = {"wall": clock.wall, "cpu": clock.cpu, "peak_bytes": peak_bytes(), "losses": clock.losses}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
