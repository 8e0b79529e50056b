"""What a finished run prints: a table, and where things are."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.records import EvaluateRequest
from clsgen_dist.sealed import Decision

_COLUMNS = ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece")


def summary(config: RunConfig, split: str = "test") -> str:
    """The table of an evaluation and three lines: run folder, bundle, MLflow UI."""
    folder = RunFolder(config.folder)
    metrics = json.loads((folder.evaluation(split) / "metrics.json").read_text(encoding="utf-8"))
    uri = json.loads(folder.tracking.read_text(encoding="utf-8"))["uri"]
    ui = uri if uri.startswith("http") else f"{_mlflow_program()} ui --backend-store-uri {uri}"
    return "\n".join(
        [
            "",
            *_table(metrics, split),
            "",
            f"run folder: {folder.path}",
            f"bundle:     {folder.bundle}",
            f"MLflow UI:  {ui}",
        ]
    )


def evaluated_summary(request: EvaluateRequest, metrics: dict[str, Any] | None) -> str:
    """The table of an evaluation of a bundle, and where it is."""
    if metrics is None:
        return (
            f"\npredicted only: the rows of {request.source} are not labelled enough to measure (metrics need labelled "
            f"rows of two labels, in two groups)\npredictions: {request.output / 'predictions.jsonl'}"
        )
    lines = ["", *_table(metrics, Path(request.source).stem), ""]
    return "\n".join(
        [*lines, f"metrics: {request.output / 'metrics.json'}", f"report:  {request.output / 'report.html'}"]
    )


def explained_summary(folder: RunFolder) -> str:
    """The kept share of every class of an explained set, and where the set and its report are."""
    manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
    lines = ["", f"{'split':<12}{'label':<22}{'rows':>10}{'kept':>10}{'rescued':>10}{'share':>9}"]
    for split, classes in manifest["classes"].items():
        for counts in classes:
            rows, kept = counts["num_rows_in"], counts["num_kept_first"] + counts["num_rescued"]
            label = "no label" if counts["label"] is None else counts["label"]
            share = f"{100 * kept / rows:.1f} %" if rows else "n/a"
            lines.append(f"{split:<12}{label[:21]:<22}{rows:>10,}{kept:>10,}{counts['num_rescued']:>10,}{share:>9}")
    usage = manifest["usage"]
    if usage["num_requests"]:
        cost = "" if usage["cost"] is None else f", cost {usage['cost']:,.4f}"
        tokens = usage["prompt_tokens"] + usage["completion_tokens"]
        lines.append(f"{usage['num_requests']:,} answers, {tokens:,} tokens{cost}")
    return "\n".join(
        [
            *lines,
            "",
            f"explained set: {folder.explained}",
            f"report:        {folder.explained / 'explain_report.html'}",
        ]
    )


def calibrated_summary(
    bundle: Path, decision: Decision, warnings: list[str], metrics: Mapping[str, Mapping[str, Any]]
) -> str:
    """What a bundle was given: candidates, calibrator, threshold; and what that does on test rows, if any."""
    facts, calibrator = decision.facts, decision.calibrator
    lines = [""]
    if facts["candidates"]:
        lines += [f"{'candidate':<14}{'parameters':>12}{'held-out NLL':>14}{'std. error':>12}{'weight':>8}"]
        lines += [
            f"{c['method']:<14}{c['num_parameters']:>12}{c['mean_nll']:>14.4f}{c['standard_error']:>12.4f}{c['weight']:>8.2f}"
            for c in facts["candidates"]
        ]
        lines.append("")
    numbers = " ".join(
        f"{name} {' '.join(f'{value:.4f}' for value in values)}"
        for name, values in calibrator.parameters.items()
        if len(values) <= 8
    )
    fitted = f"{calibrator.method} {numbers}"
    if calibrator.method == "none" and facts["candidates"]:
        fitted = "none, no candidate does better than the logits as they are"
    elif calibrator.method == "average":
        fitted = "average of the candidates, by their weights"
    lines.append(f"calibrator: {fitted.rstrip()} ({facts['num_rows']:,} rows)")
    if "prior" in facts:
        shares = ", ".join(f"{name} {share:g}" for name, share in facts["prior"].items())
        lines.append(f"prior:      shifted to {shares}")
    if decision.threshold is not None:
        span = facts.get("threshold_ci")
        between = "" if span is None else f", 95 % interval [{span[0]:.4f}, {span[1]:.4f}]"
        value = "" if facts["threshold_value"] is None else f" {facts['threshold_value']:g}"
        lines.append(f"threshold:  {decision.threshold:.4f} ({facts['threshold_rule']}{value}){between}")
    lines += [f"warning:    {warning}" for warning in warnings]
    if metrics:
        lines += ["", "test".ljust(14) + "".join(name.rjust(10) for name in (*_COLUMNS, "ece_null"))]
        for name in ("raw", "calibrated"):
            numbers = "".join(f"{metrics[name][column]:.4f}".rjust(10) for column in (*_COLUMNS, "ece_null"))
            lines.append(name.ljust(14) + numbers)
        lines.append(
            "raw decides by the larger probability, calibrated at the threshold; ece_null: ECE of a perfect model"
        )
        if "at_threshold" in metrics:
            reached = metrics["at_threshold"]
            for name in ("precision", "recall", "f1", "share_flagged"):
                lines.append(f"{name.replace('_', ' '):<14}" + _with_interval(reached[name], reached[f"{name}_ci"]))
        for column, parts in metrics["subgroups"].items():
            lines += ["", f"{column[:22]:<24}{'rows':>8}{'mean p':>9}{'share':>9}{'ece':>9}{'perfect':>9}{'auroc':>9}"]
            for part in parts:
                auroc = "" if part.auroc is None else f"{part.auroc:.4f}"
                numbers = (
                    f"{part.mean_probability:>9.4f}{part.share_positive:>9.4f}{part.ece:>9.4f}{part.ece_null:>9.4f}"
                )
                lines.append(f"{part.name[:22]:<24}{part.num_rows:>8,}{numbers}{auroc:>9}")
        if "prior" in facts:
            lines.append(
                "Probabilities are for other shares of labels than these rows may have: compare NLL and ECE with care."
            )
    return "\n".join([*lines, "", f"bundle: {bundle}"])


def _with_interval(value: float | None, span: Sequence[float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" + ("" if span is None else f"  [{span[0]:.4f}, {span[1]:.4f}]")


def verbalized_summary(folder: Path) -> str:
    """The methods that were tried on what a model said, and where metrics and report are."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    columns = ("nll", "brier", "ece", "mce", "accuracy", "auroc")
    understood = f"{metrics['num_parsed_rows']:,} of {metrics['num_rows']:,} answers"
    lines = [
        "",
        f"understood {understood} ({100 * metrics['parse_rate']:.1f} %)"
        + "".join(f", {cause} {count:,}" for cause, count in metrics["failures"].items()),
        "",
        "method".ljust(32)
        + "rows".rjust(8)
        + "".join(name.rjust(9) for name in columns)
        + "T".rjust(8)
        + "nll all".rjust(9),
    ]
    for name in metrics["sources"]:
        own, everywhere = metrics.get(name), metrics["all_rows"][name]
        mark = "* " if name == metrics["chosen"] else "  "
        own = None if own is not None and own["nll"] is None else own
        rows = "0" if own is None else f"{own['num_rows']:,}"
        numbers = ["" if own is None else f"{own[column]:.4f}" for column in columns]
        temperature = f"{everywhere['temperature']:.3f}" if "temperature" in everywhere else ""
        cells = "".join(number.rjust(9) for number in numbers)
        lines.append(f"{mark}{name:<30}{rows:>8}{cells}{temperature:>8}{everywhere['nll']:>9.4f}")
    notes = ["nll all: with the base rate in the rows that a method has nothing for"]
    if metrics["chosen"] is not None:
        notes.insert(0, "* chosen by held-out NLL")
    if "label_mass" in metrics:
        notes.append(
            f"label_tokens: an answer opens with a label in {100 * metrics['label_mass']:.1f} % (mean of rows)"
        )
    notes += [f"warning: {warning}" for warning in metrics["warnings"]]
    notes += [f"not tried: {name}: {why}" for name, why in metrics["unavailable"].items()]
    return "\n".join([*lines, "", *notes, f"report: {folder / 'report.html'}"])


def _mlflow_program() -> str:
    """MLflow's command beside the Python that runs, which need not be on PATH."""
    program = Path(sys.executable).with_name("mlflow")
    if not program.exists():
        return "mlflow"
    return str(program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program)


def _table(metrics: dict[str, Any], split: str) -> list[str]:
    lines = [f"{split}, {metrics['num_rows']:,} rows".ljust(24) + "".join(name.rjust(10) for name in _COLUMNS)]
    for part, title in (("raw", "head, raw"), ("calibrated", "head, calibrated"), ("bayes", "generating (Bayes)")):
        if part in metrics:
            numbers = [metrics[part].get(name) for name in _COLUMNS]
            lines.append(title.ljust(24) + "".join((f"{n:.4f}" if n is not None else "").rjust(10) for n in numbers))
    own, decisions = metrics["calibrated"], metrics["decisions"]
    lines.append(f"perfectly calibrated    ECE {own['ece_null']:.4f} on as many rows")
    low, high = own["auroc_ci"]
    lines.append(f"AUROC, 95 % interval    [{low:.4f}, {high:.4f}]")
    at, sure = decisions["at_threshold"], decisions["answer_when_sure"]
    if at is not None:
        precision = "undefined" if at["precision"] is None else f"{at['precision']:.4f}"
        lines.append(
            f"at threshold {at['threshold']:.4f}     precision {precision}, recall {at['recall']:.4f}, "
            f"{100 * at['share_flagged']:.1f} % of rows flagged"
        )
    if sure["num_answered"]:
        lines.append(
            f"sure ({sure['min_confidence']:g} or more)".ljust(24)
            + f"{100 * sure['share_answered']:.1f} % of rows, {100 * sure['accuracy']:.1f} % of them right"
        )
    words = metrics["explanation"]
    if words["kappa"] is not None:
        lines.append(
            f"explanations            kappa with the head {words['kappa']:.3f}, "
            f"verdict read in {100 * words['coverage']:.1f} % of {words['num_rows']:,} rows"
        )
    if "bayes" in metrics:
        error = metrics["bayes"].get("mean_abs_error_calibrated")
        if error is not None:
            lines.append(f"mean |p - true p|       {error:.4f}")
    return lines
