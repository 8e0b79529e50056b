"""YAML text and dotted overrides -> one plain tree that remembers where each value stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clsgen_dist.config.plain_yaml import dump_tree, parse_yaml
from clsgen_dist.errors import ConfigError

__all__ = ["ConfigSource", "Keys", "apply_overrides", "dump_tree", "parse_value", "put_value", "read_source"]

Keys = tuple[str | int, ...]

#: Bytes of a configuration file, at most; the longest shipped one has a thousandth of them.
MOST_BYTES = 4_000_000


@dataclass
class ConfigSource:
    """A tree of settings and, for messages, the place of every key.

    Attributes:
        tree: nested plain values.
        places: path of keys -> "FILE:LINE" or "--dotted.key".
        texts: path of keys -> the words of an override as they were typed.
    """

    tree: dict[str, Any] = field(default_factory=dict)
    places: dict[Keys, str] = field(default_factory=dict)
    texts: dict[Keys, str] = field(default_factory=dict)

    def place(self, keys: Keys) -> str:
        """Where a key stands; of its nearest parent where it stands nowhere."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.places:
                return self.places[keys[:end]]
        return self.places.get((), "")


def parse_value(text: str) -> Any:
    """One YAML value, as it would be read from a configuration file. Raises yaml.YAMLError."""
    return parse_yaml(text)[1]


def read_source(path: Path) -> ConfigSource:
    """Reads a YAML file.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, not a mapping, or names a key twice.
    """
    text = _text_of(path)
    try:
        root, tree = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if root is None or not isinstance(tree, dict):
        found = "an empty file" if tree is None else type(tree).__name__
        raise ConfigError(f"{path}: expected sections of settings (run:, task:, ...), found {found}")
    source = ConfigSource(tree=tree, places={(): str(path)})
    _note_places(root, (), path, source, set())
    return source


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(
                f"{path}: expected a configuration file of at most {MOST_BYTES:,} bytes, found a larger one"
            )
        return content.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def _note_places(node: yaml.Node, keys: Keys, path: Path, source: ConfigSource, noted: set[yaml.Node]) -> None:
    if node in noted:  # an alias: its values stand where the anchor does, and an anchor may hold itself
        return
    noted.add(node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"{path}:{line}: {'.'.join(map(str, (*keys, key)))} stands here a second time")
            seen.add(key)
            source.places[(*keys, key)] = f"{path}:{line}"
            _note_places(value_node, (*keys, key), path, source, noted)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            source.places[(*keys, index)] = f"{path}:{child.start_mark.line + 1}"
            _note_places(child, (*keys, index), path, source, noted)


def _forget(source: ConfigSource, keys: Keys) -> None:
    """Drops what is remembered of the values that an override replaces."""
    for inner in [inner for inner in source.places if keys == inner[: len(keys)]]:
        del source.places[inner]
    for other in [other for other in source.texts if keys == other[: len(keys)] or other == keys[: len(other)]]:
        del source.texts[other]


def apply_overrides(source: ConfigSource, words: Sequence[str]) -> None:
    """Writes `--a.b value` and `--a.b=value` into the tree.

    Raises:
        ConfigError: a word that is no override, or an override without a value.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise ConfigError(f"{word!r}: expected --section.key VALUE")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                found = f", found {rest[0]}" if rest else ""
                raise ConfigError(f"--{name}: expected a value after it{found}; --{name}=VALUE takes any text")
            text = rest.pop(0)
        keys = tuple(name.split("."))
        if len(keys) < 2 or not all(keys):
            raise ConfigError(f"--{name}: expected --section.key VALUE, for example --train.learning_rate 1e-4")
        try:
            value = parse_value(text)
        except yaml.YAMLError:
            value = text
        put_value(source, keys, value, f"--{name}")
        source.texts[keys] = text


def put_value(source: ConfigSource, keys: tuple[str, ...], value: Any, place: str) -> None:
    """Writes a value into the tree, over what stood there, and remembers its place."""
    branch = source.tree
    for key in keys[:-1]:
        if not isinstance(branch.get(key), dict):
            branch[key] = {}
        branch = branch[key]
    branch[keys[-1]] = value
    _forget(source, keys)
    source.places[keys] = place
