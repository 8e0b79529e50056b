"""The file of a comparison -> its jobs: a run configuration for each arm and seed, all on the same frozen rows.

Everything a user can mend is found here, before anything heavy is loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsgen_dist.compare.frozen import COLUMNS, frozen_file, reference_columns
from clsgen_dist.config.compare import NOT_HELD, WORDS_ONLY, Arm, Compare, checked_compare, chosen_arms
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.going_on import changed_settings
from clsgen_dist.config.run import RunConfig, build_config, load_config
from clsgen_dist.config.source import ConfigSource, apply_overrides, put_value, read_source
from clsgen_dist.errors import ConfigError
from clsgen_dist.launch import config_path, parse_words
from clsgen_dist.records import SPLITS

#: Name of the run folder that holds the rows of a comparison; no arm is called so, as theirs end in a seed.
ROWS = "rows"

#: What an arm must leave alone, or its rows would be others, and what belongs to the comparison.
_SHARED = ("run.", "explain.", "tracking.", "task.labels", "calibrate.prior")
_OWN_LIMITS = ("data.general_text", "data.max_prompt_tokens", "data.max_explanation_tokens")

#: The least adapter there is: it changes nothing before it is trained, and keeps the bundle small.
_UNTRAINED: Mapping[str, Any] = {
    **WORDS_ONLY,
    **NOT_HELD,
    "objective.w_gen": 1.0,
    "objective.kl_weight": 0.0,
    "model.lora": {"rank": 1, "alpha": 1.0},
}


@dataclass(frozen=True)
class Job:
    """One run of a comparison.

    Attributes:
        arm: whose run it is.
        config: what is run, complete.
    """

    arm: Arm
    config: RunConfig

    @property
    def name(self) -> str:
        """ARM-SEED."""
        return self.config.run.name

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.config.folder)

    @property
    def is_finished(self) -> bool:
        """Whether it was run to the end, with whatever settings."""
        return self.folder.config.is_file() and (self.folder.evaluation("test") / "metrics.json").is_file()


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        name: of the comparison.
        folder: where everything of it stands: OUTPUT_DIR/NAME, absolute.
        rows: the run whose rows all arms share.
        arms: in the order to show them.
        jobs: what is run, arm by arm.
        num_seeds: runs of each trained arm.
    """

    name: str
    folder: Path
    rows: RunConfig
    arms: tuple[Arm, ...]
    jobs: tuple[Job, ...]
    num_seeds: int


def comparison_of(words: Sequence[str]) -> Comparison:
    """The comparison that a command line of launchers/compare.py asks for. Raises as `load_comparison` does."""
    found, overrides = parse_words(words, ("seeds", "arms"))
    return load_comparison(config_path(found), overrides, seeds=found.get("seeds"), arms=found.get("arms"))


def load_comparison(
    path: str, overrides: Sequence[str] = (), *, seeds: str | None = None, arms: str | None = None
) -> Comparison:
    """Reads the file of a comparison.

    Args:
        path: YAML file.
        overrides: words of the command line that change the base, as `--train.learning_rate 1e-4`.
        seeds: runs of each trained arm, in the place of the file's.
        arms: names of the arms to compare, with commas between them; None: all of the file's.

    Raises:
        ConfigError: all that is wrong with the file, with the base, or with the base as an arm changes it; or a run
            folder that holds an arm with other settings.
    """
    source = read_source(Path(path))
    if seeds is not None:
        if not seeds.isdigit() or int(seeds) < 1:
            raise ConfigError(f"--seeds: found {seeds!r}, expected a whole number of 1 or more")
        source.tree["seeds"] = int(seeds)
    settings = checked_compare(source)
    base = _base(settings, source)
    apply_overrides(base, overrides)
    asked = build_config(copy.deepcopy(base))
    if asked.run.storage is not None:
        raise ConfigError(
            f"{path}: run.storage {asked.run.storage}: arms read each other's folders, so a comparison stands in a "
            "folder that all nodes see; give its path in run.output_dir, and leave run.storage out"
        )
    folder = (Path(asked.run.output_dir) / settings.name).absolute()
    # Its own name is that of the comparison; everything else that it is called goes into the rows.
    for key, value in (("name", ROWS), ("output_dir", str(folder))):
        put_value(base, ("run", key), value, f"{path}: name")
    uri = asked.tracking.uri or f"sqlite:///{folder.parent / 'mlflow.db'}"
    put_value(base, ("tracking", "uri"), uri, path)
    rows = build_config(copy.deepcopy(base))
    chosen = chosen_arms(settings.arms, arms)
    jobs = [job for arm in chosen for job in _jobs(arm, base, rows, source, settings)]
    for job in jobs:
        _refuse_another(job)
    return Comparison(settings.name, folder, rows, tuple(chosen), tuple(jobs), settings.seeds)


def _base(settings: Compare, source: ConfigSource) -> ConfigSource:
    """The base as a tree of its own, with the overrides of the file."""
    if isinstance(settings.base, str):
        base = read_source(Path(settings.base))
    else:
        places = {keys[1:]: place for keys, place in source.places.items() if keys[:1] == ("base",)}
        base = ConfigSource(copy.deepcopy(source.tree["base"]), places)
    for name, value in settings.overrides.items():
        put_value(base, _keys(name, source.place(("overrides", name))), value, source.place(("overrides", name)))
    return base


def _keys(name: str, place: str) -> tuple[str, ...]:
    keys = tuple(name.split("."))
    if len(keys) < 2 or not all(keys):
        raise ConfigError(f"{place}: {name}: expected a dotted name, as train.learning_rate")
    return keys


def _jobs(arm: Arm, base: ConfigSource, rows: RunConfig, source: ConfigSource, settings: Compare) -> list[Job]:
    if arm.kind == "conditioned":
        return []
    if arm.kind.startswith("zero_shot") and rows.model.from_scratch is not None:
        raise ConfigError(
            f"arm {arm.name}: a backbone that is made from scratch knows nothing before it is trained, so there is no "
            "zero shot; name a backbone in model.name_or_path, or leave the arm out of `arms`"
        )
    number = settings.arms.index(arm)
    num_seeds = settings.seeds if arm.kind == "trained" else 1  # the others draw nothing
    return [Job(arm, _config(arm, base, rows, source, number, rows.run.seed + offset)) for offset in range(num_seeds)]


def _config(arm: Arm, base: ConfigSource, rows: RunConfig, source: ConfigSource, number: int, seed: int) -> RunConfig:
    own = copy.deepcopy(base)
    put_value(own, ("data",), _data(rows), f"arm {arm.name}")
    put_value(own, ("explain",), {"teacher": "column"}, f"arm {arm.name}")
    put_value(own, ("run", "name"), f"{arm.name}-{seed}", f"arm {arm.name}")
    put_value(own, ("run", "seed"), seed, f"arm {arm.name}")
    for name, value in _of_kind(arm, rows).items():
        put_value(own, _keys(name, arm.name), value, f"arm {arm.name}")
    for name, value in arm.overrides.items():
        place = source.place(("arms", number, "overrides", name)) or f"arm {arm.name}"
        if name.startswith(_SHARED) or (name.startswith("data.") and name not in _OWN_LIMITS):
            raise ConfigError(
                f"{place}: arm {arm.name}: {name} is the same for all arms, or they would not be compared on the same "
                "rows; set it in the base, or in `overrides` of the comparison"
            )
        put_value(own, _keys(name, place), value, place)
    if own.tree["model"].get("name_or_path") and Path(own.tree["model"]["name_or_path"]).is_dir():
        # As the pipeline writes it into the run folder, so that the two can be compared.
        own.tree["model"]["name_or_path"] = str(Path(own.tree["model"]["name_or_path"]).absolute())
    try:
        return build_config(own)
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {error}") from None


def _data(rows: RunConfig) -> dict[str, Any]:
    """The section `data` of every arm: the frozen files, with columns of their own."""
    data, folder = rows.data, Path(rows.run.output_dir)
    is_true_known = data.vignettes is not None or data.true_probability_column is not None
    return {
        **{split: str(frozen_file(folder, split)) for split in SPLITS},
        **{f"{name}_column": column for name, column in COLUMNS.items() if name != "true_probability"},
        "true_probability_column": COLUMNS["true_probability"] if is_true_known else None,
        "subgroup_columns": data.subgroup_columns,
        "reference_columns": reference_columns(rows),
        "allow_shared_groups": data.allow_shared_groups,
        "general_text": data.general_text,
        "max_prompt_tokens": data.max_prompt_tokens,
        "max_explanation_tokens": data.max_explanation_tokens,
    }


def _of_kind(arm: Arm, rows: RunConfig) -> Mapping[str, Any]:
    """What an arm is made of before its own overrides."""
    if arm.kind == "zero_shot_label_tokens":
        return _UNTRAINED
    if arm.kind == "zero_shot_verbalised" and rows.verbalize.source == "bundle":
        own: dict[str, Any] = {"verbalize.source": "local", "verbalize.model": rows.model.name_or_path}
        own |= {"verbalize.token_probabilities": False}  # an arm of their own
        return {name: value for name, value in own.items() if "verbalize.source" not in arm.overrides}
    return {}


def _refuse_another(job: Job) -> None:
    if not job.folder.config.is_file():
        return
    changed = changed_settings(job.config, load_config(job.folder.config))
    if changed:
        raise ConfigError(
            f"{job.folder.path} holds this arm with other settings (differs in {', '.join(changed[:6])}); choose "
            "another name for the comparison, or go back to the settings in its config.yaml"
        )
