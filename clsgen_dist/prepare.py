"""Everything before the first worker starts: rows read, checked, split, tokenised; the backbone looked at.

All faults of configuration and data are found here, on one process, in one pass and before anything is written; then
the run folder appears whole, by a rename.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clsgen_dist.calibrate.scaling import MIN_LABELLED_ROWS
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, differing_keys, dump_config, load_config
from clsgen_dist.config.zero import read_zero
from clsgen_dist.data.rows import read_rows
from clsgen_dist.data.splits import Survey, assign, check_splits, survey
from clsgen_dist.data.store import stored_rows, write_rows
from clsgen_dist.data.synthetic import vignettes
from clsgen_dist.data.tokens import TokenizedSplit, load_tokenizer, row_tokenizer, write_tokens
from clsgen_dist.errors import CheckpointError, ConfigError, DataError
from clsgen_dist.integrity import sha256_of
from clsgen_dist.model.backbone import make_small_backbone, write_out_gguf
from clsgen_dist.model.build import build_skeleton
from clsgen_dist.records import SPLITS, UNLABELLED, Row

#: Settings that may differ when a run goes on: where it is tracked and how it is spread, not what it computes.
_FREE_TO_CHANGE = ("tracking.", "ray.", "run.output_dir", "train.num_workers", "train.cpu_threads", "train.collective")


def prepare(config: RunConfig) -> RunFolder:
    """Makes the run folder ready for workers, or finds it ready.

    Raises:
        ConfigError: the folder holds another run, the backbone is no causal language model, LoRA targets match nothing.
        DataError: see `read_rows`, `check_splits`; or rows changed since the run began.
    """
    folder = RunFolder(config.folder)
    if folder.path.exists() and any(folder.path.iterdir()):
        _check_same_run(config, folder)
        return folder
    if config.model.name_or_path is not None and config.model.gguf_file is None:
        build_skeleton(config.model, config.model.name_or_path, config.num_labels)
    splits = survey_splits(config)
    staging = RunFolder(folder.path.with_name(f".{folder.path.name}.partial"))
    made = not staging.path.parent.exists()
    shutil.rmtree(staging.path, ignore_errors=True)  # of an attempt that was killed
    try:
        _write_rows(config, splits, staging)
        _make_backbone(config, staging)
        _write_all_tokens(config, staging)
        staging.zero.write_text(json.dumps(read_zero(config.train.deepspeed), indent=2) + "\n", encoding="utf-8")
        staging.config.write_text(dump_config(config), encoding="utf-8")
        if folder.path.exists():
            folder.path.rmdir()
        os.replace(staging.path, folder.path)
    except BaseException:
        shutil.rmtree(staging.path, ignore_errors=True)
        if made and staging.path.parent.exists() and not any(staging.path.parent.iterdir()):
            staging.path.parent.rmdir()
        raise
    return folder


def backbone_place(config: RunConfig, folder: RunFolder) -> str:
    """Folder or Hub name that the backbone is loaded from."""
    return str(folder.backbone) if folder.backbone.exists() else str(config.model.name_or_path)


def survey_splits(config: RunConfig) -> dict[str, tuple[Survey, np.ndarray]]:
    """Reads all rows once and decides which ones each split keeps.

    Returns:
        By split: a survey of the kept rows, and their numbers in the split's source, ascending.

    Raises:
        DataError: see `read_rows` and `check_splits`.
    """
    sources = {split: survey(name, _source_rows(config, split)) for split, name in _sources(config).items()}
    chosen = {split: np.arange(len(rows)) for split, rows in sources.items()}
    missing = [split for split in SPLITS if split not in sources]
    if missing:
        shares = config.data.split_fractions.model_dump()
        dealt = assign(sources["train"], {split: shares[split] for split in missing}, seed=config.run.seed)
        for split in ("train", *missing):
            sources[split] = sources["train"]
            chosen[split] = np.flatnonzero(dealt == SPLITS.index(split))
    kept = {}
    for number, split in enumerate(SPLITS):
        most = config.data.max_train_rows if split == "train" else config.data.max_eval_rows
        if most is not None and len(chosen[split]) > most:
            draw = np.random.default_rng([config.run.seed, number]).permutation(len(chosen[split]))[:most]
            chosen[split] = np.sort(chosen[split][draw])
        kept[split] = (sources[split].take(chosen[split]), chosen[split])
    needs_explanations = config.objective.w_gen + config.objective.kl_weight > 0
    check_splits({s: rows for s, (rows, _) in kept.items()}, config.task.labels, needs_explanations=needs_explanations)
    _check_calibration_rows(config, kept["calibration"][0])
    return kept


def _check_calibration_rows(config: RunConfig, rows: Survey) -> None:
    """Refuses, before anything is trained, what the calibrator would refuse after it."""
    num_labelled = int((rows.labels != UNLABELLED).sum())
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


def _write_rows(config: RunConfig, splits: dict[str, tuple[Survey, np.ndarray]], folder: RunFolder) -> None:
    manifest: dict[str, Any] = {"teacher": config.explain.teacher, "labels": config.task.labels, "splits": {}}
    for split, (kept, numbers) in splits.items():
        source = split if split in _sources(config) else "train"
        rows = _numbered(_source_rows(config, source), numbers)
        num_rows = write_rows(folder.rows(split), rows)
        if num_rows != len(kept):
            raise DataError(f"{kept.source}: rows changed while they were read; start again when the file is at rest")
        manifest["splits"][split] = {
            "source": kept.source,
            "source_sha256": source_hash(kept.source),
            "num_rows": num_rows,
            "num_explained": int(kept.explained.sum()),
            "labels": {name: int((kept.labels == k).sum()) for k, name in enumerate(config.task.labels)},
            "num_unlabelled": int((kept.labels == UNLABELLED).sum()),
            "sha256": sha256_of(folder.rows(split)),
        }
    folder.manifest.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _numbered(rows: Iterator[tuple[str, Row]], numbers: np.ndarray) -> Iterator[Row]:
    """The rows of the given ascending numbers."""
    wanted = iter(numbers.tolist())
    following = next(wanted, None)
    for number, (_, row) in enumerate(rows):
        if number == following:
            yield row
            following = next(wanted, None)


def _make_backbone(config: RunConfig, folder: RunFolder) -> None:
    if config.model.from_scratch is not None:
        rows = stored_rows(folder.rows("train"))
        texts = (words for row in rows for words in (row.text, row.explanation) if words)
        most = config.data.max_prompt_tokens + max(config.data.max_explanation_tokens, config.predict.max_new_tokens)
        make_small_backbone(folder.backbone, config.model.from_scratch, texts, max_tokens=most, seed=config.run.seed)
    elif config.model.gguf_file is not None:
        write_out_gguf(
            folder.backbone, str(config.model.name_or_path), config.model.gguf_file, revision=config.model.revision
        )
        build_skeleton(config.model, str(folder.backbone), config.num_labels)


def _write_all_tokens(config: RunConfig, folder: RunFolder) -> None:
    tokenizer = load_tokenizer(config.model, backbone_place(config, folder))
    rows_to_tokens = row_tokenizer(tokenizer, config.task, config.data)
    for split in SPLITS:
        write_tokens(folder.tokens(split), stored_rows(folder.rows(split)), rows_to_tokens)
        longest = int(TokenizedSplit(folder.tokens(split)).lengths.max())
        if longest > config.train.token_budget:
            raise ConfigError(
                f"train.token_budget is {config.train.token_budget}, the longest row of {split} has {longest} tokens"
            )


def _check_same_run(config: RunConfig, folder: RunFolder) -> None:
    if not folder.config.is_file() or not folder.manifest.is_file():
        raise ConfigError(f"{folder.path}: not a run folder of this program; choose another run.name or run.output_dir")
    before = load_config(folder.config)
    changed = [key for key in differing_keys(config, before) if not key.startswith(_FREE_TO_CHANGE)]
    if changed:
        raise ConfigError(
            f"{folder.path} holds a run with another configuration (differs in {', '.join(changed[:6])}); "
            "choose another run.name, or go back to the settings in its config.yaml"
        )
    if json.loads(folder.zero.read_text(encoding="utf-8")) != read_zero(config.train.deepspeed):
        raise ConfigError(f"{config.train.deepspeed}: changed since run {folder.path} began; choose another run.name")
    for split, facts in json.loads(folder.manifest.read_text(encoding="utf-8"))["splits"].items():
        if source_hash(facts["source"]) not in (facts["source_sha256"], None):
            raise DataError(f"{facts['source']}: changed since run {folder.path} began; choose another run.name")
        if sha256_of(folder.rows(split)) != facts["sha256"]:
            raise CheckpointError(f"{folder.rows(split)}: altered since the run began (sha256 differs)")


def source_hash(source: str) -> str | None:
    """sha256 of a source that is a file here; None for any other."""
    return sha256_of(Path(source)) if Path(source).is_file() else None
