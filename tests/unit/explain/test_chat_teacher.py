"""A chat model as a teacher, and its memory."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clsgen_dist.chat.interface import Completion, Request
from clsgen_dist.chat.remembered import RememberedChat, request_key
from clsgen_dist.config.explain import Checks, Explain
from clsgen_dist.config.sections import Task
from clsgen_dist.errors import TeacherError
from clsgen_dist.explain.chat_teacher import ChatTeacher, tidy
from clsgen_dist.explain.memory import TeacherMemory
from clsgen_dist.records import Row

TASK = Task(question="Does this patient need urgent care?", labels=["no", "yes"])
ROW = Row(id="a", text="Fever of 40 and a stiff neck.", label=1)
REQUEST = Request(messages=({"role": "user", "content": "Fever?"},), temperature=0.0, max_tokens=8, seed=0)


class ScriptedChat:
    """Answers as told, and notes what it was asked."""

    def __init__(self, answer: Callable[[Request], Completion | Exception]) -> None:
        self.answer = answer
        self.asked: list[Request] = []
        self.closed = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        await self.may_answer.wait()
        answer = self.answer(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


def says(text: str, fault: str | None = None) -> Callable[[Request], Completion]:
    return lambda _: Completion(text=text, prompt_tokens=5, completion_tokens=2, fault=fault)


def test_a_blind_answer_is_greedy_and_not_told_the_label() -> None:
    chat = ScriptedChat(says("**Yes.**"))
    teacher = ChatTeacher(chat, TASK, Explain(max_tokens=77))
    assert asyncio.run(teacher.answer_blind(ROW)) == 1
    assert asyncio.run(teacher.answer_blind(replace(ROW, label=0))) == 1
    first, second = chat.asked
    assert first == second
    assert (first.temperature, first.max_tokens) == (0.0, 77)


def test_a_reason_is_asked_for_the_label_and_tidied() -> None:
    chat = ScriptedChat(says('Reason: "The neck is stiff."'))
    teacher = ChatTeacher(chat, TASK, Explain(temperature=0.4, guidance="Mind the age."))
    assert asyncio.run(teacher.give_reason(ROW, attempt=0, fault=None)) == ("The neck is stiff.", None)
    assert asyncio.run(teacher.give_reason(ROW, attempt=3, fault="copied")) == ("The neck is stiff.", None)
    first, second = chat.asked
    assert (first.temperature, first.seed, second.seed) == (0.4, 0, 3)
    assert "The label of this text is: yes" in first.messages[0]["content"]
    assert "Mind the age." in first.messages[0]["content"]
    assert "words of your own" in second.messages[0]["content"]
    assert "words of your own" not in first.messages[0]["content"]


def test_the_language_that_is_checked_is_asked_for() -> None:
    chat = ScriptedChat(says("Das Fieber ist hoch."))
    teacher = ChatTeacher(chat, TASK, Explain(checks=Checks(language="de")))
    asyncio.run(teacher.give_reason(ROW, attempt=0, fault=None))
    assert "ISO 639-1 code is de" in chat.asked[0].messages[0]["content"]


def test_a_reader_sees_the_reason_and_never_the_text() -> None:
    chat = ScriptedChat(says("yes"))
    teacher = ChatTeacher(chat, TASK, Explain())
    assert asyncio.run(teacher.read("The neck cannot be bent.", reading=1)) == 1
    content = chat.asked[0].messages[0]["content"]
    assert "The neck cannot be bent." in content
    assert ROW.text not in content
    assert chat.asked[0].temperature == 0.0


def test_an_answer_without_words_is_no_label_and_no_reason() -> None:
    teacher = ChatTeacher(ScriptedChat(says("yes", fault="cut off")), TASK, Explain())
    assert asyncio.run(teacher.answer_blind(ROW)) is None
    assert asyncio.run(teacher.read("The neck is stiff.")) is None
    assert asyncio.run(teacher.give_reason(ROW, attempt=0, fault=None)) == ("", "cut off")
    teacher = ChatTeacher(ScriptedChat(says('Reason: ""')), TASK, Explain())
    assert asyncio.run(teacher.give_reason(ROW, attempt=0, fault=None)) == ("", "empty")


def test_more_rows_than_requests_are_worked_on_and_the_chat_is_closed() -> None:
    chat = ScriptedChat(says("yes"))
    assert ChatTeacher(chat, TASK, Explain(teacher="endpoint", requests_in_flight=64)).num_at_once == 128
    teacher = ChatTeacher(chat, TASK, Explain(teacher="local", batch_size=8, num_workers=2))
    assert teacher.num_at_once == 16, "each worker on a cluster has a teacher of its own"
    asyncio.run(teacher.close())
    assert chat.closed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("  The neck is stiff.\n", "The neck is stiff."),
        ('"The neck is stiff."', "The neck is stiff."),
        ("\u201cThe neck is stiff.\u201d", "The neck is stiff."),
        ("Explanation: The neck is stiff.", "The neck is stiff."),
        ("**Reason:** The neck is stiff.", "The neck is stiff."),
        ("### Reasoning:\nThe neck is stiff.", "The neck is stiff."),
        ("Sure! Here is a short reason:\n\nThe neck is stiff.", "The neck is stiff."),
        ("Here's why the label holds: The neck is stiff.", "The neck is stiff."),
        ("```text\nReason: 'The neck is stiff.'\n```", "The neck is stiff."),
        ('"A fever" goes with "a stiff neck"', '"A fever" goes with "a stiff neck"'),
        ("The reason is a stiff neck.", "The reason is a stiff neck."),
        ("Here the neck is stiff.", "Here the neck is stiff."),
        ("Sure signs are a fever and a stiff neck.", "Sure signs are a fever and a stiff neck."),
        ('"', '"'),
        ('""', ""),
        ("", ""),
    ],
)
def test_what_stands_around_a_reason_is_taken_off(answer: str, reason: str) -> None:
    assert tidy(answer) == reason


def test_nothing_is_asked_twice_even_after_a_restart(tmp_path: Path) -> None:
    chat = ScriptedChat(lambda request: says(f"answer to {request.seed}")(request))
    for _ in range(2):
        memory = TeacherMemory(tmp_path / "memory.sqlite")
        remembered = RememberedChat(chat, memory, model="m")
        for seed in (0, 1, 0):
            answer = asyncio.run(remembered.complete(replace(REQUEST, seed=seed)))
            assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == (f"answer to {seed}", 5, 2)
        memory.close()
    assert [request.seed for request in chat.asked] == [0, 1]
    memory = TeacherMemory(tmp_path / "memory.sqlite")
    asyncio.run(RememberedChat(chat, memory, model="another").complete(REQUEST))
    assert len(chat.asked) == 3
    memory.close()


def test_a_fault_of_the_answer_is_remembered_too(tmp_path: Path) -> None:
    memory = TeacherMemory(tmp_path / "memory.sqlite")
    chat = ScriptedChat(says("", fault="cut off"))
    remembered = RememberedChat(chat, memory, model="m")
    assert [asyncio.run(remembered.complete(REQUEST)).fault for _ in range(2)] == ["cut off", "cut off"]
    assert len(chat.asked) == 1
    memory.close()


def test_equal_requests_on_their_way_are_one(tmp_path: Path) -> None:
    async def ask() -> list[Completion]:
        chat.may_answer.clear()
        waiting = [asyncio.create_task(remembered.complete(replace(REQUEST, seed=n % 2))) for n in range(10)]
        await asyncio.sleep(0.01)
        chat.may_answer.set()
        return await asyncio.gather(*waiting)

    memory = TeacherMemory(tmp_path / "memory.sqlite")
    chat = ScriptedChat(lambda request: says(str(request.seed))(request))
    remembered = RememberedChat(chat, memory, model="m")
    assert [answer.text for answer in asyncio.run(ask())] == ["0", "1"] * 5
    assert len(chat.asked) == 2
    memory.close()


def test_who_is_cancelled_takes_the_answer_from_nobody(tmp_path: Path) -> None:
    async def ask() -> Completion:
        chat.may_answer.clear()
        first, second = (asyncio.create_task(remembered.complete(REQUEST)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        chat.may_answer.set()
        return await second

    memory = TeacherMemory(tmp_path / "memory.sqlite")
    chat = ScriptedChat(says("yes"))
    remembered = RememberedChat(chat, memory, model="m")
    assert asyncio.run(ask()).text == "yes"
    assert len(chat.asked) == 1
    assert memory.recall(request_key("m", REQUEST)) is not None
    memory.close()


def test_an_error_reaches_all_who_wait_and_is_forgotten(tmp_path: Path) -> None:
    async def ask() -> None:
        errors = await asyncio.gather(*(remembered.complete(REQUEST) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in errors] == [TeacherError] * 3
        assert len(chat.asked) == 1
        chat.answer = says("yes")
        assert (await remembered.complete(REQUEST)).text == "yes"

    memory = TeacherMemory(tmp_path / "memory.sqlite")
    chat = ScriptedChat(lambda _: TeacherError("the endpoint is gone"))
    remembered = RememberedChat(chat, memory, model="m")
    asyncio.run(ask())
    memory.close()


def test_closing_gives_up_what_is_on_its_way(tmp_path: Path) -> None:
    async def ask() -> None:
        chat.may_answer.clear()
        waiting = asyncio.create_task(remembered.complete(REQUEST))
        await asyncio.sleep(0.01)
        await remembered.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    memory = TeacherMemory(tmp_path / "memory.sqlite")
    chat = ScriptedChat(says("yes"))
    remembered = RememberedChat(chat, memory, model="m")
    asyncio.run(ask())
    assert chat.closed
    assert memory.recall(request_key("m", REQUEST)) is None
    memory.close()


def test_requests_are_told_apart_by_all_that_they_say() -> None:
    requests = [
        REQUEST,
        replace(REQUEST, seed=1),
        replace(REQUEST, temperature=0.5),
        replace(REQUEST, max_tokens=9),
        replace(REQUEST, messages=({"role": "user", "content": "Fever? \ud83d"},)),
        replace(REQUEST, messages=({"role": "system", "content": "Fever?"},)),
        replace(REQUEST, messages=REQUEST.messages * 2),
    ]
    keys = {request_key(model, request) for model in ("m", "n") for request in requests}
    assert len(keys) == 14
    assert all(len(key) == 64 for key in keys)
    assert request_key("m", replace(REQUEST, temperature=0)) == request_key("m", REQUEST)
    reordered = replace(REQUEST, messages=({"content": "Fever?", "role": "user"},))
    assert request_key("m", reordered) == request_key("m", REQUEST)
