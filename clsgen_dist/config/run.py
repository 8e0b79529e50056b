"""A whole run configuration: composed, checked, loaded, written."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from clsgen_dist.config import sections
from clsgen_dist.config.checkpoint import Checkpoint
from clsgen_dist.config.evaluate import Evaluate
from clsgen_dist.config.explain import Explain
from clsgen_dist.config.predict import Predict
from clsgen_dist.config.rules import broken_rules
from clsgen_dist.config.sections import Section
from clsgen_dist.config.services import Ray, Tracking
from clsgen_dist.config.source import ConfigSource, Keys, apply_overrides, dump_tree, read_source
from clsgen_dist.config.train import Train
from clsgen_dist.config.verbalize import Verbalize
from clsgen_dist.errors import ConfigError

#: Faults that one message lists.
_MOST_FAULTS = 12

SomeSection = TypeVar("SomeSection", bound=Section)


class RunConfig(Section):
    """Everything that decides what a run does. Resolved once, by the launcher, and written into the run folder."""

    run: sections.Run
    task: sections.Task
    data: sections.Data
    model: sections.Model
    objective: sections.Objective = Field(sections.Objective())
    train: Train = Field(Train())
    checkpoint: Checkpoint = Field(Checkpoint())
    explain: Explain = Field(Explain())
    calibrate: sections.Calibrate = Field(sections.Calibrate())
    verbalize: Verbalize = Field(Verbalize())
    predict: Predict = Field(Predict())
    evaluate: Evaluate = Field(Evaluate())
    tracking: Tracking = Field(Tracking())
    ray: Ray = Field(Ray())

    @property
    def folder(self) -> Path:
        """The run folder, absolute."""
        return (Path(self.run.output_dir) / self.run.name).absolute()

    @property
    def stored_at(self) -> str | None:
        """Address of the run in its object store; None where it stands in its folder alone."""
        return None if self.run.storage is None else f"{self.run.storage.rstrip('/')}/{self.run.name}"

    @property
    def num_labels(self) -> int:
        return len(self.task.labels)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads, overrides and checks a configuration.

    Args:
        path: YAML file.
        overrides: words of the command line, as `--train.learning_rate 1e-4`.

    Raises:
        ConfigError: all that is wrong, a line a fault, each with its place and the nearest valid key.
    """
    source = read_source(Path(path))
    apply_overrides(source, overrides)
    return build_config(source)


def build_config(source: ConfigSource) -> RunConfig:
    """Checks a tree of settings. Raises ConfigError as `load_config` does."""
    _name_label_values(source.tree)
    config = validated(source, RunConfig)
    faults = broken_rules(config)
    if faults:
        raise ConfigError("\n".join(f"{source.place(fault.keys)}: {fault.message}" for fault in faults))
    return config


def validated(source: ConfigSource, model: type[SomeSection]) -> SomeSection:
    """A tree of settings as a section of this kind. Raises ConfigError: a line a fault."""
    for keys, text in source.texts.items():
        _keep_words(source.tree, keys, text)
    try:
        return model.model_validate(source.tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(source, error))) from None


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, every setting spelled out; reads back as the same configuration."""
    return dump_tree(config.model_dump(mode="json"))


def differing_keys(one: RunConfig, other: RunConfig) -> list[str]:
    """Dotted names of the settings in which two configurations differ."""
    left, right = dict(leaves(one.model_dump())), dict(leaves(other.model_dump()))
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting: its dotted name and its field, in the order of the sections."""
    yield from _fields(RunConfig, "")


def help_text() -> str:
    """A line a setting: name, type, default, meaning with unit."""
    lines = []
    for name, info in settings():
        default = "required" if info.is_required() else f"default {_plain(info.get_default())}"
        lines.append(f"  --{name} {_type_name(info.annotation)}\n        {info.description} ({default})")
    return "\n".join(lines)


def _fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        section = _section_of(info.annotation)
        if section is None or info.description:
            yield prefix + name, info
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.")


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


_TYPE_NAMES = {str: "text", int: "integer", float: "number", bool: "true | false", type(None): "null"}


def _type_name(annotation: Any) -> str:
    """A type as a user would say it: `integer or null`, `bf16 | fp32`, `list of text`."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, parts))
    if origin is typing.Annotated:
        return _type_name(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_type_name, parts))
    if origin is list:
        return f"list of {_type_name(parts[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return _TYPE_NAMES[annotation]


def _plain(value: Any) -> str:
    """A default on one line, as it would stand in a configuration file."""
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, str):
        return value.replace("\n", "\\n")
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value)


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting of a dumped configuration: its dotted name and its value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _keep_words(tree: dict[str, Any], keys: Keys, text: str) -> None:
    """An override of a text setting is the text as typed: `--run.name 7` means the name "7"."""
    info = dict(settings()).get(".".join(map(str, keys)))
    if info is None or not _takes_text(info.annotation) or text == "null":
        return
    if text.lstrip().startswith("[") and _type_name(info.annotation) != "text":
        return
    branch = tree
    for key in keys[:-1]:
        branch = branch[str(key)]
    branch[str(keys[-1])] = text


def _takes_text(annotation: Any) -> bool:
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return str in (typing.get_args(annotation) if is_union else (annotation,))


def _name_label_values(tree: dict[str, Any]) -> None:
    """Keys of label_map are values of a column (1, true, "x"); rows are compared with them as text."""
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("label_map"), dict):
        data["label_map"] = {label_text(key): value for key, value in data["label_map"].items()}


def label_text(value: object) -> str:
    """A label's value as text, the same for 1, 1.0 and "1", for true and "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _faults(source: ConfigSource, error: ValidationError) -> list[str]:
    """A line a fault. Of a setting that takes one of several types, only the type that came closest is reported."""
    fields, lines = dict(settings()), dict[Keys, str]()
    for number, fault in enumerate(error.errors()):
        if len(lines) == _MOST_FAULTS:
            return [*lines.values(), f"and {error.error_count() - number:,} further faults"]
        keys: Keys = tuple(fault["loc"])
        ends = (end for end in range(1, len(keys)) if _is_choice(fields.get(".".join(map(str, keys[:end])))))
        end = next(ends, None)
        if end is None:
            lines[keys] = _fault(source, keys, dict(fault))
        elif keys[end + 1 :]:  # keys[end] is pydantic's name of the type
            lines[keys[:end]] = _fault(source, (*keys[:end], *keys[end + 1 :]), dict(fault))
        else:
            name = ".".join(map(str, keys[:end]))
            expected = f"expected {_type_name(fields[name].annotation)}; found {_shown(fault['input'])}"
            lines.setdefault(keys[:end], f"{source.place(keys[:end])}: {name}: {expected}")
    return list(lines.values())


def _is_choice(info: FieldInfo | None) -> bool:
    return info is not None and len([part for part in typing.get_args(info.annotation) if part is not type(None)]) > 1


def _fault(source: ConfigSource, keys: Keys, fault: dict[str, Any]) -> str:
    name = ".".join(map(str, keys))
    place = source.place(keys)
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {name}; {_nearest(name)}"
    if fault["type"] == "missing":
        return f"{place}: {name} is missing, and has no default"
    message = fault["msg"].removeprefix("Value error, ")
    found = "" if fault["type"] == "value_error" else f"; found {_shown(fault['input'])}"
    return f"{place}: {name}: {message}{found}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _nearest(name: str) -> str:
    """The valid key that an unknown one most likely means, its own section first; else what there is."""
    section, _, leaf = name.rpartition(".")
    known = [*RunConfig.model_fields, *(full for full, _ in settings())]
    leaves = {full.rpartition(".")[2]: full for full in reversed(known)}
    siblings = [full.rpartition(".")[2] for full in known if full.rpartition(".")[0] == section]
    prefix = f"{section}." if section else ""
    close = (
        difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        + [prefix + near for near in difflib.get_close_matches(leaf, siblings, n=1)]
        + [leaves[near] for near in difflib.get_close_matches(leaf, list(leaves), n=1, cutoff=0.8)]
    )
    if close:
        return f"the nearest valid key is {close[0]}"
    return f"{section or 'a configuration'} has {', '.join(siblings)}" if siblings else "there is no such section"
