"""rows -> what a model says of them -> calibrated: what `launchers/verbalize.py` does.

verbalized/
  answers.sqlite   every answer as it came, so that the same command goes on where it was
  answers.jsonl    id, split, label, answers, sum and form of what the first one says; token probabilities where they
                   were read
  metrics.json     all methods, measured
  fits.json        all methods, fitted
  report.html      both, for people, with the pictures beside it
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from clsgen_dist.chat.interface import ENDED_EARLY, UNREADABLY_LONG, WITHHELD, Completion
from clsgen_dist.config.answers import AnswersConfig, AnswersRequest
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.integrity import sha256_of, write_json
from clsgen_dist.mirror import kept_alike, mirror_of
from clsgen_dist.progress import Listener
from clsgen_dist.records import UNLABELLED, Row
from clsgen_dist.sources import gather_sources
from clsgen_dist.verbalize.answers import Answers, average_said, name_groups, read_answers, split_answers
from clsgen_dist.verbalize.collecting import Collected, check_asked, collect, load_asked
from clsgen_dist.verbalize.methods import say_too_few
from clsgen_dist.verbalize.parsing import CUT_OFF, TOO_LONG, Said, parse_distribution
from clsgen_dist.verbalize.plots import write_study_plots
from clsgen_dist.verbalize.report import write_study_report
from clsgen_dist.verbalize.study import Study, study

#: The splits that a model is asked about: what is fitted on, and what is measured on.
SPLITS_ASKED = ("calibration", "test")

#: What is always in metrics.json, with nulls where nothing could be measured.
CONTRACT_METHODS = ("raw", "resoftmax_temperature", "invert_softmax_temperature")
CONTRACT_METRICS = ("auroc", "auprc", "f1", "accuracy", "nll", "brier", "ece", "ece_top_label")

#: What it means where there are no words; anything else counts as no answer.
_FAULTS = {ENDED_EARLY: CUT_OFF, UNREADABLY_LONG: TOO_LONG, WITHHELD: "refusal"}

_UNSHIFTED = "calibrate.prior: has no effect here, as probabilities that are said in words are not shifted"


def verbalize_run(config: RunConfig, listener: Listener) -> Path:
    """Asks a model for the distribution of every calibration and test row in words, and calibrates what it says.

    Args:
        config: the run; its rows are read into the run folder where they do not stand there yet.
        listener: hears of progress.

    Returns:
        The folder of the results.

    Raises:
        ConfigError: the model cannot be asked, found before any row is spent.
        DataError: rows or answers that nothing can be fitted to; what was answered is kept.
        TeacherError: the model cannot be reached any more, or the budget is spent; the same command goes on.
        CheckpointError: run.storage cannot be read or written.
    """
    with kept_alike(mirror_of(config)):
        return _verbalize_run(config, RunFolder(config.folder), listener)


def _verbalize_run(config: RunConfig, folder: RunFolder, listener: Listener) -> Path:
    check_asked(config, folder)
    is_new = gather_sources(config, folder)
    try:
        rows = {
            split: list(islice(stored_rows(folder.labelled(split)), config.verbalize.max_rows))
            for split in SPLITS_ASKED
        }
        _check_rows(rows)
        asked = load_asked(config, folder)
    except (ConfigError, DataError):  # found before the first row: a refused run leaves nothing behind
        if is_new:
            shutil.rmtree(folder.path)
        raise
    folder.verbalized.mkdir(exist_ok=True)
    collected = collect(config, folder, asked, rows, listener)
    _write_answers(folder.verbalized / "answers.jsonl", config, rows, collected)
    fit, floor = _to_answers(config, "calibration", rows["calibration"], collected, config.verbalize.floor)
    test, _ = _to_answers(config, "test", rows["test"], collected, floor)
    settings = AnswersConfig(**{name: getattr(config, name) for name in AnswersConfig.model_fields})
    facts = {
        "Question": config.task.question,
        "Asked": asked.name,
        "Prompt": f"{config.verbalize.prompt}, {config.verbalize.num_prompts} paraphrase(s)",
        "Rows to fit on": f"{len(fit):,} of calibration",
        "Rows to test on": f"{len(test):,} of test",
    }
    extra: dict[str, float] = {}
    if "test" in collected.readings:
        masses = [reading.label_mass for reading in collected.readings["test"] if not math.isnan(reading.label_mass)]
        extra["label_mass"] = mean = math.fsum(masses) / max(1, len(masses))
        facts["Answers that open with a label"] = f"{100 * mean:.1f} %, by the tokens of the test rows"
    shared = config.data.allow_shared_groups
    _write_study(settings, folder.verbalized, fit, test, floor, collected.origin, facts, extra, shared)
    return folder.verbalized


def calibrate_answers(request: AnswersRequest) -> Path:
    """Calibrates answers that were collected elsewhere; asks no model.

    Returns:
        The folder of the results.

    Raises:
        ConfigError: the results of a model that was asked stand in that folder.
        DataError: answers that cannot be read, or that nothing can be fitted to.
    """
    config = request.config
    if request.output.exists() and not request.output.is_dir():
        raise ConfigError(f"--output {request.output}: a file stands there; expected a folder, or a name for a new one")
    if (request.output / "answers.sqlite").exists():
        raise ConfigError(
            f"{request.output}: holds what a model was asked for, and its results; give another folder with --output"
        )
    labels, tolerance = config.task.labels, config.verbalize.sum_tolerance
    test = read_answers(request.answers, labels, sum_tolerance=tolerance)
    if request.calibration_answers is None:
        fit, test = split_answers(test, seed=config.run.seed)
    else:
        fit = read_answers(request.calibration_answers, labels, sum_tolerance=tolerance)
    files = [path for path in (request.answers, request.calibration_answers) if path is not None]
    facts = {
        "Answers": ", ".join(map(str, files)),
        "Rows to fit on": f"{len(fit):,} from {fit.source}",
        "Rows to test on": f"{len(test):,} from {test.source}",
    }
    origin = {f"answers {number}": sha256_of(path) for number, path in enumerate(files, start=1)}
    _write_study(config, request.output, fit, test, config.verbalize.floor, origin, facts, {})
    return request.output


def _check_rows(rows: Mapping[str, Sequence[Row]]) -> None:
    """Refuses, before a model is asked, rows that nothing could be fitted to or measured on."""
    for split, some in rows.items():
        known = [row for row in some if row.label is not None]
        labels_N = np.array([row.label for row in known], dtype=np.int64)
        groups_N = name_groups([row.id for row in known], [row.group for row in known])
        fault = say_too_few(labels_N) if split == "calibration" else None
        if fault is None and len(np.unique(labels_N)) < 2:
            fault = f"{len(labels_N)} labelled rows of fewer than two labels, nothing can be measured"
        if fault is None and split == "test" and len(np.unique(groups_N)) < 2:
            fault = f"all {len(known)} labelled rows are of one group, nothing can be measured"
        if fault is not None:
            raise DataError(
                f"the {split} rows: {fault}; give more of them (data.{split}, data.split_fractions, "
                "data.max_eval_rows, verbalize.max_rows)"
            )


def _write_study(
    config: AnswersConfig,
    folder: Path,
    fit: Answers,
    test: Answers,
    floor: float | None,
    origin: Mapping[str, str],
    facts: Mapping[str, str],
    extra: Mapping[str, Any],
    allow_shared_groups: bool = False,
) -> None:
    """Compares all methods and writes what came of it; nothing where that fails."""
    found = study(
        fit,
        test,
        floor=floor,
        is_floor_default=config.verbalize.floor is None,
        constant=config.verbalize.constant,
        max_temperature=config.calibrate.max_temperature,
        num_bins=config.evaluate.num_bins,
        num_bootstrap=config.evaluate.num_bootstrap,
        seed=config.run.seed,
        origin=origin,
        warnings=[] if config.calibrate.prior is None else [_UNSHIFTED],
        allow_shared_groups=allow_shared_groups,
    )
    folder.mkdir(parents=True, exist_ok=True)
    pictures = write_study_plots(folder, found)
    write_study_report(folder / "report.html", found.metrics, pictures, {"Run": config.run.name, **facts})
    write_json(folder / "fits.json", found.fits)
    _write_predictions(folder / "predictions.jsonl", found)
    # What could not be measured stands there, too, so that whoever looks for it finds why.
    absent = {
        name: {"num_rows": 0, **dict.fromkeys(CONTRACT_METRICS), "unavailable": found.metrics["unavailable"].get(name)}
        for name in CONTRACT_METHODS
        if name not in found.metrics
    }
    write_json(folder / "metrics.json", {**found.metrics, **absent, **extra})  # last: where it stands, the others do


def _write_predictions(path: Path, found: Study) -> None:
    """A line a row that was measured: what was said, what was understood of it, and the chosen method's probability."""
    labels, name = found.test.labels, found.metrics["chosen"]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for n, (id, said) in enumerate(zip(found.test.ids, found.test.said, strict=True)):
            label = int(found.test.labels_N[n])
            own_K = found.probabilities[name][n] if name is not None else np.full(len(labels), np.nan)
            answered = not np.isnan(own_K).any()
            line = {
                "id": id,
                "label": None if label == UNLABELLED else labels[label],
                "said": None if said.probabilities is None else dict(zip(labels, said.probabilities, strict=True)),
                "raw_sum": said.raw_sum,
                "form": said.form,
                "fault": said.fault,
                "probability": dict(zip(labels, (own_K if answered else found.base_rate).tolist(), strict=True)),
                "method": name if answered else "base_rate",
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def _to_answers(
    config: RunConfig, split: str, rows: Sequence[Row], collected: Collected, floor: float | None
) -> tuple[Answers, float | None]:
    """What was understood of the answers to the rows of a split, and the floor where paraphrases were averaged."""
    labels, tolerance = config.task.labels, config.verbalize.sum_tolerance
    per_prompt = [
        tuple(_understood(answer, labels, tolerance) for answer in of_prompt) for of_prompt in collected.answers[split]
    ]
    said = per_prompt[0]
    if len(per_prompt) > 1:
        said, used = average_said(per_prompt, num_labels=len(labels), floor=floor)
        floor = used or floor  # 0 where nothing was understood
    return (
        Answers(
            source=f"the {split} rows",
            labels=tuple(labels),
            ids=tuple(row.id for row in rows),
            said=said,
            labels_N=np.array([UNLABELLED if row.label is None else row.label for row in rows], dtype=np.int64),
            groups_N=name_groups([row.id for row in rows], [row.group for row in rows]),
            texts=tuple(row.text for row in rows),
            token_probabilities={
                name: np.array([getattr(reading, name) for reading in collected.readings[split]], dtype=np.float64)
                for name in ("label_tokens", "digit_expectation")
                if split in collected.readings
            },
        ),
        floor,
    )


def _understood(answer: Completion, labels: Sequence[str], tolerance: float) -> Said:
    said = parse_distribution(answer.text, labels, sum_tolerance=tolerance)
    return said if answer.text else replace(said, fault=_FAULTS.get(answer.fault or "", said.fault))


def _write_answers(path: Path, config: RunConfig, rows: Mapping[str, Sequence[Row]], collected: Collected) -> None:
    """Everything that was said, a line a row, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for split, of_split in rows.items():
            for n, row in enumerate(of_split):
                first = collected.answers[split][0][n]
                said = _understood(first, config.task.labels, config.verbalize.sum_tolerance)
                line: dict[str, Any] = {
                    "id": row.id,
                    "split": split,
                    "label": None if row.label is None else config.task.labels[row.label],
                    "group": row.group,
                    "answer": first.text,
                    "answers": [of_prompt[n].text for of_prompt in collected.answers[split]],
                    "raw_sum": said.raw_sum,
                    "form": said.form,
                }
                if split in collected.readings and not math.isnan(collected.readings[split][n].label_mass):
                    line |= collected.readings[split][n]._asdict()
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    os.replace(temporary, path)
