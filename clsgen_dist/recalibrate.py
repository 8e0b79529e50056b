"""Another calibrator and threshold for a finished bundle, from rows that its model has not learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from clsgen_dist.bundle import bundle_columns, load_bundle, read_task, trained_on
from clsgen_dist.calibrate.scaling import IDENTITY, MIN_LABELLED_ROWS
from clsgen_dist.calibrate.thresholds import decide
from clsgen_dist.config.answers import AnswersConfig, decision_config
from clsgen_dist.data.splits import text_hash
from clsgen_dist.data.unseen import read_unseen
from clsgen_dist.deciding import Labelled, fit_decision, labelled
from clsgen_dist.errors import DataError
from clsgen_dist.evaluate.calibration_metrics import null_ece
from clsgen_dist.evaluate.decisions import estimate_at_threshold
from clsgen_dist.evaluate.intervals import bootstrap_intervals
from clsgen_dist.evaluate.metrics import probability_metrics
from clsgen_dist.evaluate.subgroups import Subgroup, subgroup_calibration
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import UNLABELLED, CalibrateRequest, Row, group_name
from clsgen_dist.sealed import RECALIBRATED, Decision, read_manifest, set_decision

_SURER = "it is surer of them than of any other, and a calibrator would make it too sure everywhere"


@dataclass(frozen=True)
class Recalibrated:
    """What was found.

    Attributes:
        decision: what stands in the bundle now.
        warnings: in plain English.
        metrics: on the test rows: raw, calibrated, at_threshold, and subgroups by column; empty where there were none.
    """

    decision: Decision
    warnings: list[str]
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def recalibrate(request: CalibrateRequest, listener: Listener) -> Recalibrated:
    """Fits calibrator and threshold on labelled rows and writes them into the bundle, in place of those that it has.

    Raises:
        ConfigError: a setting that cannot be.
        BundleError: the bundle is none, altered, or its base model is missing.
        DataError: rows that cannot be read, that the model was trained on, of another task, fewer than 20, or of one
            label; rows to fit on among the rows to measure on. Nothing is written then.
    """
    manifest = read_manifest(request.bundle)
    task = read_task(request.bundle)
    config = decision_config(task, manifest["run"], request.settings)
    columns = bundle_columns(manifest, request.columns)
    seen = trained_on(request.bundle)
    rows = read_unseen(request.source, columns, task.labels, seen, _SURER)
    if config.calibrate.method != "none":
        _check_enough(request.source, rows)
    test = [] if request.test is None else read_unseen(request.test, columns, task.labels, seen, _SURER)
    _check_test(request, rows, test, allow_shared_groups=columns.allow_shared_groups)
    shared = {text_hash(row.text) for row in rows} & {text_hash(row.text) for row in test}
    if shared:
        raise DataError(
            f"{request.test}: {len(shared)} texts also stand in {request.source}, expected none: what is fitted on "
            "rows says nothing about the same rows"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundle = load_bundle(request.bundle, device=device, base=request.base, with_decision=False)
    limits = manifest["predict"]
    predictor = Predictor(bundle, limits["token_budget"], limits["max_new_tokens"], device)

    def logits_of(some: Sequence[Row], stage: str) -> Labelled:
        done = 0

        def heard(num_rows: int) -> None:
            nonlocal done
            done += num_rows
            listener(Event(stage, done, len(some)))

        return labelled(some, [p.logits for p in predictor.predict(some, num_explained=0, on_progress=heard)])

    decision, warnings = fit_decision(
        logits_of(rows, "calibrate"),
        config.calibrate,
        task.labels,
        num_bootstrap=config.evaluate.num_bootstrap,
        seed=config.run.seed,
    )
    metrics: dict[str, dict[str, Any]] = {}
    if test:
        measured = logits_of(test, "test")
        metrics = _measure(measured, decision, config)
        metrics["subgroups"] = _by_subgroup(test, measured, decision, config)
    decision = replace(decision, facts={**decision.facts, "fitted_by": RECALIBRATED})
    set_decision(request.bundle, decision)
    return Recalibrated(decision, warnings, metrics)


def _check_enough(source: str, rows: Sequence[Row]) -> None:
    """Refuses, before a model is loaded, what no calibrator could be fitted on."""
    labels = [row.label for row in rows if row.label is not None]
    if len(labels) < MIN_LABELLED_ROWS or len(set(labels)) < 2:
        raise DataError(
            f"{source}: {len(labels)} labelled rows of {len(set(labels))} label(s), expected {MIN_LABELLED_ROWS} or "
            "more of at least two labels"
        )


def _check_test(
    request: CalibrateRequest, rows: Sequence[Row], test: Sequence[Row], *, allow_shared_groups: bool
) -> None:
    """Refuses, before a model is loaded, rows to measure on that could not be measured, or are no strangers."""
    if not test:
        return
    labels = {row.label for row in test if row.label is not None}
    groups = {group_name(row.id, row.group) for row in test if row.label is not None}
    if len(labels) < 2 or len(groups) < 2:
        raise DataError(
            f"{request.test}: labelled rows of {len(labels)} label(s) and {len(groups)} group(s), expected at least "
            "two of each"
        )
    shared = {row.group for row in rows if row.group is not None} & {row.group for row in test}
    if shared and not allow_shared_groups:
        raise DataError(
            f"{request.test}: {len(shared)} groups also stand in {request.source}, expected none: rows of one group "
            "are alike, and what is fitted on some flatters the others (data.allow_shared_groups lets it be)"
        )


def _by_subgroup(
    rows: Sequence[Row], measured: Labelled, decision: Decision, config: AnswersConfig
) -> dict[str, list[Subgroup]]:
    """Calibration on each value of each of `data.subgroup_columns`."""
    known_N = measured.labels_N != UNLABELLED
    p_NK = decision.calibrator.apply(measured.logits_NK[known_N])
    known = [row for row, is_known in zip(rows, known_N, strict=True) if is_known]
    return {
        column: subgroup_calibration(
            p_NK,
            measured.labels_N[known_N],
            [dict(row.subgroups)[column] for row in known],
            measured.groups_N[known_N],
            num_bins=config.evaluate.num_bins,
            num_bootstrap=config.evaluate.num_bootstrap,
            seed=config.run.seed,
        )
        for column, _ in known[0].subgroups
    }


def _measure(rows: Labelled, decision: Decision, config: AnswersConfig) -> dict[str, dict[str, Any]]:
    known_N = rows.labels_N != UNLABELLED
    labels_N = rows.labels_N[known_N]
    found: dict[str, dict[str, Any]] = {}
    for name, calibrator, threshold in (
        ("raw", IDENTITY, None),
        ("calibrated", decision.calibrator, decision.threshold),
    ):
        p_NK = calibrator.apply(rows.logits_NK[known_N])
        predicted_N = decide(p_NK, threshold)
        num_bins, num_bootstrap, seed = config.evaluate.num_bins, config.evaluate.num_bootstrap, config.run.seed
        found[name] = {
            **probability_metrics(p_NK, labels_N, predicted_N, num_bins=num_bins),
            **null_ece(p_NK, num_bins=num_bins, seed=seed),
            **bootstrap_intervals(
                p_NK,
                labels_N,
                predicted_N,
                rows.groups_N[known_N],
                num_bootstrap=num_bootstrap,
                num_bins=num_bins,
                seed=seed,
            ),
        }
    if decision.threshold is not None:
        found["at_threshold"] = estimate_at_threshold(
            decision.calibrator.apply(rows.logits_NK[known_N])[:, 1],
            labels_N == 1,
            rows.groups_N[known_N],
            decision.threshold,
            num_bootstrap=config.evaluate.num_bootstrap,
            seed=config.run.seed,
        )
    return found
