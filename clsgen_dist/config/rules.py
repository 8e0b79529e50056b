"""Combinations of settings that cannot work, each with its reason. docs/compatibility.md is made from this list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clsgen_dist.config.chat_rules import CHAT_RULES
from clsgen_dist.config.decision_rules import DECISION_RULES
from clsgen_dist.config.predict_rules import PREDICT_RULES
from clsgen_dist.config.rule import Fault
from clsgen_dist.config.training_rules import TRAINING_RULES
from clsgen_dist.config.zero import read_zero
from clsgen_dist.errors import ConfigError

if TYPE_CHECKING:
    from clsgen_dist.config.run import RunConfig

RULES = (*TRAINING_RULES, *CHAT_RULES, *DECISION_RULES, *PREDICT_RULES)


def broken_rules(config: RunConfig) -> list[Fault]:
    """All rules that a configuration breaks, and what is wrong with its file of ZeRO settings."""
    faults = []
    for rule in RULES:
        found = rule.broken(config)
        if found is True:
            faults.append(Fault(rule.keys, f"{rule.combination}: {rule.reason}"))
        elif found:
            faults += [Fault((*name.split("."),), f"{name} has no use here: {rule.reason}") for name in found]
    try:
        read_zero(config.train.deepspeed)
    except ConfigError as error:
        faults.append(Fault(("train", "deepspeed"), str(error)))
    return faults


def compatibility_table() -> str:
    """The rules as a Markdown table."""
    lines = ["| combination | why it cannot work, and the way out |", "|---|---|"]
    lines += [f"| {rule.combination} | {rule.reason} |" for rule in RULES]
    return "\n".join(lines) + "\n"


def compatibility_page() -> str:
    """docs/compatibility.md; `python -m clsgen_dist.config.rules` prints it."""
    head = "# Settings that do not go together\n\n"
    note = (
        "Every launcher refuses these combinations with exit code 2 before anything heavy is loaded, and names the\n"
        "place of the setting. Made by `make docs` from `clsgen_dist/config/rules.py`; do not edit.\n\n"
    )
    return head + note + compatibility_table()


if __name__ == "__main__":
    print(compatibility_page(), end="")
