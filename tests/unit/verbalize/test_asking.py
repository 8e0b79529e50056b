"""What is asked, once each, and what an error leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter

import pytest

from clsgen_dist.chat.interface import SUM, Completion, Request
from clsgen_dist.chat.remembered import RememberedChat, request_key
from clsgen_dist.config.sections import Task
from clsgen_dist.config.verbalize import Verbalize
from clsgen_dist.errors import TeacherError
from clsgen_dist.records import Row
from clsgen_dist.verbalize.asking import ask_rows, distribution_request
from clsgen_dist.verbalize.parsing import distribution_schema
from clsgen_dist.verbalize.prompts import NUM_PARAPHRASES, rotated

TASK = Task(question="Which one?", labels=["a", "b", "c"])
ROWS = [Row(id=str(n), text=f"text number {n}.", label=n % 3) for n in range(20)]


class FakeChat:
    """Answers with what tells a request apart, later ones first; fails from some request on."""

    def __init__(self, fails_from: int | None = None) -> None:
        self.asked: list[Request] = []
        self.in_flight = self.most_in_flight = 0
        self._fails_from = fails_from

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        number = len(self.asked)
        if self._fails_from is not None and number >= self._fails_from:
            raise TeacherError("the endpoint is gone")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.001 * (7 - number % 7))
        self.in_flight -= 1
        return Completion(text=name_of(request), prompt_tokens=1, completion_tokens=1)

    async def close(self) -> None:
        pass


class Memory(dict[str, Completion]):
    recall = dict.get
    remember = dict.__setitem__


def name_of(request: Request) -> str:
    content = request.messages[0]["content"]
    return f"{content[content.index('text number') :].partition('.')[0]} {request.seed}"


def ask(chat: object, verbalize: Verbalize, heard: list[int] | None = None) -> list[list[Completion]]:
    counted = [] if heard is None else heard
    return asyncio.run(
        ask_rows(chat, ROWS, TASK, verbalize, num_at_once=4, heard=lambda: counted.append(1))  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("num_prompts", [1, 3, NUM_PARAPHRASES])
def test_every_row_and_paraphrase_is_asked_once_and_answers_keep_their_places(num_prompts: int) -> None:
    chat, heard = FakeChat(), list[int]()
    answers = ask(chat, Verbalize(num_prompts=num_prompts), heard)
    assert [[answer.text for answer in of_prompt] for of_prompt in answers] == [
        [f"text number {n} {p}" for n in range(len(ROWS))] for p in range(num_prompts)
    ]
    assert max(Counter(map(name_of, chat.asked)).values()) == 1
    assert len(chat.asked) == len(heard) == num_prompts * len(ROWS)
    assert chat.most_in_flight == 4


def test_an_error_ends_it_and_what_was_answered_is_not_asked_again() -> None:
    memory, heard = Memory(), list[int]()
    failing = FakeChat(fails_from=12)
    with pytest.raises(TeacherError, match="gone"):
        ask(RememberedChat(failing, memory, model="m"), Verbalize(), heard)
    assert len(memory) == len(heard) == 11, "the requests that were on their way got their answers"
    assert len(failing.asked) <= 11 + 4
    sound = FakeChat()
    answers = ask(RememberedChat(sound, memory, model="m"), Verbalize())
    assert [answer.text for answer in answers[0]] == [f"text number {n} 0" for n in range(len(ROWS))]
    assert len(sound.asked) == len(ROWS) - 11


def test_no_rows_ask_nothing() -> None:
    chat = FakeChat()
    nothing = asyncio.run(ask_rows(chat, [], TASK, Verbalize(num_prompts=2), num_at_once=3, heard=lambda: None))
    assert nothing == [[], []]
    assert chat.asked == []


@pytest.mark.parametrize("paraphrase", range(NUM_PARAPHRASES))
def test_a_guided_request_has_the_labels_in_the_order_shown(paraphrase: int) -> None:
    request = distribution_request(TASK, "words", Verbalize(prompt="direct", guided=True), paraphrase)
    assert request.schema is not None
    labels = rotated(TASK.labels, paraphrase)
    assert list(request.schema["properties"]) == request.schema["required"] == labels
    content = request.messages[0]["content"]
    places = [content.index(f"- {label}\n") for label in labels]
    assert places == sorted(places)


def test_an_endpoint_gets_no_keyword_of_ours() -> None:
    """Those that are strict refuse a schema with one."""
    asked = {
        source: distribution_request(TASK, "words", Verbalize(source=source, prompt="direct", guided=True), 0).schema
        for source in ("endpoint", "local", "bundle")
    }
    assert asked["local"] == asked["bundle"] == distribution_schema(["a", "b", "c"], in_whole_percents=True)
    assert asked["endpoint"] == distribution_schema(["a", "b", "c"])
    assert SUM not in distribution_schema(["a", "b", "c"])


def test_without_guiding_there_is_no_schema() -> None:
    request = distribution_request(TASK, "words", Verbalize(temperature=0.5, max_tokens=77), 2)
    assert (request.schema, request.temperature, request.max_tokens, request.seed) == (None, 0.5, 77, 2)


def test_keys_of_requests_without_a_schema_are_those_of_before() -> None:
    """Or everything that was ever answered would be asked again."""
    messages = ({"role": "user", "content": "Fever?"},)
    said = {"messages": messages, "temperature": 0.0, "max_tokens": 8, "seed": 0, "model": "m"}
    before = hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert request_key("m", Request(messages=messages, temperature=0, max_tokens=8, seed=0)) == before


def test_a_schema_and_its_order_are_part_of_the_key() -> None:
    def key(schema: dict[str, object] | None) -> str:
        messages = ({"role": "user", "content": "Fever?"},)
        return request_key("m", Request(messages=messages, temperature=0, max_tokens=8, seed=0, schema=schema))

    forward: dict[str, object] = {"a": {}, "b": {}}
    backward: dict[str, object] = {"b": {}, "a": {}}
    assert len({key(None), key({}), key({"properties": forward}), key({"properties": backward})}) == 4
    assert key({"properties": forward}) == key({"properties": {"a": {}, "b": {}}})


def test_as_many_prompts_can_be_set_as_there_are_paraphrases() -> None:
    limits = [limit.le for limit in Verbalize.model_fields["num_prompts"].metadata if hasattr(limit, "le")]
    assert limits == [NUM_PARAPHRASES]
