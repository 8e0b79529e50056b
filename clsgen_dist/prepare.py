"""Everything before the first worker starts: rows read, checked, split, explained, tokenised; the backbone looked at.

All faults of configuration and data are found here, on one process, in one pass and before anything is written; then
the run folder appears whole, by a rename.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.going_on import changed_settings
from clsgen_dist.config.run import RunConfig, dump_config, load_config
from clsgen_dist.config.zero import read_zero
from clsgen_dist.data.store import stored_rows
from clsgen_dist.data.tokens import TokenizedSplit, load_tokenizer, row_tokenizer, write_tokens
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.explain.explained_set import check_explained_set, read_explained_set
from clsgen_dist.explain.stage import (
    FREE_TEACHERS,
    explain_rows,
    explained_set_stands,
    hire_locally,
)
from clsgen_dist.integrity import check_unaltered, read_run_json, sha256_of, write_json
from clsgen_dist.model.backbone import make_small_backbone, write_out_gguf
from clsgen_dist.model.build import build_skeleton
from clsgen_dist.progress import Listener, silent
from clsgen_dist.records import SPLITS
from clsgen_dist.sources import read_sources, survey_splits, take_place, write_sources


def prepare(config: RunConfig, listener: Listener = silent) -> RunFolder:
    """Makes the run folder ready for workers, or finds it ready.

    Explains the rows on the way where that costs nothing; the explained set of any other teacher must stand.

    Raises:
        ConfigError: the folder holds another run, the backbone is no causal language model, LoRA targets match
            nothing, or there is no explained set yet.
        DataError: see `survey_splits`; or rows changed since the run began.
        CheckpointError: the run folder's own rows, or what is written of them, were altered.
    """
    folder = RunFolder(config.folder)
    if folder.config.is_file():
        _check_same_run(config, folder)
        return folder
    explained = explained_set_stands(config, folder)
    if not explained:
        _refuse_what_stands(config, folder)
        if config.explain.teacher not in FREE_TEACHERS:
            raise ConfigError(
                f"{folder.path} has no explained set of these settings; the {config.explain.teacher} teacher writes it "
                "with the same configuration: python launchers/explain.py --config ..."
            )
    if config.model.name_or_path is not None and config.model.gguf_file is None:
        build_skeleton(config.model, config.model.name_or_path, config.num_labels)
    splits = None if explained else survey_splits(config)
    staging = RunFolder(folder.path.with_name(f".{folder.path.name}.partial"))
    made = not staging.path.parent.exists()
    shutil.rmtree(staging.path, ignore_errors=True)  # of an attempt that was killed
    try:
        if splits is None:
            check_explained_set(folder)
            _borrow_explained_set(folder, staging)
        else:
            write_sources(config, splits, staging)
            explain_rows(config, staging, listener, hire_locally)
        _check_reasons(config, staging)
        _make_backbone(config, staging)
        _write_all_tokens(config, staging)
        staging.zero.write_text(json.dumps(read_zero(config.train.deepspeed), indent=2) + "\n", encoding="utf-8")
        staging.config.write_text(dump_config(config), encoding="utf-8")
        _put_in_place(staging, folder)
    except BaseException:
        shutil.rmtree(staging.path, ignore_errors=True)
        if made and staging.path.parent.exists() and not any(staging.path.parent.iterdir()):
            staging.path.parent.rmdir()
        raise
    return folder


def _refuse_what_stands(config: RunConfig, folder: RunFolder) -> None:
    """Refuses a folder that holds something else than the beginning of this run."""
    if not folder.is_begun:
        return
    if folder.labelled_manifest.is_file():
        if not folder.teacher_memory.exists() and not folder.explained.exists():
            read_sources(config, folder)  # rows that a model was asked about in words; they must be those of this run
            return
        raise ConfigError(
            f"{folder.path} holds rows that are being explained with other settings, or to no end yet: finish with "
            "python launchers/explain.py --config ..., or choose another run.name"
        )
    raise ConfigError(f"{folder.path}: not a run folder of this program; choose another run.name or run.output_dir")


def _check_reasons(config: RunConfig, folder: RunFolder) -> None:
    splits = read_explained_set(folder)["splits"]
    if config.objective.w_cls == 0 and splits["validation"]["num_explained"] == 0:
        raise DataError(
            "no validation row has a reason while objective.w_cls is 0: without a head, the best step is chosen by the "
            "words alone; give reasons of validation rows, or objective.w_cls above 0"
        )
    if config.objective.w_gen + config.objective.kl_weight > 0 and splits["train"]["num_explained"] == 0:
        raise DataError(
            f"the {config.explain.teacher} teacher has a reason for no training row while objective.w_gen > 0; see "
            "explained/explain_report.html, and take another teacher or other explain.checks"
        )


def _borrow_explained_set(folder: RunFolder, staging: RunFolder) -> None:
    """Lets the stages that follow read the explained set where they would look for it."""
    staging.path.mkdir(parents=True)
    for place in (folder.labelled_manifest.parent, folder.explained):
        (staging.path / place.name).symlink_to(place, target_is_directory=True)


def _put_in_place(staging: RunFolder, folder: RunFolder) -> None:
    """Moves what was made to the run folder; its configuration last, which says that the folder is ready."""
    if not folder.manifest.is_file():
        shutil.rmtree(folder.labelled_manifest.parent, ignore_errors=True)  # the same rows stand in the new folder
        take_place(staging, folder)
        return
    made = [path for path in staging.path.iterdir() if not path.is_symlink()]
    for path in sorted(made, key=lambda path: path == staging.config):
        place = folder.path / path.name
        if place.is_dir():
            shutil.rmtree(place)  # of an attempt that was killed
        os.replace(path, place)
    shutil.rmtree(staging.path)


def backbone_place(config: RunConfig, folder: RunFolder) -> str:
    """Folder or Hub name that the backbone is loaded from."""
    return str(folder.backbone) if folder.backbone.exists() else str(config.model.name_or_path)


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
    write_json(_token_hashes(folder), {split: sha256_of(folder.tokens(split)) for split in SPLITS})


def _token_hashes(folder: RunFolder) -> Path:
    return folder.tokens("train").with_name("manifest.json")


def _check_tokens(folder: RunFolder) -> None:
    """Compares the tokens with what was noted of them. Raises CheckpointError where they were altered."""
    if _token_hashes(folder).exists():  # an earlier version noted nothing
        noted = read_run_json(_token_hashes(folder), dict.fromkeys(SPLITS, str))
        for split in SPLITS:
            check_unaltered(folder.tokens(split), noted[split])


def _check_same_run(config: RunConfig, folder: RunFolder) -> None:
    changed = changed_settings(config, load_config(folder.config))
    if changed:
        raise ConfigError(
            f"{folder.path} holds a run with another configuration (differs in {', '.join(changed[:6])}); "
            "choose another run.name, or go back to the settings in its config.yaml"
        )
    if read_run_json(folder.zero, {}) != read_zero(config.train.deepspeed):
        raise ConfigError(f"{config.train.deepspeed}: changed since run {folder.path} began; choose another run.name")
    read_sources(config, folder)
    check_explained_set(folder)
    _check_tokens(folder)
