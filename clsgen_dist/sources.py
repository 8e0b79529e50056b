"""Rows from where people keep them to the run folder: read, checked, split, written, with the hashes of their sources.

All faults of rows are found before anything is written. Needs no torch.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from clsgen_dist.calibrate.scaling import MIN_LABELLED_ROWS
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Data
from clsgen_dist.data.files import files_of
from clsgen_dist.data.rows import read_rows
from clsgen_dist.data.splits import Survey, assign, check_splits, survey
from clsgen_dist.data.store import write_rows
from clsgen_dist.data.synthetic import vignettes
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.integrity import check_unaltered, read_run_json, sha256_of, write_json
from clsgen_dist.records import SPLITS, UNLABELLED, Row

#: Settings of rows that rows of an earlier version know nothing of.
_LATER_SETTINGS = ("subgroup_columns", "reference_columns", "allow_shared_groups")
#: What the manifest of rows says of them, as far as anything depends on it.
_OF_A_SPLIT = {"source": str, "source_sha256": str | None, "num_rows": int, "sha256": str}
_NEEDED = {"settings": dict, **{f"splits.{split}.{name}": k for split in SPLITS for name, k in _OF_A_SPLIT.items()}}


@dataclass(frozen=True)
class KeptRows:
    """The rows that a split keeps.

    Attributes:
        source: name of the source, as messages have it.
        numbers: of the rows in their source, from 0, ascending, shape (N,), int32.
    """

    source: str
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)


def survey_splits(config: RunConfig) -> dict[str, KeptRows]:
    """Reads all rows once and decides which ones each split keeps.

    Raises:
        DataError: see `read_rows` and `check_splits`.
    """
    with TemporaryDirectory(prefix="clsgen-survey-") as scratch:
        splits = _survey_splits(config, Path(scratch))
        # Any other teacher writes them later.
        needs_explanations = (
            config.explain.teacher == "column" and config.objective.w_gen + config.objective.kl_weight > 0
        )
        check_splits(
            splits,
            config.task.labels,
            needs_explanations=needs_explanations,
            allow_shared_groups=config.data.allow_shared_groups,
        )
        _check_calibration_rows(config, splits["calibration"])
    _give_back_freed_memory()
    return {split: KeptRows(rows.source, rows.numbers) for split, rows in splits.items()}


def _survey_splits(config: RunConfig, scratch: Path) -> dict[str, Survey]:
    splits = {
        split: survey(name, _source_rows(config, split), scratch / split) for split, name in _sources(config).items()
    }
    missing = [split for split in SPLITS if split not in splits]
    if missing:
        shares = config.data.split_fractions.model_dump()
        every = splits["train"]
        dealt = assign(
            every,
            {split: shares[split] for split in missing},
            seed=config.run.seed,
            # Rows to calibrate on must be like those that are reported on, which share groups with train.
            by_group=not config.data.allow_shared_groups,
        )
        for split in ("train", *missing):
            splits[split] = every.take(np.flatnonzero(dealt == SPLITS.index(split)))
    for number, split in enumerate(SPLITS):
        most = config.data.max_train_rows if split == "train" else config.data.max_eval_rows
        rows = splits[split]
        if most is not None and len(rows) > most:
            draw = np.random.default_rng([config.run.seed, number]).permutation(len(rows))[:most]
            splits[split] = rows.take(np.sort(rows.numbers[draw]))
    return {split: splits[split] for split in SPLITS}


def _give_back_freed_memory() -> None:
    """Of what is freed glibc keeps up to twice the largest array, for good, unless it is told otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def _check_calibration_rows(config: RunConfig, rows: Survey) -> None:
    """Refuses, before anything is trained, what the calibrator would refuse after it."""
    num_labelled = int((rows.column("labels") != UNLABELLED).sum())
    if config.calibrate.method != "none" and num_labelled < MIN_LABELLED_ROWS:
        raise DataError(
            f"{rows.source} (calibration): {num_labelled} labelled rows, a calibrator needs {MIN_LABELLED_ROWS}; "
            "give more rows, or set calibrate.method to none"
        )


def _sources(config: RunConfig) -> dict[str, str]:
    """Splits that have rows of their own, and the name of each source."""
    if config.data.vignettes is not None:
        return {split: f"vignettes ({split})" for split in SPLITS}
    named = {split: getattr(config.data, split) for split in SPLITS}
    return {split: name for split, name in named.items() if name is not None}


def _source_rows(config: RunConfig, split: str) -> Iterator[tuple[str, Row]]:
    if config.data.vignettes is None:
        return read_rows(getattr(config.data, split), config.data, config.task.labels)
    num_rows = getattr(config.data.vignettes, f"num_{split}")
    rows = vignettes(num_rows, seed=config.run.seed, split=split)
    return ((f"vignettes:{number}", row) for number, row in enumerate(rows, 1))


def write_sources(config: RunConfig, splits: Mapping[str, KeptRows], folder: RunFolder) -> None:
    """Writes the labelled rows of every split, and what they are.

    Raises:
        DataError: the rows changed since they were surveyed.
    """
    facts: dict[str, Any] = {"settings": _row_settings(config), "labels": config.task.labels, "splits": {}}
    for split, kept in splits.items():
        rows = _numbered(_source_rows(config, split if split in _sources(config) else "train"), kept.numbers)
        labels, explained = Counter[int | None](), Counter[bool]()
        num_rows = write_rows(folder.labelled(split), _counted(rows, labels, explained))
        if num_rows != len(kept):
            raise DataError(f"{kept.source}: rows changed while they were read; start again when the file is at rest")
        facts["splits"][split] = {
            "source": kept.source,
            "source_sha256": source_hash(kept.source),
            "num_rows": num_rows,
            "labels": {name: labels[number] for number, name in enumerate(config.task.labels)},
            "num_explained": explained[True],
            "num_unlabelled": labels[None],
            "sha256": sha256_of(folder.labelled(split)),
        }
    write_json(folder.labelled_manifest, facts)


def gather_sources(config: RunConfig, folder: RunFolder) -> bool:
    """Labelled rows into the run folder, or a look at those that are there; the folder appears whole, by a rename.

    Returns:
        Whether the run folder is new.

    Raises:
        ConfigError: the folder is something else's, or its rows were read with other settings.
        DataError, CheckpointError: see `survey_splits` and `read_sources`.
    """
    if folder.labelled_manifest.is_file():
        read_sources(config, folder)
        return False
    if folder.is_begun:
        raise ConfigError(f"{folder.path}: not a run folder of this program; choose another run.name or run.output_dir")
    splits = survey_splits(config)
    staging = RunFolder(folder.path.with_name(f".{folder.path.name}.partial"))
    shutil.rmtree(staging.path, ignore_errors=True)
    write_sources(config, splits, staging)
    take_place(staging, folder)
    return True


def _counted(rows: Iterator[Row], labels: Counter[int | None], explained: Counter[bool]) -> Iterator[Row]:
    """The rows, counted on their way by label and by whether they have an explanation."""
    for row in rows:
        labels[row.label] += 1
        explained[row.explanation is not None] += 1
        yield row


def take_place(staging: RunFolder, folder: RunFolder) -> None:
    """Moves a folder that was made beside a run folder into its place; what was said in words stays."""
    if folder.verbalized.exists():
        os.replace(folder.verbalized, staging.verbalized)
    if folder.path.exists():
        folder.path.rmdir()
    os.replace(staging.path, folder.path)


def read_sources(config: RunConfig, folder: RunFolder) -> dict[str, Any]:
    """What `write_sources` wrote of a run folder, checked against the configuration and the files of rows.

    Raises:
        ConfigError: the folder's rows were read with other settings.
        DataError: a file of rows changed since.
        CheckpointError: the run folder's own rows, or what is written of them, were altered.
    """
    facts = read_run_json(folder.labelled_manifest, _NEEDED)
    # Rows that were read before there were such settings were read as their defaults say.
    later = {f"data.{name}": getattr(Data(), name) for name in _LATER_SETTINGS}
    before, now = {**later, **facts["settings"]}, _row_settings(config)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if changed:
        raise ConfigError(
            f"{folder.path} holds rows that were read with other settings (differs in {', '.join(changed[:6])}); "
            "choose another run.name, or go back to them"
        )
    _check_unchanged(facts["splits"], folder)
    return facts


def _check_unchanged(splits: Mapping[str, Any], folder: RunFolder) -> None:
    """Compares the files of rows, and the run folder's copies, with what is written of them.

    Raises:
        DataError, CheckpointError: as `read_sources`.
    """
    for split, facts in splits.items():
        if source_hash(facts["source"]) not in (facts["source_sha256"], None):
            raise DataError(f"{facts['source']}: changed since run {folder.path} began; choose another run.name")
        check_unaltered(folder.labelled(split), facts["sha256"])


def _row_settings(config: RunConfig) -> dict[str, Any]:
    """The settings that decide which rows a run has."""
    data = config.data.model_dump(mode="json", exclude={"max_prompt_tokens", "max_explanation_tokens"})
    return {
        "run.seed": config.run.seed,
        "task.labels": config.task.labels,
        **{f"data.{name}": value for name, value in data.items()},
    }


def _numbered(rows: Iterator[tuple[str, Row]], numbers: np.ndarray) -> Iterator[Row]:
    """The rows of the given ascending numbers."""
    wanted = map(int, numbers)  # a list would take eight times the memory
    following = next(wanted, None)
    for number, (_, row) in enumerate(rows):
        if number == following:
            yield row
            following = next(wanted, None)


def source_hash(source: str) -> str | None:
    """sha256 of a source that is a file here, or of the names and hashes of several; None for any other."""
    files = [name for name in files_of(source) if Path(name).is_file()]
    if files == [source]:
        return sha256_of(Path(source))
    lines = "".join(f"{name} {sha256_of(Path(name))}\n" for name in files)
    return hashlib.sha256(lines.encode()).hexdigest() if files else None
