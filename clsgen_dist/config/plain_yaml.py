"""YAML as configurations use it: plain values, nothing that runs, nothing that grows without end.

Of YAML's tags only those of plain values are read. Aliases are read as long as what they stand for stays small: thirty
lines of them can stand for a billion values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

#: Values that a file may hold, aliases written out.
MOST_VALUES = 100_000

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `no` and `TRUE` are label names and 1e-4 is a number, which YAML 1.1 denies."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own form


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something else than text."""


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"null|~|", ["n", "~", ""]),
):
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _plain(kind: str, convert: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    def construct(loader: Any, node: Any) -> Any:
        value = loader.construct_scalar(node)
        try:
            return convert(value)
        except (ValueError, LookupError):
            raise ConstructorError(None, None, f"{value[:40]!r} is no {kind}", node.start_mark) from None

    return construct


# A loader with dates, sets and bytes reads values that no setting has, and fails in ways of its own.
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "str", "seq", "map")
}
_Loader.add_constructor("tag:yaml.org,2002:bool", _plain("bool", {"true": True, "false": False}.__getitem__))
# YAML 1.1 reads 010 as eight.
_Loader.add_constructor("tag:yaml.org,2002:int", _plain("int", int))
_Loader.add_constructor("tag:yaml.org,2002:float", _plain("float", float))


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """One YAML document.

    Returns:
        Its nodes, which know their lines, and its value.

    Raises:
        yaml.YAMLError: it is none, or holds more than `MOST_VALUES`, a tag of something that is no plain value, or half
            of a character.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None, None
        _size(root, {})
        return root, loader.construct_document(root)
    except RecursionError:
        raise ConstructorError(None, None, "nested too deeply", None) from None


def dump_tree(tree: dict[str, Any]) -> str:
    """A tree of plain values as YAML; `parse_yaml` reads the same tree back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Values that a node stands for, itself included.

    Args:
        node: a node; an alias is the very node of its anchor.
        known: sizes by identity, None while a node is being measured.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ConstructorError(None, None, "an alias that holds itself", node.start_mark)
        return size
    known[id(node)] = None
    size = 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag == _MERGE:
                raise ConstructorError(None, None, "merge keys (!!merge) are not read", key.start_mark)
            size += _size(key, known) + _size(value, known)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(child, known) for child in node.value)
    elif any("\ud800" <= letter <= "\udfff" for letter in node.value):
        raise ConstructorError(
            None, None, "not text: half of a character, as \\ud83d without its second half is", node.start_mark
        )
    if size > MOST_VALUES:
        raise ConstructorError(
            None, None, f"anchors and aliases (*a0) that stand for more than {MOST_VALUES:,} values", node.start_mark
        )
    known[id(node)] = size
    return size
