"""Finished jobs -> the content of comparison.json: every number of every arm, over its seeds, with intervals.

Two kinds of doubt are kept apart. `sd` is the spread over seeds: what another training would give on the same rows.
`ci` is the middle 95 % over resampled groups of test rows, of the mean over seeds: what other rows would give. All arms
see the same resamples, so the interval of a difference is that of the difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clsgen_dist.compare.arms import Comparison, Job
from clsgen_dist.compare.claims import judge_claims
from clsgen_dist.compare.columns import COLUMNS, Column, dig, of_conditioned
from clsgen_dist.compare.frozen import frozen_groups
from clsgen_dist.compare.measured import Measured, paired_differences, read_measured, resampled_means
from clsgen_dist.config.compare import Arm

#: Pairs of arms whose difference is looked at, first less second; those that a comparison has.
PAIRS = (
    ("joint", "discriminative"),
    ("joint", "generative"),
    ("joint", "zero_shot_label_tokens"),
    ("joint", "zero_shot_verbalised"),
    ("joint", "bag_of_words"),
    ("joint_kl", "joint"),
    ("joint_kl", "discriminative"),
    ("joint_general", "joint"),
    ("joint_general", "discriminative"),
)

#: Numbers that come from probabilities, so that they can be resampled.
RESAMPLED = tuple(column.key for column in COLUMNS if column.is_resampled)


def gather(comparison: Comparison, failed: Mapping[str, str]) -> dict[str, Any]:
    """Reads what finished jobs left.

    Args:
        comparison: whose jobs.
        failed: jobs that ended in an error, and its words.

    Returns:
        The content of comparison.json: name, num_seeds, num_test_rows, num_groups, columns, rows (one an arm; of said
        probabilities one before and one after calibration), differences, claims, failed, missing.
    """
    settings = comparison.rows.evaluate
    draw = {"num_bootstrap": settings.num_bootstrap, "num_bins": settings.num_bins, "seed": comparison.rows.run.seed}
    finished: dict[str, list[Job]] = {}
    for job in comparison.jobs:
        if job.is_finished:
            finished.setdefault(job.arm.name, []).append(job)
    groups = frozen_groups(comparison.folder, "test")
    measured: dict[str, list[Measured]] = {}
    rows: list[dict[str, Any]] = []
    for arm in comparison.arms:
        jobs = finished.get(arm.of or arm.name, [])
        for part in ("raw", "calibrated") if arm.kind == "zero_shot_verbalised" else ("calibrated",):
            name = f"{arm.name}_raw" if part == "raw" else arm.name
            if jobs:
                labels = comparison.rows.task.labels
                measured[name] = [read_measured(job.folder, labels, groups, part) for job in jobs]
            rows.append(_row(name, arm, part, jobs, measured.get(name, []), draw))
    content = {
        "name": comparison.name,
        "num_seeds": comparison.num_seeds,
        "num_test_rows": len(groups),
        "num_groups": len(set(groups.values())),
        "columns": [{"key": c.key, "title": c.title, "meaning": c.meaning} for c in COLUMNS],
        "rows": rows,
        "differences": [
            _difference(first, second, measured[first], measured[second], draw)
            for first, second in PAIRS
            if measured.get(first) and measured.get(second)
        ],
        "failed": dict(failed),
        "missing": [job.name for job in comparison.jobs if not job.is_finished and job.name not in failed],
    }
    return content | {"claims": judge_claims(content)}


def _row(
    name: str, arm: Arm, part: str, jobs: Sequence[Job], measured: Sequence[Measured], draw: dict[str, int]
) -> dict[str, Any]:
    """All numbers of an arm, by column; None where it has none."""
    found = [_numbers_of(job, part, is_conditioned=arm.kind == "conditioned") for job in jobs]
    spans = resampled_means(measured, RESAMPLED, **draw) if measured and arm.kind != "conditioned" else {}
    numbers: dict[str, Any] = {}
    for column in COLUMNS:
        values = [value for own in found if (value := own[column.key]) is not None]
        numbers[column.key] = None if not values else _summary(values, spans.get(column.key))
    return {
        "name": name,
        "arm": arm.name,
        "kind": arm.kind,
        "part": part,
        "of": arm.of,
        "overrides": arm.overrides,
        "runs": [job.name for job in jobs],
        "num_rows": len(measured[0].ids) if measured else 0,
        "num_unanswered": _num_unanswered(jobs[0]) if jobs else 0,
        "numbers": numbers,
    }


def _num_unanswered(job: Job) -> int:
    """Test rows of which the model said nothing that was understood."""
    metrics = _read(job.folder.evaluation("test") / "metrics.json")
    return int(metrics["num_rows"]) - int(metrics.get("num_answered_rows", metrics["num_rows"]))


def _summary(values: list[float], span: list[float] | None) -> dict[str, Any]:
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "ci": span,
        "values": values,
    }


def _numbers_of(job: Job, part: str, *, is_conditioned: bool) -> dict[str, float | None]:
    metrics = _read(job.folder.evaluation("test") / "metrics.json")
    took = _read(job.folder.resources) if job.folder.resources.exists() else {}
    content = {**metrics, "probability": metrics[part], "resources": took}
    if is_conditioned:
        content = of_conditioned(content)
    return {column.key: _value(column, content) for column in COLUMNS}


def _value(column: Column, content: Mapping[str, Any]) -> float | None:
    for path in column.paths:
        value = dig(content, path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value) * column.factor
    return None


def _difference(
    first: str, second: str, one: Sequence[Measured], other: Sequence[Measured], draw: dict[str, int]
) -> dict[str, Any]:
    num_rows, found = paired_differences(one, other, RESAMPLED, **draw)
    return {"first": first, "second": second, "num_rows": num_rows, "numbers": found}


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
