"""What a trained bundle goes through before people use it: calibration, and the report on the test split."""

from __future__ import annotations

import json

from clsgen_dist.assess import assess, flat_numbers, predict_rows
from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.deciding import fit_decision, labelled
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.predict.predictor import recalibrated
from clsgen_dist.progress import Event, Listener
from clsgen_dist.sealed import RECALIBRATED, Decision, read_decision, set_decision
from clsgen_dist.tracking.mlflow import MlflowTracker


def calibrate(config: RunConfig, folder: RunFolder, bundle: Bundle, ranks: Ranks, listener: Listener) -> Bundle:
    """Fits calibrator and operating threshold on the calibration split and writes them into the bundle.

    A bundle that was calibrated again since keeps what it was given then: the same command goes on, it undoes nothing.
    """
    given = read_decision(folder.bundle, bundle.manifest, len(bundle.task.labels))
    if given.facts.get("fitted_by") == RECALIBRATED:
        listener(Event("calibrate", 1, 1, "kept as launchers/calibrate.py left it"))
        return recalibrated(bundle, given.calibrator, given.threshold)
    rows = list(stored_rows(folder.rows("calibration")))
    predictions = predict_rows(
        bundle, rows, config.predict, ranks, listener, stage="calibrate", num_explained=0, free=False
    )
    decision = Decision(IDENTITY, None)
    if ranks.leads:
        decision, warnings = fit_decision(
            labelled(rows, [prediction.logits for prediction in predictions]),
            config.calibrate,
            config.task.labels,
            num_bootstrap=config.evaluate.num_bootstrap,
            seed=config.run.seed,
        )
        for warning in warnings:
            listener(Event("calibrate", len(rows), len(rows), warning))
        set_decision(folder.bundle, decision)
    decision = ranks.from_leader(decision)
    return recalibrated(bundle, decision.calibrator, decision.threshold)


def evaluate_split(
    config: RunConfig,
    folder: RunFolder,
    bundle: Bundle,
    ranks: Ranks,
    tracker: MlflowTracker | None,
    listener: Listener,
) -> None:
    """Predicts the test split and writes metrics, predictions, pictures and report."""
    split = "test"
    metrics = assess(
        bundle,
        list(stored_rows(folder.rows(split))),
        folder.evaluation(split),
        config,
        ranks,
        listener,
        taught=folder.rows("train"),
        facts=_facts(config, folder),
    )
    if metrics is not None and tracker:
        tracker.log_metrics(dict(flat_numbers(metrics, split)), step=0)
        tracker.log_artifacts(folder.evaluation(split), f"evaluation/{split}")
    ranks.barrier()


def _facts(config: RunConfig, folder: RunFolder) -> dict[str, str]:
    splits = json.loads(folder.manifest.read_text(encoding="utf-8"))["splits"]
    lora = config.model.lora
    return {
        "Run": config.run.name,
        "Question": config.task.question,
        "Backbone": str(config.model.name_or_path or "small Llama, made for this run"),
        "Fine-tuning": f"LoRA, rank {lora.rank}" if lora else "all weights",
        "Explanations by": config.explain.teacher,
        **{f"Rows, {name}": f"{facts['num_rows']:,} from {facts['source']}" for name, facts in splits.items()},
        "Best step": _best_step(folder),
    }


def _best_step(folder: RunFolder) -> str:
    state = folder.best / "state.json"
    return str(json.loads(state.read_text(encoding="utf-8"))["best_step"]) if state.exists() else "not trained"
