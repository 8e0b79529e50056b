"""Settings of a comparison: one base configuration, and the arms that differ from it by overrides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

from clsgen_dist.config.sections import Count, Section
from clsgen_dist.config.source import ConfigSource
from clsgen_dist.errors import ConfigError

Kind = Literal["trained", "zero_shot_label_tokens", "zero_shot_verbalised", "bag_of_words", "conditioned"]

#: Overrides under which no head is trained and the words of the verdict decide.
WORDS_ONLY: Mapping[str, JsonValue] = {
    "objective.w_cls": 0.0,
    "objective.label_smoothing": 0.0,
    "objective.class_weights": None,
    "train.head_warmup_steps": 0,
}

#: Overrides under which nothing holds the tuned model to its base.
NOT_HELD: Mapping[str, JsonValue] = {
    "objective.kl_weight": 0.0,
    "objective.general_weight": 0.0,
    "objective.general_passages": 4,
    "objective.general_tokens": 64,
    "data.general_text": None,
}


class Arm(Section):
    """One way to probabilities and explanations."""

    name: str = Field(description="its name; its run folders are OUTPUT_DIR/NAME/ARM-SEED", pattern=r"^[a-z0-9]\w*$")
    kind: Kind = Field(
        "trained",
        description="trained: the base configuration with the overrides; zero_shot_label_tokens: the backbone as it "
        "is, probabilities from the words of the verdicts; zero_shot_verbalised: the backbone is asked for "
        "probabilities in words; bag_of_words: TF-IDF and logistic regression; conditioned: no run of its own, the "
        "explanations of the arm `of` that follow its head",
    )
    of: str | None = Field(None, description="arm whose models a conditioned arm shares")
    overrides: dict[str, JsonValue] = Field({}, description="settings of the base that this arm changes, dotted: value")


#: The arms of the comparison that the CLSGen paper makes, with those that people ask for beside it.
DEFAULT_ARMS = (
    Arm(name="zero_shot_label_tokens", kind="zero_shot_label_tokens"),
    Arm(name="zero_shot_verbalised", kind="zero_shot_verbalised"),
    Arm(name="bag_of_words", kind="bag_of_words"),
    Arm(name="discriminative", overrides={"objective.w_gen": 0.0, **NOT_HELD}),
    Arm(name="generative", overrides={**WORDS_ONLY, **NOT_HELD}),
    Arm(name="joint", overrides={**NOT_HELD}),
    Arm(name="joint_kl", overrides={**NOT_HELD, "objective.kl_weight": 1.0}),
    Arm(name="joint_general", overrides={"objective.kl_weight": 0.0, "objective.general_weight": 2.0}),
    Arm(name="joint_conditioned", kind="conditioned", of="joint"),
)


class Compare(Section):
    """The file that launchers/compare.py reads."""

    name: str = Field(description="name; its folder is OUTPUT_DIR/NAME", pattern=r"^[A-Za-z0-9][\w.-]*$")
    base: str | dict[str, JsonValue] = Field(description="configuration of a run: a YAML file, or its sections here")
    overrides: dict[str, JsonValue] = Field({}, description="settings of the base to change for all arms")
    seeds: Count = Field(3, description="runs of each trained arm, with run.seed, run.seed + 1 and so on")
    arms: list[Arm] = Field(list(DEFAULT_ARMS), description="what is compared", min_length=1)

    @field_validator("arms")
    @classmethod
    def _arms_fit_together(cls, arms: list[Arm]) -> list[Arm]:
        names = [arm.name for arm in arms]
        for arm in arms:
            if names.count(arm.name) > 1:
                raise ValueError(f"{arm.name} stands there twice")
            if (arm.of is None) == (arm.kind == "conditioned"):
                raise ValueError(f"{arm.name}: `of` belongs to arms of kind conditioned, and they need it")
            if arm.of is not None and (arm.of not in names or arms[names.index(arm.of)].kind != "trained"):
                raise ValueError(f"{arm.name}: of {arm.of}, expected the name of a trained arm in the list")
            if arm.overrides and arm.kind in ("conditioned", "bag_of_words"):
                raise ValueError(f"{arm.name}: an arm of kind {arm.kind} has no use for overrides")
        return arms


def checked_compare(source: ConfigSource) -> Compare:
    """A tree of settings as a comparison. Raises ConfigError: a line a fault, with its place."""
    try:
        return Compare.model_validate(source.tree)
    except ValidationError as error:
        lines: dict[str, None] = {}
        for fault in error.errors():
            keys = fault["loc"]
            own = Arm if keys[0] == "arms" else Compare
            name, message = ".".join(map(str, keys)), fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                near = difflib.get_close_matches(str(keys[-1]), own.model_fields, n=1)
                hint = f"the nearest valid key is {near[0]}" if near else f"there are {', '.join(own.model_fields)}"
                message = f"unknown key; {hint}"
            lines[f"{source.place(keys)}: {name}: {message}"] = None
        raise ConfigError("\n".join(lines)) from None


def chosen_arms(arms: Sequence[Arm], names: str | None) -> list[Arm]:
    """The arms with these names, with commas between them; all of them for None. Raises ConfigError."""
    if names is None:
        return list(arms)
    wanted = [name.strip() for name in names.split(",")]
    known = {arm.name: arm for arm in arms}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--arms: no arm {name!r}; there are {', '.join(known)}")
        of = known[name].of
        if of is not None and of not in wanted:
            raise ConfigError(f"--arms: {name} shares the models of {of}; name that arm, too")
    return [arm for arm in arms if arm.name in wanted]


def compare_help() -> str:
    """A line a setting of the file."""
    lines = ["Settings of the file of the comparison:", ""]
    for title, section in (("", Compare), ("arms: a list, of each arm: ", Arm)):
        for name, info in section.model_fields.items():
            default = "required" if info.is_required() else "" if name == "arms" else f"default {info.get_default()!r}"
            lines.append(f"  {title}{name}\n        {info.description}" + (f" ({default})" if default else ""))
    lines += ["", f"Without `arms` there are {', '.join(arm.name for arm in DEFAULT_ARMS)}."]
    return "\n".join(lines)
