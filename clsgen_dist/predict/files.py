"""Predictions of a file of rows, and predictions as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from clsgen_dist.bundle import bundle_columns, load_bundle, read_task
from clsgen_dist.config.assess import assess_config
from clsgen_dist.data.rows import check_ids, read_rows
from clsgen_dist.errors import ConfigError
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import Prediction, PredictRequest
from clsgen_dist.sealed import read_manifest


def predict_file(request: PredictRequest, listener: Listener) -> int:
    """Predicts the rows of a file with a bundle; returns how many. The output appears whole or not at all.

    Raises:
        ConfigError, BundleError, DataError: a setting, the bundle or the rows cannot be used; nothing is written.
    """
    if not request.output.absolute().parent.is_dir():
        raise ConfigError(f"--output {request.output}: its folder does not exist")
    manifest = read_manifest(request.bundle)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = read_task(request.bundle)
    limits = assess_config(task, manifest["run"], manifest["predict"], request.settings).predict
    columns = bundle_columns(manifest, request.columns)
    rows = [row for _, row in read_rows(request.source, columns, task.labels, need_labels=False)]
    check_ids(rows, request.source)
    bundle = load_bundle(request.bundle, device=device, base=request.base)
    predictor = Predictor(bundle, limits.token_budget, limits.max_new_tokens, device)
    done = 0

    def heard(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        listener(Event("predict", done, len(rows)))

    predictions = predictor.predict(
        rows,
        num_explained=0 if limits.explain == "none" else None,
        margin=limits.uncertain_margin,
        on_progress=heard,
    )
    write_predictions(request.output, predictions)
    return len(predictions)


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes predictions as JSON lines, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for p in predictions:
            line = {name: getattr(p, name) for name in Prediction.__dataclass_fields__}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(temporary, path)
