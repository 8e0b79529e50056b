"""Rows predicted by a finished bundle, and measured: predictions, metrics, pictures, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from clsgen_dist.bundle import Bundle, bundle_columns, load_bundle, read_task, trained_on
from clsgen_dist.chat.address import check_endpoint
from clsgen_dist.config.assess import assess_config
from clsgen_dist.config.evaluate import Evaluate
from clsgen_dist.config.predict import Predict
from clsgen_dist.config.sections import Run
from clsgen_dist.data.store import stored_rows
from clsgen_dist.data.unseen import read_unseen
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import ConfigError
from clsgen_dist.evaluate.evaluation import evaluate
from clsgen_dist.evaluate.general_text import general_passages
from clsgen_dist.evaluate.judge import Judge
from clsgen_dist.evaluate.plots import write_plots
from clsgen_dist.evaluate.reading import Reading, Unavailable, read_verdicts, read_words
from clsgen_dist.evaluate.report import write_report
from clsgen_dist.evaluate.text_reader import fit_text_reader
from clsgen_dist.integrity import write_json
from clsgen_dist.predict.files import write_predictions
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.predict.probing import score_language
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import EvaluateRequest, LanguageScores, Prediction, Row, group_name
from clsgen_dist.sealed import read_decision, read_manifest


class AssessSettings(Protocol):
    """The sections of a configuration that are read here."""

    @property
    def run(self) -> Run: ...
    @property
    def predict(self) -> Predict: ...
    @property
    def evaluate(self) -> Evaluate: ...


def evaluate_bundle(request: EvaluateRequest, listener: Listener) -> dict[str, Any] | None:
    """Predicts the rows of a file with a bundle and measures them; returns the metrics.

    Returns:
        The content of metrics.json; None where the rows are not labelled enough to measure, and only
        predictions.jsonl was written.

    Raises:
        ConfigError: a setting that cannot be.
        BundleError: the bundle is none, altered, or its base model is missing.
        DataError: rows that cannot be read, that the model was trained on, or of another task. Nothing is written then.
    """
    manifest = read_manifest(request.bundle)
    task = read_task(request.bundle)
    config = assess_config(task, manifest["run"], manifest["predict"], request.settings)
    if config.predict.num_workers is not None:
        raise ConfigError("--predict.num_workers: an evaluation is one process; actors are for launchers/predict.py")
    columns = bundle_columns(manifest, request.columns, with_explanations=True)
    if request.explanations is not None and not request.explanations.is_file():
        raise ConfigError(f"--explanations {request.explanations}: no such file")
    if "judge" in config.evaluate.readers:
        check_endpoint(config.evaluate.judge)
    reason = "what it says of them flatters it; measure on rows that it has never seen"
    rows = read_unseen(request.source, columns, task.labels, trained_on(request.bundle), reason, need_labels=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundle = load_bundle(request.bundle, device=device, base=request.base)
    facts = {"Run": manifest["run"], "Question": task.question, "Backbone": manifest["base"]["name_or_path"]}
    facts |= {"Rows": f"{len(rows):,} from {request.source}"}
    return assess(
        bundle, rows, request.output, config, Ranks(0, 1, device), listener, taught=request.explanations, facts=facts
    )


def assess(
    bundle: Bundle,
    rows: Sequence[Row],
    place: Path,
    config: AssessSettings,
    ranks: Ranks,
    listener: Listener,
    *,
    taught: Path | None,
    facts: Mapping[str, str],
) -> dict[str, Any] | None:
    """Predicts rows, each rank its share, and has rank 0 measure them and write it all down.

    Args:
        bundle: who predicts.
        rows: what is predicted.
        place: folder for metrics.json, predictions.jsonl, report.html and pictures.
        config: settings of predict, evaluate and run.
        ranks, listener: who shares the work, and who hears of it.
        taught: Parquet file of the explained rows that the model was trained on; None where nobody has them.
        facts: what there is to know of data and model, for the report.

    Returns:
        The content of metrics.json on rank 0; None on the others, and where rows are not labelled enough to measure.
    """
    most = config.evaluate.max_explained_rows
    num_explained = 0 if config.predict.explain == "none" else len(rows) if most is None else min(most, len(rows))
    predictions = predict_rows(
        bundle, rows, config.predict, ranks, listener, stage="evaluate", num_explained=num_explained, free=True
    )
    reason = cannot_measure(rows)
    asks_language = not reason and config.evaluate.max_language_rows > 0
    scores = _score(bundle, rows, predictions, config, ranks, listener) if asks_language else None
    if not ranks.leads:
        return None
    _clear(place)
    write_predictions(place / "predictions.jsonl", predictions)
    if reason:
        listener(Event("evaluate", len(rows), len(rows), f"predicted only: {reason}"))
        return None
    metrics = evaluate(
        predictions,
        rows,
        labels=bundle.task.labels,
        threshold=bundle.threshold,
        calibrated=not bundle.calibrator.is_identity,
        read=_read(bundle, predictions, config, taught, place.with_name("judge.sqlite"), listener),
        scores=scores,
        costs=config.evaluate.costs,
        sure_probability=config.evaluate.sure_probability,
        num_bootstrap=config.evaluate.num_bootstrap,
        num_bins=config.evaluate.num_bins,
        seed=config.run.seed,
    )
    write_json(place / "metrics.json", metrics)
    pictures = write_plots(
        place,
        predictions,
        rows,
        labels=bundle.task.labels,
        threshold=bundle.threshold,
        sure_probability=config.evaluate.sure_probability,
        num_bins=config.evaluate.num_bins,
    )
    found = read_decision(bundle.folder, bundle.manifest, len(bundle.task.labels)).facts
    decision = {**found, "calibrator": bundle.calibrator.to_json()}
    write_report(place / "report.html", metrics, predictions, rows, pictures, facts, decision)
    return metrics


def _score(
    bundle: Bundle,
    rows: Sequence[Row],
    predictions: Sequence[Prediction],
    config: AssessSettings,
    ranks: Ranks,
    listener: Listener,
) -> LanguageScores:
    """What the tuned model and its base say of explanations and general text, each rank its share; all ranks get it."""
    mine = slice(ranks.rank, None, ranks.world_size)
    most = config.evaluate.max_language_rows
    part = score_language(
        bundle,
        rows[:most][mine],
        predictions[:most][mine],
        general_passages()[mine],
        token_budget=config.predict.token_budget,
        device=ranks.device,
        on_progress=lambda done, total: listener(Event("language", done, total)),
    )
    return LanguageScores.merge(ranks.gather(part))


def _read(
    bundle: Bundle,
    predictions: Sequence[Prediction],
    config: AssessSettings,
    taught: Path | None,
    memory: Path,
    listener: Listener,
) -> dict[str, Reading | Unavailable]:
    """Which label each explanation argues for, by each reader that was asked for."""
    task, read = bundle.task, dict[str, Reading | Unavailable]()
    for name in config.evaluate.readers:
        if name == "verdict":
            read[name] = read_verdicts(predictions, task.labels)
        elif name == "judge":
            read[name] = read_words(Judge(config.evaluate.judge, task, memory, listener), predictions)
        elif taught is None:
            read[name] = Unavailable("the training explanations are not at hand; name them with --explanations")
        else:
            reader = fit_text_reader(
                stored_rows(taught), task, num_bootstrap=config.evaluate.num_bootstrap, seed=config.run.seed
            )
            read[name] = reader if isinstance(reader, Unavailable) else read_words(reader, predictions)
    return read


def _clear(place: Path) -> None:
    """Takes away what an earlier evaluation left, so that no number stands beside predictions that it is not of."""
    place.mkdir(parents=True, exist_ok=True)
    for path in [place / "metrics.json", place / "report.html", *place.glob("*.png")]:
        path.unlink(missing_ok=True)


def cannot_measure(rows: Sequence[Row]) -> str | None:
    """Why the metrics of rows are undefined, in words; None where they are not."""
    known = [row for row in rows if row.label is not None]
    labels = {row.label for row in known}
    groups = {group_name(row.id, row.group) for row in known}
    if not known:
        return "no row has a label"
    if len(labels) < 2 or len(groups) < 2:
        return f"labelled rows of {len(labels)} label(s) in {len(groups)} group(s); metrics need two of each"
    return None


def predict_rows(
    bundle: Bundle,
    rows: Sequence[Row],
    limits: Predict,
    ranks: Ranks,
    listener: Listener,
    *,
    stage: str,
    num_explained: int,
    free: bool,
) -> list[Prediction]:
    """Predicts rows, each rank its share; every rank gets all predictions, in the order of the rows."""
    mine = rows[ranks.rank :: ranks.world_size]
    done = 0

    def heard(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        listener(Event(stage, min(done * ranks.world_size, len(rows)), len(rows)))

    predictor = Predictor(bundle, limits.token_budget, limits.max_new_tokens, ranks.device)
    share = -(-(num_explained - ranks.rank) // ranks.world_size) if num_explained > ranks.rank else 0
    answers = predictor.predict(mine, num_explained=share, margin=limits.uncertain_margin, free=free, on_progress=heard)
    everyone = ranks.gather(answers)
    return [everyone[n % ranks.world_size][n // ranks.world_size] for n in range(len(rows))]


def flat_numbers(metrics: dict[str, Any], split: str) -> list[tuple[str, float]]:
    """Flat numbers for the tracker; intervals, lists and what is undefined are left out."""
    decisions = metrics["decisions"]
    parts = {
        "": metrics["calibrated"],
        "raw_": metrics["raw"],
        "threshold_": decisions["at_threshold"] or {},
        "selective_": decisions["selective"],
        "sure_": decisions["answer_when_sure"],
        "cost_": decisions["expected_cost"] or {},
        "explanation_": metrics["explanation"],
        "language_": metrics["language"],
        "bayes_": metrics.get("bayes", {}),
    }
    return [
        (f"{split}/{prefix}{key}", float(value))
        for prefix, numbers in parts.items()
        for key, value in numbers.items()
        if isinstance(value, int | float)
    ]
