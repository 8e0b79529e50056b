"""What a rule on combinations of settings is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clsgen_dist.config.run import RunConfig


@dataclass(frozen=True)
class Fault:
    """A broken rule: the keys it is about and what to say."""

    keys: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class Rule:
    """A combination that cannot work.

    Attributes:
        keys: the setting to point at.
        combination: the settings, in words, for the table.
        reason: why they cannot work, and the way out.
        broken: whether a configuration has the combination; or the dotted names of the settings that are at fault.
    """

    keys: tuple[str, ...]
    combination: str
    reason: str
    broken: Callable[[RunConfig], bool | list[str]]
