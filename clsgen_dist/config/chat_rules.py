"""Combinations that cannot work where a chat model is asked: settings without a use, and those that are missing."""

from __future__ import annotations

from clsgen_dist.config.chat import ENDPOINT_ONLY, LOCAL_ONLY, ChatSettings
from clsgen_dist.config.rule import Rule

#: Settings of `explain` that only some teachers have a use for, beside those of an endpoint.
_LOCAL_ONLY = (*LOCAL_ONLY, "num_workers")
_MODEL_ONLY = ("model", "guidance", "temperature", "max_tokens")
_TAUGHT_ONLY = ("tries", "rescue_tries", "num_samples")

#: Settings of `evaluate.judge` that only that reader has a use for.
_JUDGE_ONLY = ("model", "max_tokens", *ENDPOINT_ONLY)


def _listed(section: str, names: tuple[str, ...]) -> str:
    """Settings of a section in words."""
    return f"{section}." + ", ".join(names[:-1]) + f" or {names[-1]}"


def _set(section: ChatSettings, names: tuple[str, ...]) -> list[str]:
    """Those of the named settings of a section that somebody set."""
    return [f"{section.section}.{name}" for name in section.changed(names)]


#: Needs labels and floor alone, so it holds for answers that were collected elsewhere, too.
FLOOR_RULE = Rule(
    ("verbalize", "floor"),
    "verbalize.floor of 1 / (number of task.labels) or more",
    "every label would be said to have at least its even share; take a smaller one, or null",
    lambda c: c.verbalize.floor is not None and c.verbalize.floor >= 1 / len(c.task.labels),
)

JUDGE_RULES = (
    Rule(
        ("evaluate", "readers"),
        "evaluate.readers that names a reader twice",
        "each reads an explanation once; name it once",
        lambda c: len(set(c.evaluate.readers)) < len(c.evaluate.readers),
    ),
    Rule(
        ("evaluate", "readers"),
        "evaluate.readers with judge, without evaluate.judge.base_url or evaluate.judge.model",
        "name the endpoint, as http://HOST:8000/v1, and the model that answers there",
        lambda c: "judge" in c.evaluate.readers and not (c.evaluate.judge.base_url and c.evaluate.judge.model),
    ),
    Rule(
        ("evaluate", "readers"),
        f"{_listed('evaluate.judge', _JUDGE_ONLY)} without judge in evaluate.readers",
        "nobody is asked; take the setting away, or name the reader judge",
        lambda c: _set(c.evaluate.judge, _JUDGE_ONLY) if "judge" not in c.evaluate.readers else [],
    ),
    Rule(
        ("evaluate", "judge"),
        "evaluate.judge.batch_size",
        "a judge is asked at an endpoint, which has evaluate.judge.requests_in_flight; only local models have batches",
        lambda c: _set(c.evaluate.judge, LOCAL_ONLY),
    ),
    Rule(
        ("evaluate", "judge", "budget_cost"),
        "evaluate.judge.budget_cost without evaluate.judge.input_price or evaluate.judge.output_price",
        "without prices nothing is known of the cost; set them, or use evaluate.judge.budget_tokens",
        lambda c: (
            c.evaluate.judge.budget_cost is not None
            and not (c.evaluate.judge.input_price or c.evaluate.judge.output_price)
        ),
    ),
)

CHAT_RULES = (
    Rule(
        ("explain", "teacher"),
        "explain.teacher endpoint without explain.base_url or explain.model",
        "name the endpoint, as http://HOST:8000/v1, and the model that answers there",
        lambda c: c.explain.teacher == "endpoint" and not (c.explain.base_url and c.explain.model),
    ),
    Rule(
        ("explain", "teacher"),
        "explain.teacher local without explain.model",
        "name the folder or the Hub name of the model that writes the reasons",
        lambda c: c.explain.teacher == "local" and not c.explain.model,
    ),
    Rule(
        ("explain", "budget_cost"),
        "explain.budget_cost without explain.input_price or explain.output_price",
        "without prices nothing is known of the cost; set them, or use explain.budget_tokens",
        lambda c: c.explain.budget_cost is not None and not (c.explain.input_price or c.explain.output_price),
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed('explain', ENDPOINT_ONLY)} with another teacher than endpoint",
        "only an endpoint has an address, a pace, a budget and a price; take the setting away",
        lambda c: _set(c.explain, ENDPOINT_ONLY) if c.explain.teacher != "endpoint" else [],
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed('explain', _LOCAL_ONLY)} with another teacher than local",
        "only a local model answers in batches and is spread over a Ray cluster; an endpoint has "
        "explain.requests_in_flight",
        lambda c: _set(c.explain, _LOCAL_ONLY) if c.explain.teacher != "local" else [],
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed('explain', _MODEL_ONLY)} with explain.teacher column or evidence",
        "no chat model is asked; take the setting away, or take teacher endpoint or local",
        lambda c: _set(c.explain, _MODEL_ONLY) if not c.explain.asks_a_model else [],
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed('explain', _TAUGHT_ONLY)} with explain.teacher column",
        "people wrote one reason a row; nobody is asked for another one",
        lambda c: _set(c.explain, _TAUGHT_ONLY) if c.explain.teacher == "column" else [],
    ),
    Rule(
        ("explain", "checks", "drop_written"),
        "explain.checks.drop_written with another teacher than column",
        "only that teacher's reasons were written by people; the others' are always refused where a check fails",
        lambda c: c.explain.checks.drop_written and c.explain.teacher != "column",
    ),
    Rule(
        ("explain", "checks", "min_tokens"),
        "explain.checks.min_tokens above explain.checks.max_tokens",
        "no reason could have the right length",
        lambda c: c.explain.checks.min_tokens > c.explain.checks.max_tokens,
    ),
    Rule(
        ("verbalize", "source"),
        "verbalize.source endpoint without verbalize.base_url or verbalize.model",
        "name the endpoint, as http://HOST:8000/v1, and the model that answers there",
        lambda c: c.verbalize.source == "endpoint" and not (c.verbalize.base_url and c.verbalize.model),
    ),
    Rule(
        ("verbalize", "source"),
        "verbalize.source local without verbalize.model",
        "name the folder or the Hub name of the model that is asked",
        lambda c: c.verbalize.source == "local" and not c.verbalize.model,
    ),
    Rule(
        ("verbalize", "model"),
        "verbalize.model with verbalize.source bundle",
        "the language model of the run's own bundle is asked; take the setting away, or take source local",
        lambda c: c.verbalize.source == "bundle" and c.verbalize.model is not None,
    ),
    Rule(
        ("verbalize", "source"),
        f"{_listed('verbalize', ENDPOINT_ONLY)} with another source than endpoint",
        "only an endpoint has an address, a pace, a budget and a price; take the setting away",
        lambda c: _set(c.verbalize, ENDPOINT_ONLY) if c.verbalize.source != "endpoint" else [],
    ),
    Rule(
        ("verbalize", "guided"),
        "verbalize.guided with verbalize.prompt incremental",
        "JSON alone cannot hold the steps before it; take prompt direct",
        lambda c: c.verbalize.guided and c.verbalize.prompt == "incremental",
    ),
    Rule(
        ("verbalize", "source"),
        f"{_listed('verbalize', (*LOCAL_ONLY, 'token_probabilities'))} with verbalize.source endpoint",
        "only a model with open weights on this machine answers in batches and shows its tokens",
        lambda c: _set(c.verbalize, (*LOCAL_ONLY, "token_probabilities")) if c.verbalize.source == "endpoint" else [],
    ),
    FLOOR_RULE,
    *JUDGE_RULES,
)
