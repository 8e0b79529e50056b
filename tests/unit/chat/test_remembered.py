"""What is remembered belongs to a model's weights; why there are no words is said in the same words everywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.chat.interface import ENDED_EARLY, NO_WORDS, UNREADABLY_LONG, WITHHELD, Completion, Request
from clsgen_dist.chat.remembered import request_key
from clsgen_dist.explain.checks import CAUSES
from clsgen_dist.explain.prompts import blind_messages
from clsgen_dist.explain.teachers import make_chat_explainer
from clsgen_dist.integrity import fingerprint
from clsgen_dist.records import Row
from tests.support.tiny import tiny_backbone, tiny_config


class Chat:
    """Answers everything in the same way."""

    async def complete(self, request: Request) -> Completion:
        return Completion(text="yes", prompt_tokens=1, completion_tokens=1)

    async def close(self) -> None:
        pass


class Memory:
    """Remembers keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def recall(self, key: str) -> Completion | None:
        return None

    def remember(self, key: str, answer: Completion) -> None:
        self.keys.append(key)


def first_key(tmp_path: Path, **explain: Any) -> tuple[str, Request]:
    """The key of a teacher's blind answer, and what it was asked."""
    config = tiny_config(tmp_path, **{f"explain.{name}": value for name, value in explain.items()})
    memory = Memory()
    explainer: Any = make_chat_explainer(config, Chat(), memory)
    row = Row(id="a", text="cough", label=1)
    asyncio.run(explainer.teacher.answer_blind(row))
    messages = blind_messages(config.task, row.text)
    request = Request(messages=messages, temperature=0.0, max_tokens=config.explain.max_tokens, seed=0)
    return memory.keys[0], request


def test_a_local_teacher_is_its_weights(tmp_path: Path) -> None:
    model = tiny_backbone(tmp_path / "model", seed=0)
    key, request = first_key(tmp_path, teacher="local", model=model)
    assert key == request_key(f'["local", "{model}", null, "{fingerprint(model)}"]', request)
    tiny_backbone(tmp_path / "model", seed=1)
    assert first_key(tmp_path, teacher="local", model=model)[0] != key


def test_a_teacher_at_an_endpoint_is_its_name(tmp_path: Path) -> None:
    """Kept to the letter, so that answers of before are found."""
    key, request = first_key(tmp_path, teacher="endpoint", model="m", base_url="http://127.0.0.1:9/v1")
    assert key == request_key('["endpoint", "m", null]', request)


@pytest.mark.parametrize("fault", [NO_WORDS, ENDED_EARLY, WITHHELD, UNREADABLY_LONG])
def test_whoever_explains_knows_why_there_are_no_words(fault: str) -> None:
    assert fault in CAUSES
