"""Whether a budget can pay for the rows at all, before any of it is spent."""

from __future__ import annotations

from collections.abc import Mapping

from clsgen_dist.chat.limits import Usage
from clsgen_dist.config.run import RunConfig
from clsgen_dist.errors import ConfigError
from clsgen_dist.explain.memory import TeacherMemory
from clsgen_dist.explain.prompts import blind_messages, guidance_of, reason_messages
from clsgen_dist.records import RowSource

#: Characters of a token, more than of any tokenizer on prose: what comes of it is certainly needed.
_MOST_CHARACTERS_A_TOKEN = 8


def check_budget(config: RunConfig, splits: Mapping[str, RowSource], memory: TeacherMemory) -> None:
    """Refuses a budget that cannot even pay for the prompts of all rows.

    Raises:
        ConfigError: with the least that is needed.
    """
    explain = config.explain
    if explain.budget_tokens is None and explain.budget_cost is None:
        return
    num_rows, least = 0, 0
    for split, rows in splits.items():
        for number, row in enumerate(rows()):
            if row.label is None or memory.outcome(split, number) is not None:
                continue
            num_rows += 1
            messages = reason_messages(config.task, row.text, row.label, guidance_of(explain), None)
            messages += blind_messages(config.task, row.text) if explain.checks.agreement else ()
            least += sum(len(message["content"]) for message in messages) // _MOST_CHARACTERS_A_TOKEN
    needed = memory.usage + Usage(prompt_tokens=least)
    if explain.budget_tokens is not None and needed.tokens > explain.budget_tokens:
        raise ConfigError(
            f"explain.budget_tokens is {explain.budget_tokens:,}; the prompts of {num_rows:,} rows alone bring it to "
            f"{needed.tokens:,} or more, answers not counted: raise it, or take fewer rows with data.max_train_rows"
        )
    cost = needed.cost(explain)
    if explain.budget_cost is not None and cost > explain.budget_cost:
        raise ConfigError(
            f"explain.budget_cost is {explain.budget_cost:,}; the prompts of {num_rows:,} rows alone bring it to "
            f"{cost:,.4f} or more, answers not counted: raise it, or take fewer rows with data.max_train_rows"
        )
