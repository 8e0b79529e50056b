"""The section `train` of a run configuration: steps, batches, learning rates, checkpoints, workers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clsgen_dist.config.sections import Count, Fraction, Section, Weight


class Train(Section):
    epochs: Count = Field(1, description="passes over the training rows")
    max_steps: Count | None = Field(None, description="optimizer steps at most; null: all of epochs")
    global_batch: Count = Field(32, description="rows an optimizer step, over all workers")
    token_budget: Count = Field(4096, description="tokens a micro-batch on one worker, at most")
    dry_batch: bool | Literal["auto"] = Field(
        "auto",
        description="run the longest micro-batch before the first step, to find out whether it fits into memory; auto: "
        "where the estimate is more than a third of what is free, and with model.attention eager",
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-4, description="peak, backbone or its adapter")
    head_learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="peak, classification head")
    weight_decay: Weight = Field(0.0, description="decoupled weight decay of matrices; vectors have none")
    adam_betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.999], description="AdamW moments", min_length=2, max_length=2
    )
    adam_eps: Annotated[float, Field(gt=0)] = Field(1e-8, description="AdamW epsilon")
    warmup_fraction: Fraction = Field(0.05, description="share of the steps with a rising learning rate")
    final_lr_fraction: Fraction = Field(0.1, description="learning rate at the end of the cosine, share of the peak")
    head_warmup_steps: int = Field(
        0, ge=0, description="steps in which only the head is trained, before the joint phase"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="what a step does whose loss or gradient is no finite number; skip leaves its update out"
    )
    max_skipped_steps: Count = Field(10, description="optimizer steps that are skipped at most, over the whole run")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="global gradient norm to clip at")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="number format of weights and activations")
    num_workers: Count = Field(1, description="ZeRO workers under Ray, one a GPU; the deepspeed launcher sets its own")
    checkpoint_steps: Count | None = Field(
        200, description="optimizer steps between checkpoints; null: none but the last"
    )
    keep_checkpoints: Count = Field(2, description="newest checkpoints to keep")
    eval_steps: Count | None = Field(
        None, description="optimizer steps between looks at validation; null: ten in a run"
    )
    max_validation_rows: Count = Field(1000, description="validation rows to look at while training")
    deepspeed: str = Field("ds_configs/zero3_bf16.json", description="file of ZeRO settings")
    cpu_threads: Count | None = Field(None, description="CPU threads a worker; null: the node's cores / its workers")
    hang_seconds: Count = Field(300, description="a worker without a sign of life for so long counts as hanging")
    stall_seconds: Count = Field(
        300, description="in a step, so long without a further micro-batch is told, with who is behind"
    )
    stop_grace_seconds: Count = Field(
        120, description="longest time from SIGTERM or Ctrl-C to the end of the step and its checkpoint; then it ends"
    )
    collective_timeout_seconds: Count = Field(1800, description="longest wait for another worker")
