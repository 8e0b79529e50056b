"""rows -> explained set: what `launchers/explain.py` does, and preparing a training where the teacher costs nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

from clsgen_dist.claim import claimed
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.going_on import HOW_ONLY
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.store import stored_rows
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.explain.budget import check_budget
from clsgen_dist.explain.checks import CAUSES
from clsgen_dist.explain.crew import Crew, LocalCrew
from clsgen_dist.explain.explained_set import read_explained_set, write_explained_set
from clsgen_dist.explain.memory import TeacherMemory
from clsgen_dist.explain.rounds import Rounds
from clsgen_dist.explain.teachers import SENTENCES, check_teacher, make_explainer, shown_prompts
from clsgen_dist.explain.watch import Watch
from clsgen_dist.mirror import kept_alike, mirror_of
from clsgen_dist.progress import Listener
from clsgen_dist.records import EXPLAINED_SPLITS
from clsgen_dist.sources import gather_sources, read_sources

#: Makes a crew for a run folder with labelled rows.
Hire = Callable[[RunConfig, RunFolder, TeacherMemory, Watch], AbstractContextManager[Crew]]

#: Teachers that need no word of a person before they begin: they cost neither money nor hours.
FREE_TEACHERS = ("column", "evidence")


def explain_run(config: RunConfig, listener: Listener, hire: Hire | None = None) -> RunFolder:
    """Explains the training and validation rows of a run, or goes on with it.

    Args:
        config: the run.
        listener: hears of progress.
        hire: who does the work; None: this process.

    Raises:
        ConfigError: the teacher cannot be asked (no key, no such model, endpoint down, budget too small), or the run
            folder belongs to something else, or another process is at work there. Nothing was asked or written then.
        DataError: see `survey_splits`; or a source is a test split.
        TeacherError: the teacher cannot be reached any more, or the budget is spent; the same command goes on.
    """
    with claimed(config.folder), kept_alike(mirror_of(config)):
        return _explain_run(config, RunFolder(config.folder), listener, hire or hire_locally)


def _explain_run(config: RunConfig, folder: RunFolder, listener: Listener, hire: Hire) -> RunFolder:
    if explained_set_stands(config, folder):
        return folder
    if folder.config.is_file():
        raise ConfigError(
            f"{folder.path} holds a run that was prepared with another explained set; choose another run.name"
        )
    _refuse_test_sources(config)
    check_teacher(config.explain)
    is_new = gather_sources(config, folder)
    try:
        explain_rows(config, folder, listener, hire)
    except (ConfigError, DataError):  # found before the first row: a refused run leaves nothing behind
        if is_new:
            shutil.rmtree(folder.path)
        raise
    return folder


def explain_rows(config: RunConfig, folder: RunFolder, listener: Listener, hire: Hire) -> None:
    """Explains the labelled rows of a run folder. Raises as `explain_run` does."""
    sources = json.loads(folder.labelled_manifest.read_text(encoding="utf-8"))["splits"]
    splits = {split: partial(stored_rows, folder.labelled(split)) for split in EXPLAINED_SPLITS}
    made_by = _deciding_settings(config, sources)
    with closing(TeacherMemory(folder.teacher_memory)) as memory:
        memory.start(json.dumps(made_by, sort_keys=True))
        check_budget(config, splits, memory)
        watch = Watch(config.explain, memory, listener, num_rows=sum(sources[s]["num_rows"] for s in splits))
        with hire(config, folder, memory, watch) as crew:
            Rounds(splits, config.explain, memory, crew, watch.heard).run()
        watch.done()
        write_explained_set(
            config,
            folder,
            memory,
            sources,
            made_by=made_by,
            teacher_sentence=SENTENCES[config.explain.teacher],
            causes=CAUSES,
            prompts=shown_prompts(config),
        )
    if config.explain.teacher in FREE_TEACHERS:  # nothing in it that asking again would not give
        folder.teacher_memory.unlink()


def hire_locally(
    config: RunConfig, folder: RunFolder, memory: TeacherMemory, watch: Watch
) -> AbstractContextManager[Crew]:
    """A crew in this process."""
    explainer = make_explainer(config, lambda: stored_rows(folder.labelled("train")), memory, watch)
    return LocalCrew(explainer)


def explained_set_stands(config: RunConfig, folder: RunFolder) -> bool:
    """Whether the run folder holds an explained set that these settings would make again.

    Raises:
        ConfigError, DataError, CheckpointError: its rows are not those of the configuration, see `read_sources`.
    """
    if not folder.manifest.is_file():
        return False
    sources = read_sources(config, folder)["splits"]
    made = read_explained_set(folder)
    return bool(made["made_by"] == _deciding_settings(config, sources))


def _deciding_settings(config: RunConfig, sources: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides what the explained set is."""
    return {
        "explain": config.explain.model_dump(mode="json", exclude=set(HOW_ONLY)),
        "question": config.task.question,
        "labels": config.task.labels,
        "seed": config.run.seed,
        "rows": {split: sources[split]["sha256"] for split in EXPLAINED_SPLITS},
    }


def _refuse_test_sources(config: RunConfig) -> None:
    """A reason of a test row must never be learnt from."""
    data = config.data
    kept_apart = {name: getattr(data, name) for name in ("calibration", "test") if getattr(data, name) is not None}
    for split in EXPLAINED_SPLITS:
        source = getattr(data, split)
        if source is None:
            continue
        for name, other in kept_apart.items():
            if source == other:
                raise DataError(f"data.{split} and data.{name} are both {source}; only rows to train on are explained")
        if re.search(r":test\b", source) and not Path(source).exists():  # a split of a data set on the Hub
            raise DataError(f"data.{split} is {source}, a test split; only rows to train on are explained")
