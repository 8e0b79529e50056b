"""Requests that meet: one inference at a time, a queue with an end, waiting with an end. Over a real socket."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from clsgen_dist.serve.app import make_app
from tests.support.serving import Client

ROWS = {"dataframe_records": [{"text": "a", "id": "one"}]}
#: The longest that a test waits for what must come.
PATIENCE_SECONDS = 60


class Stand:
    """Stands in for a bundle, and does as the test says."""

    version, is_calibrated, max_text_tokens = "7", False, 9

    def __init__(self, work: Callable[[list[Any]], Any]) -> None:
        self._work = work

    def answer(self, records: list[Any], params: Any) -> Any:
        return self._work(records)


@contextmanager
def serving(work: Callable[[list[Any]], Any], **settings: Any) -> Iterator[Client]:
    app = make_app(Stand(work), **settings)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Client(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def test_one_inference_at_a_time_and_no_more_waiting_than_the_queue_holds() -> None:
    gate, at_work, most = threading.Event(), 0, 0

    def slow(records: list[Any]) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        gate.wait(PATIENCE_SECONDS)
        at_work -= 1
        return records

    with serving(slow, queue_size=2) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.ask, ROWS, request_id=f"r-{n}") for n in range(8)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(reply.done() for reply in asked) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.get("/health").status == 200  # while the model is at work
        gate.set()
        replies = [reply.result() for reply in asked]
        assert client.ask(ROWS).status == 200
    assert sorted(reply.status for reply in replies) == [200] * 3 + [503] * 5
    assert {reply.request_id for reply in replies} == {f"r-{n}" for n in range(8)}
    assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status == 503)
    assert most == 1


def test_who_waited_too_long_is_told_and_not_answered_later() -> None:
    gate, seen = threading.Event(), list[str]()

    def slow(records: list[Any]) -> Any:
        seen.append(records[0]["text"])
        gate.wait(PATIENCE_SECONDS)
        return records

    with serving(slow, timeout_s=0.5) as client:
        with ThreadPoolExecutor(2) as pool:
            replies = list(pool.map(client.ask, [ROWS, ROWS]))
        assert [reply.status for reply in replies] == [504, 504]
        gate.set()
        assert client.ask({"dataframe_records": [{"text": "next"}]}).status == 200
    assert seen == ["a", "next"]


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with serving(lambda records: records, timeout_s=0.5) as client:
        with socket.create_connection(("127.0.0.1", client.port), timeout=PATIENCE_SECONDS) as slow:
            head = (
                b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"
            )
            slow.sendall(head + b"{")
            assert slow.recv(64).startswith(b"HTTP/1.1 408")
        assert client.ask(ROWS).status == 200


def test_a_failure_tells_nobody_what_it_was_about(caplog: pytest.LogCaptureFixture) -> None:
    def fail(records: list[Any]) -> Any:
        raise RuntimeError(f"cannot read {records[0]['text']}")

    with caplog.at_level(logging.ERROR, "clsgen_dist.serve"), serving(fail) as client:
        reply = client.ask({"dataframe_records": [{"text": "SECRET"}]}, request_id="r-9")
        assert client.get("/health").status == 200
    assert (reply.status, reply.content["request_id"]) == (500, "r-9")
    assert "Traceback" not in reply.raw
    assert "SECRET" not in reply.raw + caplog.text
    assert "r-9: RuntimeError" in caplog.text
    assert "in fail" in caplog.text
