"""Arms without a bundle: what a model says in words, and word counts under a linear model.

Both end as the trained arms do: a calibrator and a threshold fitted on the calibration rows, numbers on the test rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from clsgen_dist.calibrate.scaling import IDENTITY, MIN_LABELLED_ROWS
from clsgen_dist.calibrate.simplex import SMALLEST_FLOOR, average_prompts, default_floor, floored, invert_softmax
from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.compare.forecasts import FloatArray, Forecast, as_predictions, measure, with_base_rate
from clsgen_dist.compare.word_counts import forecast_word_counts
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.deciding import fit_decision, labelled
from clsgen_dist.errors import DataError
from clsgen_dist.integrity import write_json
from clsgen_dist.observe import open_tracker
from clsgen_dist.predict.files import write_predictions
from clsgen_dist.prepare import prepare
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import Row
from clsgen_dist.sealed import Decision
from clsgen_dist.verbalize.parsing import parse_distribution
from clsgen_dist.verbalize.stage import verbalize_run


def run_untrained(config: RunConfig, kind: str, listener: Listener) -> None:
    """Prepares the run folder, forecasts calibration and test rows, and measures.

    Args:
        config: the arm.
        kind: `zero_shot_verbalised` or `bag_of_words`.
        listener: hears of progress.

    Raises:
        ClsGenError: the rows or the model cannot be used.
    """
    folder = prepare(config, listener)
    tracker, status = open_tracker(config, folder), "FAILED"
    try:
        ways: dict[str, Callable[[RunConfig, RunFolder, Listener], tuple[Forecast, Forecast]]] = {
            "zero_shot_verbalised": _forecast_said,
            "bag_of_words": forecast_word_counts,
        }
        fit, test = ways[kind](config, folder, listener)
        metrics = _write(config, folder, fit, test, listener)
        numbers = {f"test/{name}": value for name, value in metrics["calibrated"].items() if isinstance(value, float)}
        tracker.log_metrics(numbers, step=0)
        tracker.log_artifacts(folder.evaluation("test"), "evaluation/test")
        status = "FINISHED"
    finally:
        tracker.close(status)


def _write(config: RunConfig, folder: RunFolder, fit: Forecast, test: Forecast, listener: Listener) -> dict[str, Any]:
    """Decides as a bundle would, measures, and writes predictions and then metrics."""
    decision = _decision(config, fit, listener)
    rate_K = _base_rate(fit.rows, config.num_labels)
    probability_NK = with_base_rate(test, decision.calibrator.apply, rate_K)
    raw_NK = np.where(np.isnan(test.raw_NK), rate_K, test.raw_NK)
    predicted_N = decide(probability_NK, decision.threshold)
    place = folder.evaluation("test")
    place.mkdir(parents=True, exist_ok=True)
    write_predictions(
        place / "predictions.jsonl", as_predictions(test, config.task.labels, raw_NK, probability_NK, predicted_N)
    )
    metrics = {
        "num_rows": len(test.rows),
        "num_labelled_rows": sum(row.label is not None for row in test.rows),
        "num_answered_rows": int(test.there_N.sum()),
        "labels": config.task.labels,
        "is_calibrated": not decision.calibrator.is_identity,
        "threshold": decision.threshold,
        "raw": measure(test.rows, raw_NK, decide(raw_NK, None), config),
        "calibrated": measure(test.rows, probability_NK, predicted_N, config),
        "explanation": dict.fromkeys(("kappa", "auroc_alignment", "coverage", "unparsed")),
        "language": {},
        "decision": {**decision.facts, "calibrator": decision.calibrator.to_json()},
    }
    write_json(place / "metrics.json", metrics)
    return metrics


def _decision(config: RunConfig, fit: Forecast, listener: Listener) -> Decision:
    """How to decide; as the probabilities stand where too few rows have any to fit on."""
    there_N = fit.there_N
    rows = [row for row, is_there in zip(fit.rows, there_N, strict=True) if is_there]
    known = [row.label for row in rows if row.label is not None]
    if len(known) < MIN_LABELLED_ROWS or len(set(known)) < 2:
        words = f"{len(known)} labelled rows to fit on: probabilities stay as they are"
        listener(Event("calibrate", len(fit.rows), len(fit.rows), words))
        return Decision(IDENTITY, None, {"num_rows": len(known), "warnings": [words]})
    decision, warnings = fit_decision(
        labelled(rows, fit.logits_NK[there_N].tolist()),
        config.calibrate,
        config.task.labels,
        num_bootstrap=config.evaluate.num_bootstrap,
        seed=config.run.seed,
    )
    for warning in warnings:
        listener(Event("calibrate", len(fit.rows), len(fit.rows), warning))
    return decision


def _base_rate(rows: list[Row], num_labels: int) -> FloatArray:
    """Share of each label, one row more of each, so that none is 0; shape (K,)."""
    counts_K = np.bincount([row.label for row in rows if row.label is not None], minlength=num_labels) + 1.0
    return np.asarray(counts_K / counts_K.sum(), dtype=np.float64)


def _forecast_said(config: RunConfig, folder: RunFolder, listener: Listener) -> tuple[Forecast, Forecast]:
    """What the model says, by the stage of said probabilities."""
    try:
        verbalize_run(config, listener)
    except DataError as error:
        if not (folder.verbalized / "answers.jsonl").is_file():
            raise
        # The study of methods needs answers that hold something; what was said is measured here all the same.
        listener(Event("verbalize", 1, 1, str(error)))
    return read_said(config, folder)


def read_said(config: RunConfig, folder: RunFolder) -> tuple[Forecast, Forecast]:
    """What was said of the calibration and the test rows that were asked about; NaN where nothing was understood.

    Logarithms need a floor. It is that of the calibration rows, for both splits. Paraphrases are averaged.
    """
    lines = (folder.verbalized / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    answers = {(line["split"], line["id"]): line["answers"] for line in map(json.loads, lines)}
    floor = config.verbalize.floor
    found = []
    for split in ("calibration", "test"):
        rows = [row for row in stored_rows(folder.rows(split)) if (split, row.id) in answers]
        said_PNK = np.array([_said(config, answers[split, row.id]) for row in rows]).transpose(1, 0, 2)
        there_PN = ~np.isnan(said_PNK).any(axis=2)
        if floor is None:
            floor = default_floor(said_PNK[there_PN]) if there_PN.any() else SMALLEST_FLOOR
        raw_NK = average_prompts(said_PNK, floor=floor)
        found.append(Forecast(rows, raw_NK, _logits(raw_NK, floor, config)))
    return found[0], found[1]


def _said(config: RunConfig, answers: list[str]) -> list[list[float]]:
    """The distribution in each answer to a row; NaN where there is none."""
    nothing = [float("nan")] * config.num_labels
    tolerance = config.verbalize.sum_tolerance
    read = [parse_distribution(answer, config.task.labels, sum_tolerance=tolerance) for answer in answers]
    return [list(said.probabilities) if said.probabilities is not None else nothing for said in read]


def _logits(raw_NK: FloatArray, floor: float, config: RunConfig) -> FloatArray:
    logits_NK = np.full_like(raw_NK, np.nan)
    there_N = ~np.isnan(raw_NK).any(axis=1)
    if there_N.any():
        own_NK = floored(raw_NK[there_N], floor)
        logits_NK[there_N] = invert_softmax(own_NK, floor=floor, constant=config.verbalize.constant)
    return logits_NK
