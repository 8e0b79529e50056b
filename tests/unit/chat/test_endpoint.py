"""The client of OpenAI-compatible endpoints, against a real server on loopback that is faulty on purpose."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from clsgen_dist.chat import address, endpoint
from clsgen_dist.chat.endpoint import EndpointChat, check_endpoint
from clsgen_dist.chat.interface import Completion, Request
from clsgen_dist.chat.limits import Usage
from clsgen_dist.config.explain import Explain
from clsgen_dist.errors import ConfigError, TeacherError
from tests.support.endpoint import FAULTS, REFUSAL, echo_brain, serving, stats

KEY = "sk-very-secret-0123456789"
TEXT = "A row's text that nobody else may read."


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(address, "CONNECT_SECONDS", 2.0)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")


def settings(base_url: str, **more: Any) -> Explain:
    defaults = {"api_key_env": None, "timeout_seconds": 10.0}
    return Explain(**{"teacher": "endpoint", "base_url": base_url, "model": "teacher", **defaults, **more})


def request(text: str = TEXT, seed: int = 0) -> Request:
    messages = ({"role": "system", "content": "You judge texts."}, {"role": "user", "content": text})
    return Request(messages=messages, temperature=0.5, max_tokens=64, seed=seed)


def asked(explain: Explain, work: Callable[[EndpointChat], Coroutine[Any, Any, Any]]) -> Any:
    """What work with a chat comes to, on an event loop of its own."""

    async def run() -> Any:
        chat = EndpointChat(explain)
        try:
            return await work(chat)
        finally:
            await chat.close()
            assert chat.in_flight == 0

    return asyncio.run(run())


def answer(explain: Explain, text: str = TEXT) -> Completion:
    found: Completion = asked(explain, lambda chat: chat.complete(request(text)))
    return found


def refusal(explain: Explain, text: str = TEXT) -> TeacherError:
    with pytest.raises(TeacherError) as caught:
        answer(explain, text)
    assert_silent(caught.value)
    return caught.value


def assert_silent(error: BaseException) -> None:
    """Neither the key nor the row stands in an error, nor in any that it came of."""
    seen: BaseException | None = error
    while seen is not None:
        for words in (str(seen), repr(seen), repr(vars(seen)), "".join(traceback.format_exception(seen))):
            assert KEY not in words
            assert TEXT not in words
        assert type(seen).__module__.startswith("clsgen_dist")
        seen = seen.__cause__ or seen.__context__


def test_a_request_is_sent_as_it_is_and_answered() -> None:
    with serving(brain=echo_brain, key=KEY) as url:
        explain = settings(url, api_key_env="TEACHER_KEY", extra_body={"reasoning_effort": "low"})
        completion = answer(explain)
        fields = stats(url)["last_fields"]
    assert completion.text == TEXT
    assert completion.fault is None
    assert (completion.prompt_tokens, completion.completion_tokens) == (13, 8)
    assert fields == {
        "model": "teacher",
        "temperature": 0.5,
        "max_tokens": 64,
        "seed": 0,
        "reasoning_effort": "low",
    }


def test_an_endpoint_without_a_key_is_not_sent_somebody_elses() -> None:
    with serving() as url:
        answer(settings(url))
        assert "sk-of-somebody-else" not in str(stats(url)["last_headers"])


def test_thinking_is_never_read() -> None:
    with serving(brain=echo_brain, reasoning="Let me think it over") as url:
        assert answer(settings(url), "<think>Hm.</think> It says so.").text == "It says so."
        assert answer(settings(url), "Hm.</think> It says so.").text == "It says so."
        only = answer(settings(url), "<think>Hm.")
    assert (only.text, only.fault) == ("", "empty")


@pytest.mark.parametrize(
    "kind", ["429", "500", "503", "408", "409", "reset", "closed", "truncated", "html", "no-body", "timeout"]
)
def test_after_a_fault_a_request_is_tried_again(kind: str) -> None:
    with serving(faults=(kind,), fault_first=2, retry_after="0.05") as url:

        async def work(chat: EndpointChat) -> None:
            completion = await chat.complete(request())
            assert completion.text
            assert sum(chat.faults.values()) == 2
            names = {"reset": "connection", "closed": "connection"}
            names |= dict.fromkeys(("truncated", "html", "no-body"), "broken answer")
            assert set(chat.faults) == {names.get(kind, kind)}

        asked(settings(url, timeout_seconds=1.0 if kind == "timeout" else 10.0), work)
        assert stats(url)["requests"] == 3


@pytest.mark.parametrize("kind", ["429", "500", "reset", "truncated", "timeout"])
def test_an_endpoint_that_stays_faulty_ends_the_run(kind: str) -> None:
    with serving(faults=(kind,), fault_share=1.0, retry_after="0.05") as url:
        timeout = 0.2 if kind == "timeout" else 10.0
        error = refusal(settings(url, max_retries=2, timeout_seconds=timeout))
        assert stats(url)["requests"] == 3
    assert "nothing is lost" in str(error)
    assert "same command goes on" in str(error)
    assert url in str(error)
    assert kind in ("reset", "truncated", "timeout") or kind in str(error)


def test_an_endpoint_that_is_gone_ends_the_run() -> None:
    with serving() as url:
        pass
    assert "no connection" in str(refusal(settings(url, max_retries=1)))


@pytest.mark.parametrize(
    ("kind", "fault", "requests"),
    [
        ("no-choices", "empty", 5),  # the endpoint's fault: as often as any
        ("blank", "empty", 3),  # the model's answer: asked twice more
        ("length", "cut off", 1),
        ("filter", "refused by the endpoint", 1),
        ("400", "refused by the endpoint", 1),
        ("422", "refused by the endpoint", 1),
        ("413", "refused by the endpoint", 1),
    ],
)
def test_a_request_without_words_ends_no_run(kind: str, fault: str, requests: int) -> None:
    with serving(faults=(kind,), fault_share=1.0) as url:
        completion = answer(settings(url, max_retries=4))
        assert (completion.text, completion.fault) == ("", fault)
        assert stats(url)["requests"] == requests
        # What an endpoint counts is spent, words or none.
        assert completion.prompt_tokens == (0 if kind.isdigit() else 13 * requests)


@pytest.mark.parametrize(("kind", "told"), [("401", "TEACHER_KEY"), ("403", "TEACHER_KEY"), ("404", "explain.model")])
def test_what_no_attempt_can_mend_ends_the_run_at_once(kind: str, told: str) -> None:
    with serving(faults=(kind,), fault_share=1.0, key=KEY) as url:
        error = refusal(settings(url, api_key_env="TEACHER_KEY"))
    assert told in str(error)
    assert f"{kind} some_code" in str(error)


def test_a_code_that_is_the_key_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "some_code")
    with serving(faults=("401",), fault_share=1.0) as url:
        error = refusal(settings(url, api_key_env="TEACHER_KEY"))
    assert "some_code" not in str(error)


def test_nothing_is_logged_and_nothing_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(key=KEY, faults=FAULTS, fault_first=len(FAULTS), retry_after="0.01") as url:
        explain = settings(url, api_key_env="TEACHER_KEY", timeout_seconds=1.0)
        check_endpoint(explain)
        asked(explain, lambda chat: chat.complete(request()))
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    for record in caplog.records:
        assert KEY not in record.getMessage()
        assert record.levelno == logging.DEBUG or TEXT not in record.getMessage()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert KEY not in repr(EndpointChat(explain)) + repr(vars(EndpointChat(explain)))


def test_fields_that_a_model_does_not_take_are_sent_no_more() -> None:
    with serving(not_taken=("max_tokens", "temperature")) as url:

        async def work(chat: EndpointChat) -> None:
            for seed in range(3):
                assert (await chat.complete(request(seed=seed))).text
            assert chat.not_taken == {"max_tokens", "temperature"}

        asked(settings(url), work)
        found = stats(url)
    assert found["requests"] == 2 + 3
    assert found["last_fields"] == {"model": "teacher", "seed": 2, "max_completion_tokens": 64}


def test_a_field_of_ones_own_that_is_not_taken_ends_the_run() -> None:
    with serving(not_taken=("top_k",)) as url:
        assert "explain.extra_body" in str(refusal(settings(url, extra_body={"top_k": 5})))


def test_retry_after_holds_back_every_request() -> None:
    with serving(faults=("429",), fault_first=1, retry_after="0.6") as url:

        async def work(chat: EndpointChat) -> None:
            first = asyncio.ensure_future(chat.complete(request(seed=0)))
            while not chat.faults:
                await asyncio.sleep(0.01)
            rest = await asyncio.gather(first, *(chat.complete(request(seed=seed)) for seed in range(1, 9)))
            assert all(completion.text for completion in rest)

        asked(settings(url), work)
        found = stats(url)
    assert found["requests"] == 10
    assert found["too_early"] == 0


def test_an_endpoint_that_asks_for_hours_ends_the_run() -> None:
    with serving(faults=("429",), fault_first=1, retry_after="86400") as url:
        assert "86,400 seconds" in str(refusal(settings(url)))


def test_no_more_requests_are_in_flight_than_wanted() -> None:
    with serving(latency=0.05) as url:

        async def work(chat: EndpointChat) -> int:
            tasks = [asyncio.ensure_future(chat.complete(request(seed=seed))) for seed in range(40)]
            most = 0
            while not all(task.done() for task in tasks):
                most = max(most, chat.in_flight)
                await asyncio.sleep(0.005)
            return most

        assert asked(settings(url, requests_in_flight=10), work) == 10
        found = stats(url)
    assert found["most_in_flight"] == 10
    assert found["connections"] <= 12  # connections are used again; two are of stats


def test_one_in_ten_requests_meets_a_fault_and_none_is_lost_or_doubled() -> None:
    count = 400
    with serving(
        brain=echo_brain, faults=FAULTS, fault_share=0.1, fault_seed=1, latency=0.01, retry_after="0.02"
    ) as url:

        async def work(chat: EndpointChat) -> tuple[list[Completion], Usage, int]:
            requests = [request(f"Text {number}.", seed=number) for number in range(count)]
            return await asyncio.gather(*map(chat.complete, requests)), chat.usage, sum(chat.faults.values())

        completions, usage, faults = asked(
            settings(url, requests_in_flight=32, timeout_seconds=4.0, max_retries=8), work
        )
        found = stats(url)
    refused = found["faults"].pop("refusal")
    texts = [completion.text for completion in completions]
    assert texts.count(REFUSAL) == refused > 0
    assert all(text in (f"Text {number}.", REFUSAL) for number, text in enumerate(texts))
    assert set(found["faults"]) == set(FAULTS) - {"refusal"}
    assert sum(found["faults"].values()) == faults
    assert (found["answered_bodies"], found["answered_twice"]) == (count, 0)
    assert usage.tokens == sum(c.prompt_tokens + c.completion_tokens for c in completions)


def test_a_budget_ends_the_run_and_what_is_in_flight_is_kept() -> None:
    with serving(brain=echo_brain, latency=0.05) as url:

        async def work(chat: EndpointChat) -> list[Completion | BaseException]:
            requests = [request(seed=seed) for seed in range(20)]
            found = await asyncio.gather(*map(chat.complete, requests), return_exceptions=True)
            num_kept = sum(isinstance(completion, Completion) for completion in found)
            assert chat.usage.tokens == num_kept * 21
            assert chat.usage.cost(explain) == pytest.approx(num_kept * (13 * 1.0 + 8 * 10.0) / 1e6)
            return found

        # The eighth answer passes 150 tokens; with four at a time, three more may be under way then.
        explain = settings(url, requests_in_flight=4, budget_tokens=150, input_price=1.0, output_price=10.0)
        found = asked(explain, work)
        requests = stats(url)["requests"]
    kept = [completion for completion in found if isinstance(completion, Completion)]
    assert [completion.text for completion in kept] == [TEXT] * requests
    assert 8 <= requests <= 11
    errors = [error for error in found if isinstance(error, BaseException)]
    assert len(errors) == 20 - requests
    assert all(isinstance(error, TeacherError) and "explain.budget_tokens" in str(error) for error in errors)


def test_earlier_runs_count_towards_the_budget() -> None:
    with serving() as url:
        explain = settings(url, budget_cost=1.0, input_price=1.0)

        async def run() -> None:
            chat = EndpointChat(explain, Usage(prompt_tokens=1_000_000))
            try:
                await chat.complete(request())
            finally:
                await chat.close()

        with pytest.raises(TeacherError, match=r"explain\.budget_cost"):
            asyncio.run(run())
        assert stats(url)["requests"] == 0


def test_tokens_that_an_endpoint_does_not_count_are_estimated() -> None:
    with serving(brain=echo_brain, faults=("no-usage",), fault_share=1.0) as url:
        completion = answer(settings(url))
    assert completion.prompt_tokens == (len(TEXT) + len("You judge texts.") + 2) // 3
    assert completion.completion_tokens == (len(TEXT) + 2) // 3


def test_half_characters_are_replaced() -> None:
    with serving(brain="tests.unit.chat.test_endpoint:half_brain") as url:
        assert answer(settings(url)).text == "half ?."


def half_brain(messages: list[dict[str, Any]], seed: int) -> str:
    return "half \ud83d."


def test_a_request_that_is_called_off_leaves_the_chat_usable() -> None:
    with serving(latency=0.1) as url:

        async def work(chat: EndpointChat) -> None:
            task = asyncio.ensure_future(chat.complete(request(seed=0)))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert chat.in_flight == 0
            assert (await chat.complete(request(seed=1))).text

        asked(settings(url, requests_in_flight=1), work)


def test_an_endpoint_that_can_be_asked_passes() -> None:
    with serving(key=KEY) as url:
        check_endpoint(settings(url, api_key_env="TEACHER_KEY"))
        assert stats(url)["requests"] == 0
    with serving(models_status=404, faults=("500",), fault_first=1) as url:
        check_endpoint(settings(url))
        assert stats(url)["requests"] == 2


def test_a_model_that_is_served_but_not_listed_passes() -> None:
    with serving(unlisted=("teacher",), models=("other",)) as url:
        check_endpoint(settings(url))


def told(explain: Explain) -> str:
    with pytest.raises(ConfigError) as caught:
        check_endpoint(explain)
    assert caught.value.exit_code == 2
    assert_silent(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_told(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TEACHER_KEY")
    if value is not None:
        monkeypatch.setenv("TEACHER_KEY", value)
    explain = settings("http://127.0.0.1:9/v1", api_key_env="TEACHER_KEY")
    assert "TEACHER_KEY is not set or empty" in told(explain)
    with pytest.raises(ConfigError, match="TEACHER_KEY"):
        EndpointChat(explain)


@pytest.mark.parametrize("value", ["two words", "ключ", "line\nend"])
def test_a_key_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TEACHER_KEY", value)
    message = told(settings("http://127.0.0.1:9/v1", api_key_env="TEACHER_KEY"))
    assert "TEACHER_KEY holds" in message
    assert value not in message


def test_a_refused_key_is_told() -> None:
    with serving(key="another") as url:
        assert "refused the key in TEACHER_KEY (401 invalid_api_key)" in told(settings(url, api_key_env="TEACHER_KEY"))
        assert "a request without a key" in told(settings(url))


def test_an_unknown_model_is_told_with_those_that_exist() -> None:
    with serving(models=("big-teacher-7b", "small-teacher-1b", "judge")) as url:
        message = told(settings(url, model="big-teacher-8b"))
    assert "Did you mean 'big-teacher-7b'?" in message
    assert "'judge', 'small-teacher-1b'" in message
    with serving(models=tuple(f"model-{number}" for number in range(30))) as url:
        message = told(settings(url, model="zzz"))
    assert message.endswith(", ...")
    assert len(message) < 400
    with serving(models_status=404, models=("other",)) as url:
        assert "knows no model 'teacher'" in told(settings(url))


def test_an_endpoint_that_is_down_is_told() -> None:
    with serving() as url:
        pass
    message = told(settings(url))
    assert "nobody answers" in message
    assert url in message


@pytest.mark.parametrize("url", ["http://:99/v1", "https://host:port/v1"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    assert "explain.base_url" in told(settings(url))


def test_an_endpoint_that_starts_up_is_told() -> None:
    with serving(models_status=503) as url:
        assert "answered 503" in told(settings(url))
    with serving(models_status=501) as url:
        check_endpoint(settings(url))
