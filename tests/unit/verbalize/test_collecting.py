"""Readings of tokens are taken once, and what answers depend on is written down beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.chat.answers import AnswerMemory
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Task
from clsgen_dist.errors import ConfigError
from clsgen_dist.progress import silent
from clsgen_dist.records import Row
from clsgen_dist.verbalize.collecting import Asked, _read_tokens, check_asked, collect, load_asked
from clsgen_dist.verbalize.tokens import TokenReading
from tests.support.tiny import tiny_backbone, tiny_config

TASK = Task(question="Fever?", labels=["no", "yes"])
ROWS = {
    "calibration": [Row(id="a", text="cough", label=0), Row(id="b", text="long " * 50, label=1)],
    "test": [Row(id="c", text="fever", label=1), Row(id="d", text="cough", label=0)],
}


class Reader:
    """Reads lengths; a text of more than 100 letters is too long for it."""

    def __init__(self) -> None:
        self.read_texts: list[str] = []

    def read(self, text: str) -> TokenReading:
        self.read_texts.append(text)
        if len(text) > 100:
            return TokenReading((math.nan,) * 2, (math.nan,) * 2, math.nan, len(text))
        share = len(text) / 10
        return TokenReading((1 - share, share), (share, 1 - share), 0.1 + 1e-17, len(text))


def read(memory: AnswerMemory, identity: str = "m", task: Task = TASK) -> tuple[dict[str, list[TokenReading]], Reader]:
    reader = Reader()
    asked = Asked("model", identity, None)
    return _read_tokens(reader, task, ROWS, asked, memory, silent), reader  # type: ignore[arg-type]


def test_a_reading_is_taken_once_and_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    memory = AnswerMemory(tmp_path / "answers.sqlite")
    first, reader = read(memory)
    assert reader.read_texts == ["cough", "long " * 50, "fever"], "the same text is read once"
    memory.close()
    memory = AnswerMemory(tmp_path / "answers.sqlite")
    again, reader = read(memory)
    assert reader.read_texts == []
    assert json.dumps(again) == json.dumps(first)
    assert all(map(math.isnan, (*again["calibration"][1].label_tokens, again["calibration"][1].label_mass)))
    assert again["test"][0] == Reader().read("fever")
    for identity, task in (("other", TASK), ("m", TASK.model_copy(update={"labels": ["yes", "no"]}))):
        assert len(read(memory, identity, task)[1].read_texts) == 3, "another model, or another order of labels"
    memory.close()


def asked_config(folder: Path, **settings: Any) -> RunConfig:
    asked = {"source": "endpoint", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api_key_env": None} | settings
    return tiny_config(folder, **{f"verbalize.{name}": value for name, value in asked.items()})


def origin_of(folder: Path, **settings: Any) -> dict[str, str]:
    """What answers depend on; without rows nobody is asked."""
    config = asked_config(folder, **settings)
    place = RunFolder(config.folder)
    place.verbalized.mkdir(parents=True, exist_ok=True)
    collected = collect(config, place, load_asked(config, place), {"calibration": [], "test": []}, silent)
    assert collected.answers == {
        "calibration": [[]] * config.verbalize.num_prompts,
        "test": [[]] * config.verbalize.num_prompts,
    }
    return dict(collected.origin)


def test_the_origin_tells_models_and_prompts_apart(tmp_path: Path) -> None:
    plain = origin_of(tmp_path)
    assert plain == origin_of(tmp_path, requests_in_flight=2, timeout_seconds=9.0), "how fast it is asked is not part"
    others: tuple[dict[str, Any], ...] = ({"model": "n"}, {"extra_body": {"reasoning_effort": "low"}})
    for settings in others:
        other = origin_of(tmp_path, **settings)
        assert other["model"] != plain["model"]
        assert other["prompt"] == plain["prompt"]
    others = ({"prompt": "direct"}, {"num_prompts": 2}, {"temperature": 0.5}, {"max_tokens": 9})
    for settings in others:
        other = origin_of(tmp_path, **settings)
        assert other["model"] == plain["model"]
        assert other["prompt"] != plain["prompt"]
    direct = origin_of(tmp_path, prompt="direct")
    assert origin_of(tmp_path, prompt="direct", guided=True)["prompt"] != direct["prompt"]


def test_a_local_model_that_is_not_there(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"verbalize.source": "local", "verbalize.model": str(tmp_path / "absent")})
    with pytest.raises(ConfigError, match=r"verbalize\.model: no model at"):
        check_asked(config, RunFolder(config.folder))


def test_answers_of_a_local_model_are_those_of_its_weights(tmp_path: Path) -> None:
    local = {"source": "local", "base_url": None, "api_key_env": "OPENAI_API_KEY", "token_probabilities": False}
    model = tiny_backbone(tmp_path / "model", seed=0)
    plain = origin_of(tmp_path, **local, model=model)
    assert origin_of(tmp_path, **local, model=model) == plain
    assert tiny_backbone(tmp_path / "model", seed=1) == model
    other = origin_of(tmp_path, **local, model=model)
    assert other["model"] != plain["model"]
    assert other["prompt"] == plain["prompt"]


def test_the_identity_of_a_model_at_an_endpoint_is_its_name(tmp_path: Path) -> None:
    """Kept to the letter, so that answers of before are found."""
    config = asked_config(tmp_path)
    assert load_asked(config, RunFolder(config.folder)).identity == '["endpoint", "m", null]'
