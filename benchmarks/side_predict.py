"""The sides of `side.py` that predict: our predictor, and the pipeline of transformers."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.job import Clock, Job

#: Batch sizes of the pipeline that are tried; without padding, the first one, it is often the fastest on CPUs.
BATCH_SIZES = (1, 8, 32)


def predict_ours(job: Job, clock: Clock) -> None:
    """Probabilities by the predictor, of a bundle with the weights that the other side has, without an adapter."""
    import tempfile

    import numpy as np

    from clsgen_dist.bundle import load_bundle, write_bundle
    from clsgen_dist.config.run import build_config
    from clsgen_dist.config.source import ConfigSource
    from clsgen_dist.model.build import DTYPES, build_model
    from clsgen_dist.predict.predictor import Predictor
    from clsgen_dist.records import Row

    tree = {
        "run": {"name": "bench"},
        "task": job.options["task"],
        "data": {"train": "none.jsonl", "max_prompt_tokens": 1024},
        "model": {"name_or_path": job.backbone, "lora": None},
        "train": {
            "precision": job.precision,
            "deepspeed": str(Path(__file__).resolve().parents[1] / "ds_configs" / "zero3_bf16.json"),
        },
    }
    config = build_config(ConfigSource(tree=tree, places={(): "bench"}))
    model = build_model(config.model, job.backbone, 2, dtype=DTYPES[job.precision], seed=0)
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    rows = [Row(id=str(n), text=row["text"], label=None, explanation=None) for n, row in enumerate(job.rows)]
    with tempfile.TemporaryDirectory() as scratch:
        write_bundle(Path(scratch) / "bundle", config, job.backbone, weights, np.zeros(0, dtype=np.uint64))
        bundle = load_bundle(Path(scratch) / "bundle", device=torch.device("cpu"))
        predictor = Predictor(bundle, job.options["token_budget"], 1, torch.device("cpu"))
        for _ in range(job.num_warm + job.num_timed):
            clock.start()
            predictor.predict(rows, num_explained=0)
            clock.stop()


def predict_pipeline(job: Job, clock: Clock) -> None:
    """pipeline("text-classification") on a sequence classifier: the same prompts, the fastest of some batch sizes."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[job.precision]
    tokenizer = AutoTokenizer.from_pretrained(job.backbone)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForSequenceClassification.from_pretrained(job.backbone, num_labels=2, dtype=dtype)
    model.config.pad_token_id = tokenizer.pad_token_id
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = [row["prompt_text"] for row in job.rows]
    classify(texts[:2], top_k=None)  # what is made at the first call counts for none of them
    tried = {}
    for size in BATCH_SIZES:
        started = time.perf_counter()
        classify(texts, top_k=None, batch_size=size)
        tried[size] = time.perf_counter() - started
    best = min(tried, key=lambda size: tried[size])
    for _ in range(job.num_warm + job.num_timed):
        clock.start()
        classify(texts, top_k=None, batch_size=best)
        clock.stop()
