"""Settings of a prediction or an evaluation with a finished bundle, whose task is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from clsgen_dist.config import sections
from clsgen_dist.config.chat_rules import JUDGE_RULES
from clsgen_dist.config.decision_rules import DECISION_RULES
from clsgen_dist.config.evaluate import Evaluate
from clsgen_dist.config.predict import Predict
from clsgen_dist.config.predict_rules import PREDICT_RULES
from clsgen_dist.config.run import validated
from clsgen_dist.config.sections import Section
from clsgen_dist.config.services import Ray
from clsgen_dist.config.source import ConfigSource, apply_overrides
from clsgen_dist.errors import ConfigError


class AssessConfig(Section):
    """The sections that a prediction or an evaluation reads."""

    run: sections.Run
    task: sections.Task
    predict: Predict
    calibrate: sections.Calibrate = Field(sections.Calibrate())
    evaluate: Evaluate = Field(Evaluate())
    ray: Ray = Field(Ray())


def assess_config(task: sections.Task, run: str, limits: Mapping[str, Any], overrides: Sequence[str]) -> AssessConfig:
    """Settings of a prediction or an evaluation, those of the bundle by default.

    Args:
        task: of the bundle.
        run: name of its run.
        limits: its settings of `predict`.
        overrides: words of the command line, as `--evaluate.num_bins 10`.

    Raises:
        ConfigError: an unknown key, a wrong type, or a combination that cannot work.
    """
    tree = {"run": {"name": run}, "task": task.model_dump(mode="json"), "predict": dict(limits)}
    source = ConfigSource(tree=tree, places={(): "bundle"})
    apply_overrides(source, overrides)
    config = validated(source, AssessConfig)
    # A type of its own, with all the sections that these rules read.
    broken = [rule for rule in (*JUDGE_RULES, *DECISION_RULES, *PREDICT_RULES) if rule.broken(config)]  # type: ignore[arg-type]
    if broken:
        raise ConfigError("\n".join(f"{source.place(r.keys)}: {r.combination}: {r.reason}" for r in broken))
    return config
