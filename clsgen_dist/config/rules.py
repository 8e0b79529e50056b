"""Combinations of settings that cannot work, each with its reason. docs/compatibility.md is made from this list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clsgen_dist.config.chat import ENDPOINT_ONLY, LOCAL_ONLY
from clsgen_dist.config.zero import read_zero
from clsgen_dist.errors import ConfigError

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


#: Settings of `explain` that only some teachers have a use for, beside those of an endpoint.
_LOCAL_ONLY = (*LOCAL_ONLY, "num_workers")
_MODEL_ONLY = ("model", "guidance", "temperature", "max_tokens")
_TAUGHT_ONLY = ("tries", "rescue_tries", "num_samples")


def _listed(names: tuple[str, ...]) -> str:
    """Settings of `explain` in words."""
    return "explain." + ", ".join(names[:-1]) + f" or {names[-1]}"


def _set(config: RunConfig, names: tuple[str, ...]) -> list[str]:
    """Those of the named settings of `explain` that somebody set."""
    return [f"explain.{name}" for name in config.explain.changed(names)]


RULES = (
    Rule(
        ("data",),
        "data.train and data.vignettes both set, or neither",
        "rows come from one place: name a file or data set, or ask for the embedded vignettes",
        lambda c: (c.data.train is None) == (c.data.vignettes is None),
    ),
    Rule(
        ("data", "vignettes"),
        "data.vignettes with data.validation, data.calibration or data.test",
        "the vignettes bring all four splits",
        lambda c: c.data.vignettes is not None and bool(c.data.validation or c.data.calibration or c.data.test),
    ),
    Rule(
        ("data", "vignettes"),
        "data.vignettes with other than two labels",
        "a vignette is drawn with one of two labels",
        lambda c: c.data.vignettes is not None and len(c.task.labels) != 2,
    ),
    Rule(
        ("data", "split_fractions"),
        "data.split_fractions that leave less than half of the rows to train",
        "the three fractions must sum to 0.5 or less",
        lambda c: sum(c.data.split_fractions.model_dump().values()) > 0.5,
    ),
    Rule(
        ("data", "label_map"),
        "data.label_map with a name that task.labels lacks",
        "every value of the map must be one of task.labels",
        lambda c: c.data.label_map is not None and not set(c.data.label_map.values()) <= set(c.task.labels),
    ),
    Rule(
        ("model",),
        "model.name_or_path and model.from_scratch both set, or neither",
        "a run has one backbone: load one, or have a small one made",
        lambda c: (c.model.name_or_path is None) == (c.model.from_scratch is None),
    ),
    Rule(
        ("model", "lora"),
        "model.lora with model.from_scratch",
        "an adapter on random weights learns nothing; set model.lora to null",
        lambda c: c.model.from_scratch is not None and c.model.lora is not None,
    ),
    Rule(
        ("model", "from_scratch"),
        "model.from_scratch with model.gguf_file or model.revision",
        "those belong to a backbone that is loaded",
        lambda c: c.model.from_scratch is not None and bool(c.model.gguf_file or c.model.revision),
    ),
    Rule(
        ("model", "from_scratch", "hidden_size"),
        "model.from_scratch.hidden_size not a multiple of num_heads, or with an odd head width",
        "every attention head has hidden_size / num_heads channels, an even number",
        lambda c: (
            c.model.from_scratch is not None
            and c.model.from_scratch.hidden_size % (2 * c.model.from_scratch.num_heads) != 0
        ),
    ),
    Rule(
        ("model", "lora", "target_modules"),
        "model.lora.target_modules with lm_head or the embeddings",
        "language-model logits are taken at loss positions only, outside the adapter, which would be left out silently",
        lambda c: (
            c.model.lora is not None
            and any(name in ("lm_head", "embed_tokens") for name in _names(c.model.lora.target_modules))
        ),
    ),
    Rule(
        ("model", "attention"),
        "model.attention flash_attention_2 with train.precision fp32",
        "FlashAttention has no fp32 kernels; use sdpa, or bf16",
        lambda c: c.model.attention == "flash_attention_2" and c.train.precision == "fp32",
    ),
    Rule(
        ("objective", "kl_weight"),
        "objective.kl_weight without model.lora",
        "the base model is the tuned one with its adapter switched off; full fine-tuning keeps no base",
        lambda c: c.objective.kl_weight > 0 and c.model.lora is None,
    ),
    Rule(
        ("objective", "w_cls"),
        "objective.w_cls 0",
        "the head would stay random, and its probability with it",
        lambda c: c.objective.w_cls == 0,
    ),
    Rule(
        ("objective", "w_gen"),
        "objective.w_gen or kl_weight above 0 with explain.teacher column and without data.explanation_column",
        "the language-model loss needs explanations; name their column, take another teacher, or set both weights to 0",
        lambda c: (
            c.objective.w_gen + c.objective.kl_weight > 0
            and c.explain.teacher == "column"
            and c.data.explanation_column is None
            and c.data.vignettes is None
        ),
    ),
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
        f"{_listed(ENDPOINT_ONLY)} with another teacher than endpoint",
        "only an endpoint has an address, a pace, a budget and a price; take the setting away",
        lambda c: _set(c, ENDPOINT_ONLY) if c.explain.teacher != "endpoint" else [],
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed(_LOCAL_ONLY)} with another teacher than local",
        "only a local model answers in batches and is spread over a Ray cluster; an endpoint has "
        "explain.requests_in_flight",
        lambda c: _set(c, _LOCAL_ONLY) if c.explain.teacher != "local" else [],
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed(_MODEL_ONLY)} with explain.teacher column or evidence",
        "no chat model is asked; take the setting away, or take teacher endpoint or local",
        lambda c: _set(c, _MODEL_ONLY) if not c.explain.asks_a_model else [],
    ),
    Rule(
        ("explain", "teacher"),
        f"{_listed(_TAUGHT_ONLY)} with explain.teacher column",
        "people wrote one reason a row; nobody is asked for another one",
        lambda c: _set(c, _TAUGHT_ONLY) if c.explain.teacher == "column" else [],
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
        ("objective", "class_weights"),
        "objective.class_weights with another number of weights than task.labels",
        "one weight a label, in the order of task.labels",
        lambda c: isinstance(c.objective.class_weights, list) and len(c.objective.class_weights) != len(c.task.labels),
    ),
    Rule(
        ("train", "token_budget"),
        "train.token_budget below data.max_prompt_tokens + data.max_explanation_tokens",
        "a micro-batch must hold the longest row that the limits allow",
        lambda c: c.train.token_budget < c.data.max_prompt_tokens + c.data.max_explanation_tokens,
    ),
    Rule(
        ("predict", "token_budget"),
        "predict.token_budget below data.max_prompt_tokens + predict.max_new_tokens",
        "a batch must hold the longest prompt and what is written after it",
        lambda c: c.predict.token_budget < c.data.max_prompt_tokens + c.predict.max_new_tokens,
    ),
)


def _names(target_modules: str | list[str]) -> list[str]:
    return [target_modules] if isinstance(target_modules, str) else target_modules


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
