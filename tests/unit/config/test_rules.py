"""Every rule is broken once, and says so at its key; the table in docs/ is the rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.rules import RULES, broken_rules, compatibility_page, compatibility_table
from clsgen_dist.config.run import RunConfig, build_config, settings
from clsgen_dist.config.source import ConfigSource, Keys, apply_overrides, parse_value
from clsgen_dist.errors import ConfigError

ROOT = Path(__file__).parents[3]

VALID = """
run: {name: x}
task: {question: "Urgent?", labels: ["no", "yes"]}
data: {train: rows.jsonl}
model: {name_or_path: some/backbone, lora: {rank: 8}}
"""
FROM_SCRATCH = ["--model.name_or_path", "null", "--model.lora", "null", "--model.from_scratch", "{}"]
VIGNETTES = ["--data.train", "null", "--data.vignettes", "{}"]
ENDPOINT = ["--explain.teacher", "endpoint", "--explain.model", "m", "--explain.base_url", "http://localhost:1/v1"]

ASKED = ["--verbalize.source", "endpoint", "--verbalize.model", "m", "--verbalize.base_url", "http://localhost:1/v1"]

JUDGED = [
    *("--evaluate.readers", "[verdict, judge]", "--evaluate.judge.model", "m"),
    *("--evaluate.judge.base_url", "http://localhost:1/v1"),
]

#: One case a rule, in the order of RULES: overrides that break it, and the key that the message points at.
CASES = (
    (["--run.storage", "s3://runs"], "run.storage"),
    (["--data.train", "null"], "data.train"),
    ([*VIGNETTES, "--data.test", "rows.jsonl"], "data.vignettes"),
    ([*VIGNETTES, "--task.labels", "[a, b, c]"], "data.vignettes"),
    ([*VIGNETTES, "--data.subgroup_columns", "[site]"], "data.subgroup_columns"),
    ([*VIGNETTES, "--data.reference_columns", "[why_2]"], "data.reference_columns"),
    (["--data.split_fractions", "{test: 0.4}"], "data.split_fractions"),
    (["--data.label_map", "{1: maybe}"], "data.label_map"),
    (["--model.name_or_path", "null"], "model.name_or_path"),
    ([*FROM_SCRATCH, "--model.lora", "{}"], "model.lora"),
    ([*FROM_SCRATCH, "--model.revision", "main"], "model.from_scratch"),
    ([*FROM_SCRATCH, "--model.from_scratch.hidden_size", "100"], "model.from_scratch.hidden_size"),
    (["--model.lora.target_modules", "[q_proj, lm_head]"], "model.lora.target_modules"),
    (["--model.attention", "flash_attention_2", "--train.precision", "fp32"], "model.attention"),
    (["--model.activation_offload", "true"], "model.activation_offload"),
    (["--model.lora", "null", "--objective.kl_weight", "0.1"], "objective.kl_weight"),
    (["--objective.general_passages", "8"], "objective.general_passages"),
    (["--objective.general_weight", "1", "--objective.general_tokens", "9000"], "objective.general_tokens"),
    (["--objective.w_cls", "0", "--objective.w_gen", "0"], "objective.w_cls"),
    (["--objective.w_cls", "0", "--objective.class_weights", "balanced"], "objective.class_weights"),
    (
        ["--objective.w_cls", "0", "--task.verdict_template", "{label}", "--task.labels", "[no, no pain]"],
        "task.verdict_template",
    ),
    (["--data.explanation_column", "null", "--objective.w_gen", "1"], "objective.w_gen"),
    (["--objective.class_weights", "[1, 2, 3]"], "objective.class_weights"),
    (["--train.token_budget", "500"], "train.token_budget"),
    (["--train.max_skipped_steps", "3"], "train.max_skipped_steps"),
    (["--ray.min_workers", "9"], "ray.min_workers"),
    (["--predict.token_budget", "500"], "predict.token_budget"),
    (["--explain.teacher", "endpoint", "--explain.model", "m"], "explain.teacher"),
    (["--explain.teacher", "local"], "explain.teacher"),
    ([*ENDPOINT, "--explain.budget_cost", "1"], "explain.budget_cost"),
    (["--explain.budget_tokens", "1000"], "explain.budget_tokens"),
    ([*ENDPOINT, "--explain.num_workers", "2"], "explain.num_workers"),
    (["--explain.teacher", "evidence", "--explain.guidance", "Mind the age."], "explain.guidance"),
    (["--explain.tries", "5"], "explain.tries"),
    (["--explain.teacher", "evidence", "--explain.checks.drop_written", "true"], "explain.checks.drop_written"),
    (["--explain.checks.min_tokens", "300"], "explain.checks.min_tokens"),
    (["--verbalize.source", "endpoint", "--verbalize.model", "m"], "verbalize.source"),
    (["--verbalize.source", "local"], "verbalize.source"),
    (["--verbalize.model", "m"], "verbalize.model"),
    (["--verbalize.budget_tokens", "1000"], "verbalize.budget_tokens"),
    (["--verbalize.guided", "true"], "verbalize.guided"),
    ([*ASKED, "--verbalize.batch_size", "4"], "verbalize.batch_size"),
    (["--task.labels", "[a, b, c]", "--verbalize.floor", "0.4"], "verbalize.floor"),
    (["--evaluate.readers", "[text, verdict, text]"], "evaluate.readers"),
    (["--evaluate.readers", "[judge]", "--evaluate.judge.model", "m"], "evaluate.readers"),
    (["--evaluate.judge.max_tokens", "64"], "evaluate.judge.max_tokens"),
    ([*JUDGED, "--evaluate.judge.batch_size", "4"], "evaluate.judge.batch_size"),
    ([*JUDGED, "--evaluate.judge.budget_cost", "1"], "evaluate.judge.budget_cost"),
    (["--calibrate.method", "vector"], "calibrate.method"),
    (["--calibrate.prior", "{no: 0.9}"], "calibrate.prior"),
    (["--calibrate.method", "none", "--calibrate.prior", "{no: 0.9, yes: 0.1}"], "calibrate.prior"),
    (["--calibrate.threshold", "recall"], "calibrate.threshold"),
    (["--calibrate.threshold_value", "0.9"], "calibrate.threshold_value"),
    (
        ["--task.labels", "[a, b, c]", "--calibrate.threshold", "cost", "--calibrate.threshold_value", "2"],
        "calibrate.threshold",
    ),
    (
        [
            *("--evaluate.costs", "[[0, 1], [5, 0]]", "--calibrate.threshold", "cost"),
            *("--calibrate.threshold_value", "0.5"),
        ],
        "evaluate.costs",
    ),
    (["--evaluate.costs", "[[0, 1], [5, 6]]"], "evaluate.costs"),
    (["--predict.explain", "uncertain"], "predict.explain"),
    (["--predict.explain", "none", "--predict.uncertain_margin", "0.1"], "predict.uncertain_margin"),
)


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def build(*overrides: str) -> RunConfig:
    tree: dict[str, Any] = parse_value(VALID)
    places: dict[Keys, str] = {(): "run.yaml"} | {
        (section,): f"run.yaml:{line}" for line, section in enumerate(tree, start=2)
    }
    source = ConfigSource(tree=tree, places=places)
    apply_overrides(source, overrides)
    return build_config(source)


def test_the_valid_configuration_breaks_no_rule() -> None:
    assert broken_rules(build()) == []
    assert broken_rules(build(*FROM_SCRATCH, *VIGNETTES)) == []


def test_there_is_a_case_for_every_rule() -> None:
    assert len(CASES) == len(RULES)


@pytest.mark.parametrize(
    ("index", "overrides", "key"),
    [(index, overrides, key) for index, (overrides, key) in enumerate(CASES)],
    ids=[".".join(rule.keys) + f"-{index}" for index, rule in enumerate(RULES)],
)
def test_every_rule_is_broken_by_its_case_alone(index: int, overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(*overrides)
    rule = RULES[index]
    by_choice = (
        *(("explain", "teacher"), ("verbalize", "source"), ("evaluate", "readers"), ("evaluate", "judge")),
        *(("objective", "w_cls"), ("objective", "general_weight")),
    )
    if rule.keys in by_choice and key != ".".join(rule.keys):  # the setting is named, not the choice
        assert str(error.value) == f"--{key}: {key} has no use here: {rule.reason}"
        return
    # Only the key itself, where it was overridden, or a parent that stands in the file.
    section = key.split(".", maxsplit=1)[0]
    line = ["run", "task", "data", "model"].index(section) + 2 if section in ("data", "model") else 0
    places = [f"--{'.'.join(rule.keys)}: ", f"run.yaml:{line}: "]
    assert str(error.value) in [f"{place}{rule.combination}: {rule.reason}" for place in places]
    if f"--{'.'.join(rule.keys)}" in overrides:
        assert str(error.value).startswith(places[0])


@pytest.mark.parametrize(
    "overrides",
    [
        ["--data.split_fractions", "{validation: 0.2, calibration: 0.1, test: 0.2}"],
        ["--data.label_map", "{1: yes, 0: no, true: yes}"],
        ["--model.lora", "null"],
        ["--model.lora.target_modules", "q_proj"],
        ["--objective.kl_weight", "0.1"],
        ["--objective.class_weights", "balanced"],
        ["--objective.class_weights", "[1, 2.5]"],
        ["--objective.w_gen", "0", "--data.explanation_column", "null"],
        [*VIGNETTES, "--data.explanation_column", "null"],
        ["--evaluate.costs", "[[0, 1], [5, 0]]", "--calibrate.threshold", "cost", "--calibrate.threshold_value", "0.2"],
        ["--evaluate.readers", "[]"],
        [*JUDGED, "--evaluate.judge.budget_cost", "1", "--evaluate.judge.input_price", "0.5"],
        ["--train.token_budget", "1280"],
        ["--predict.token_budget", "1152"],
        ["--predict.explain", "uncertain", "--predict.uncertain_margin", "0"],
        ["--model.attention", "flash_attention_2"],
    ],
)
def test_what_only_comes_near_is_allowed(overrides: list[str]) -> None:
    build(*overrides)


def test_all_broken_rules_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        build("--objective.w_cls", "0", "--objective.w_gen", "0", "--train.token_budget", "5")
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "--objective.w_cls",
        "--train.token_budget",
    ]


def test_a_file_of_zero_settings_that_is_missing_is_a_fault_of_its_key() -> None:
    with pytest.raises(ConfigError, match=r"--train\.deepspeed: .*no such file: absent\.json"):
        build("--train.deepspeed", "absent.json")


def test_rules_point_at_settings() -> None:
    known = {name for name, _ in settings()} | set(RunConfig.model_fields)
    assert {".".join(rule.keys) for rule in RULES} <= known


def test_rules_name_settings_only() -> None:
    """A dotted name in a rule's words is a setting, so that the table does not age."""
    known = {name for name, _ in settings()} | set(RunConfig.model_fields)
    for rule in RULES:
        for name in re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+\b", f"{rule.combination} {rule.reason}"):
            assert name in known, rule


def test_the_table_has_a_row_a_rule() -> None:
    rows = compatibility_table().splitlines()
    assert len(rows) == len(RULES) + 2
    assert all(row.count("|") == 3 for row in rows)


def test_the_page_in_docs_is_up_to_date() -> None:
    page = ROOT / "docs" / "compatibility.md"
    assert page.read_text(encoding="utf-8") == compatibility_page(), "run `make docs`"
