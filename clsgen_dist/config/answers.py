"""Settings of a calibration of answers that were collected elsewhere: neither rows of a data set nor a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from clsgen_dist.config import sections
from clsgen_dist.config.chat_rules import FLOOR_RULE
from clsgen_dist.config.decision_rules import DECISION_RULES
from clsgen_dist.config.evaluate import Evaluate
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import build_config, validated
from clsgen_dist.config.sections import Section
from clsgen_dist.config.source import ConfigSource, apply_overrides, read_source
from clsgen_dist.config.verbalize import READING, Verbalize
from clsgen_dist.errors import ConfigError


class AnswersConfig(Section):
    """The sections that such a calibration reads."""

    run: sections.Run
    task: sections.Task
    calibrate: sections.Calibrate = Field(sections.Calibrate())
    verbalize: Verbalize = Field(Verbalize())
    evaluate: Evaluate = Field(Evaluate())


@dataclass(frozen=True)
class AnswersRequest:
    """What a person asks to calibrate.

    Attributes:
        config: the settings.
        answers: file of answers to measure on, and to fit on its other half where there is no other file.
        calibration_answers: file of answers to fit on, or None.
        output: folder that the results are written to.
    """

    config: AnswersConfig
    answers: Path
    calibration_answers: Path | None
    output: Path


def answers_config(path: str, overrides: Sequence[str]) -> tuple[AnswersConfig, Path]:
    """Reads the settings from a file: that of a whole run, or one with `run` and `task` alone.

    Returns:
        The settings, and the folder in the run folder for the results.

    Raises:
        ConfigError: as `load_config`, or an override without a use where nobody is asked.
    """
    source = read_source(Path(path))
    apply_overrides(source, overrides)
    _refuse_useless(source)
    if {"data", "model"} & source.tree.keys():
        whole = build_config(source)
        config = AnswersConfig(**{name: getattr(whole, name) for name in AnswersConfig.model_fields})
    else:
        config = _checked(source)
    folder = RunFolder((Path(config.run.output_dir) / config.run.name).absolute())
    return config, folder.verbalized


def plain_answers_config(labels: str, overrides: Sequence[str]) -> AnswersConfig:
    """Settings without a file: the labels, the rest as it is by default or overridden.

    Args:
        labels: names of the labels in the order of their numbers, with commas between them.
        overrides: words of the command line, as `--verbalize.floor 0.01`.

    Raises:
        ConfigError: fewer than two labels, an override that is none or has no use where nobody is asked, or a
            combination that cannot work.
    """
    names = [name.strip() for name in labels.split(",")]
    if len(names) < 2 or not all(names):
        raise ConfigError(f"--labels: found {labels!r}, expected two or more names with commas between them, as no,yes")
    tree = {"run": {"name": "answers"}, "task": {"question": "Which label?", "labels": names}}
    source = ConfigSource(tree=tree, places={(): "--labels"})
    apply_overrides(source, overrides)
    _refuse_useless(source)
    return _checked(source)


def decision_config(task: sections.Task, run: str, overrides: Sequence[str]) -> AnswersConfig:
    """Settings of a decision anew for a task that is known, the rest by default or overridden.

    Args:
        task: of the bundle.
        run: name of its run.
        overrides: words of the command line, as `--calibrate.method platt`.

    Raises:
        ConfigError: an unknown key, a wrong type, or a combination that cannot work.
    """
    source = ConfigSource(tree={"run": {"name": run}, "task": task.model_dump(mode="json")}, places={(): "bundle"})
    apply_overrides(source, overrides)
    return _checked(source)


def _checked(source: ConfigSource) -> AnswersConfig:
    config = validated(source, AnswersConfig)
    # A type of its own, with all the sections that these rules read.
    broken = [rule for rule in (FLOOR_RULE, *DECISION_RULES) if rule.broken(config)]  # type: ignore[arg-type]
    if broken:
        raise ConfigError("\n".join(f"{source.place(r.keys)}: {r.combination}: {r.reason}" for r in broken))
    return config


def _refuse_useless(source: ConfigSource) -> None:
    """Refuses words of the command line that say whom to ask, or what else no calibration of given answers reads."""
    asking = Verbalize.model_fields.keys() - set(READING)
    faults = []
    for keys in source.texts:
        if keys[0] == "verbalize" and keys[1] in asking:
            reason = "with --answers nobody is asked; take it away, or leave --answers away to ask a model"
        elif keys[:2] == ("calibrate", "prior"):
            reason = "what is said in words is not shifted to other shares of labels"
        else:
            continue
        faults.append(f"--{'.'.join(map(str, keys))}: has no use with --answers: {reason}")
    if faults:
        raise ConfigError("\n".join(faults))
