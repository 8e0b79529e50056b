"""What an address may hold, and which settings somebody set."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsgen_dist.config.chat import ENDPOINT_ONLY, FREE_TO_CHANGE, LOCAL_ONLY
from clsgen_dist.config.explain import Explain
from clsgen_dist.config.run import load_config
from clsgen_dist.errors import ConfigError

CONFIG = """
run: {name: x}
task: {question: "Urgent?", labels: ["no", "yes"]}
data: {train: rows.jsonl}
model: {name_or_path: some/backbone}
explain: {teacher: endpoint, model: m, base_url: BASE_URL}
"""


@pytest.mark.parametrize(
    ("base_url", "told"),
    [
        ("http://user:pa55word@host/v1", "password"),
        ("http://pa55word@host/v1", "password"),
        ("https://host/v1?key=pa55word", "query"),
        ("http://[pa55word", "no address of a server"),
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(tmp_path: Path, base_url: str, told: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("BASE_URL", f"'{base_url}'"), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert "run.yaml:6: explain.base_url: " in str(error.value)
    assert told in str(error.value)
    assert "pa55word" not in str(error.value).replace("a password", "")


def test_an_address_may_have_port_and_path() -> None:
    assert Explain(base_url="https://[::1]:8000/a/v1").base_url == "https://[::1]:8000/a/v1"


def test_what_differs_from_the_defaults_is_named() -> None:
    explain = Explain(requests_in_flight=3, batch_size=16, budget_tokens=5)
    assert explain.changed(ENDPOINT_ONLY) == ["requests_in_flight", "budget_tokens"]
    assert explain.changed(LOCAL_ONLY) == []


def test_what_may_change_between_two_calls_decides_no_answer() -> None:
    assert not {"model", "extra_body", "max_tokens"} & set(FREE_TO_CHANGE)
