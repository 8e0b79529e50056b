"""The table, the page and the picture of a comparison: what a cell says, and what is not there is said."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.compare.claims import judge_claims
from clsgen_dist.compare.columns import COLUMN, COLUMNS, dig, of_conditioned
from clsgen_dist.compare.report import cell, console_table, shown_columns, table_page, write_outputs


def numbers(mean: float, sd: float | None = None, ci: list[float] | None = None) -> dict[str, Any]:
    return {"mean": mean, "sd": sd, "ci": ci, "values": [mean, mean]}


def row(name: str, num_rows: int = 50, **own: Any) -> dict[str, Any]:
    return {
        "name": name,
        "arm": name,
        "kind": "trained",
        "part": "calibrated",
        "of": None,
        "overrides": {"objective.w_gen": 0},
        "runs": [f"{name}-1", f"{name}-2"],
        "num_rows": num_rows,
        "num_unanswered": 0,
        "numbers": {column.key: own.get(column.key) for column in COLUMNS},
    }


@pytest.fixture
def content() -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "<script>alert(1)</script>",
        "num_seeds": 2,
        "num_test_rows": 50,
        "num_groups": 40,
        "columns": [],
        "rows": [
            row("joint", auroc=numbers(0.9512, 0.0021, [0.93, 0.97]), kappa=numbers(0.891, 0.01), rep_4=numbers(0.02)),
            row("said") | {"num_unanswered": 7},
            row("discriminative", 30, auroc=numbers(0.955, 0.003, [0.93, 0.97]), kappa=numbers(0.07)),
        ],
        "differences": [
            {
                "first": "joint",
                "second": "discriminative",
                "num_rows": 30,
                "numbers": {key: {"mean": -0.004, "ci": [-0.01, 0.002]} for key in ("auroc", "f1", "nll", "ece")},
            }
        ],
        "failed": {"generative-2": "rows.jsonl:3: <b>no label</b>"},
        "missing": ["joint_kl-1"],
    }
    return found | {"claims": judge_claims(found)}


def test_a_cell_says_mean_spread_and_interval(content: dict[str, Any]) -> None:
    joint, _, alone = content["rows"]
    assert cell(joint, "auroc") == "0.951 \u00b1 0.002 [0.930, 0.970]"
    assert cell(joint, "kappa") == "0.891 \u00b1 0.010"
    assert cell(alone, "kappa") == "0.070"
    assert cell(alone, "rep_4") == ""


def test_columns_that_no_arm_has_are_left_out(content: dict[str, Any]) -> None:
    assert shown_columns(content) == ["auroc", "kappa", "rep_4"]


def test_the_table_is_whole_and_says_what_is_missing(content: dict[str, Any]) -> None:
    page = table_page(content)
    assert "| joint | 0.951 \u00b1 0.002 [0.930, 0.970] | 0.891 \u00b1 0.010 | 0.020 |\n" in page
    assert "| joint less discriminative | 30 | -0.004 [-0.010, +0.002] |" in page
    assert "50 test rows in 40 groups" in page
    assert "over 2 seeds" in page
    assert "- generative-2 failed: rows.jsonl:3: <b>no label</b>\n" in page
    assert "- not finished yet: joint_kl-1\n" in page
    assert "- discriminative was measured on 30 test rows alone\n" in page
    assert "- said: of 7 test rows nothing was said that could be understood" in page
    assert "- **holds**: Joint training loses no AUROC" in page
    printed = console_table(content, Path("there"))
    assert "0.951 \u00b1 0.002" in printed
    assert "generative-2 failed" in printed


def test_outputs_are_the_same_twice_and_words_are_escaped(content: dict[str, Any], tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_outputs(folder, copy.deepcopy(content))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["comparison.html", "comparison.json", "comparison.png", "table.md"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    page = (tmp_path / "one" / "comparison.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>no label" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_comparison_without_a_finished_run_has_no_picture(content: dict[str, Any], tmp_path: Path) -> None:
    content |= {"rows": [row("joint")], "differences": []}
    write_outputs(tmp_path, content | {"claims": judge_claims(content)})
    assert not (tmp_path / "comparison.png").exists()
    assert "<img" not in (tmp_path / "comparison.html").read_text(encoding="utf-8")


METRICS = {
    "probability": {"auroc": 0.9},
    "explanation": {
        "kappa": 0.8,
        "readers": {
            "verdict": {"free": {"kappa": 0.8}, "conditioned": {"kappa": 1.0}},
            "text": {"free": {"kappa": 0.7}, "conditioned": {"kappa": 0.75}},
        },
        "form": {"free": {"rep_4": 0.1}, "conditioned": {"rep_4": 0.2}},
    },
    "language": {"general_text_change": 0.05},
}


def found(content: dict[str, Any], key: str) -> Any:
    return next((value for path in COLUMN[key].paths if (value := dig(content, path)) is not None), None)


def test_a_conditioned_arm_has_the_explanations_that_follow_the_head_and_no_forced_verdict() -> None:
    own = of_conditioned(METRICS)
    assert (found(own, "kappa_text"), found(own, "rep_4")) == (0.75, 0.2)
    assert found(own, "kappa") is None
    assert found(own, "general_text_change") is None
    assert (found(METRICS, "kappa"), found(METRICS, "kappa_text"), found(METRICS, "rep_4")) == (0.8, 0.7, 0.1)


def test_kappa_of_an_evaluation_without_readers_is_found() -> None:
    assert found({"explanation": {"kappa": 0.6}}, "kappa") == 0.6
    assert dig({"explanation": None}, "explanation.kappa") is None
