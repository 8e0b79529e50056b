"""An OpenAI-compatible server that answers the same request with the same words and is faulty on purpose.

Standard library only, one process, one thread, well over 400 requests a second:

    python tests/support/endpoint.py --port 0 --latency 0.2 --faults 429,500,reset --fault-share 0.1

It prints its port and serves POST /v1/chat/completions, GET /v1/models, GET /stats and GET /prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: From the messages and the seed of a request to the words of the answer.
Brain = Callable[[list[dict[str, Any]], int], str]

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = "I'm sorry, but I can't help with that."

#: Faults after which a client should ask again; "refusal" is an answer like any other.
FAULTS = ("429", "500", "503", "reset", "timeout", "truncated", "no-choices", "refusal")

#: Further kinds: any status by its number, and these.
MORE_FAULTS = ("closed", "html", "no-body", "blank", "length", "filter", "no-usage")

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


def plain_brain(messages: list[dict[str, Any]], seed: int) -> str:
    """Names some words of the last message; the seed chooses which."""
    words = sorted({word.strip(".,;:!?()\"'") for word in messages[-1]["content"].split() if len(word) > 4})
    by_hash = sorted(words, key=lambda word: hashlib.sha256(f"{seed}:{word}".encode()).digest())
    return f"The text speaks of {', '.join(by_hash[:5]) or 'nothing'}, and that decides it."


def echo_brain(messages: list[dict[str, Any]], seed: int) -> str:
    """Says the last message again."""
    return str(messages[-1]["content"])


@dataclass
class Options:
    """What the server does; times in seconds."""

    port: int = 0
    latency: float = 0.0
    models: Sequence[str] = ("teacher",)
    unlisted: Sequence[str] = ()
    models_status: int = 200
    key: str | None = None
    brain: str = ""
    reasoning: str = ""
    not_taken: Sequence[str] = ()
    fault_share: float = 0.0
    fault_seed: int = 0
    faults: Sequence[str] = FAULTS
    fault_first: int = 0
    retry_after: str = "0.2"
    retry_after_header: str = "retry-after"
    raw: str = ""  # folder; a message is answered with the file that it names, byte for byte


@dataclass
class Server:
    """Counts what it is asked and decides every fault by a hash, so that a second attempt has a chance of its own."""

    options: Options
    brain: Brain
    seen: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    connections: int = 0
    closed_until: float = 0.0
    too_early: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    prompts: set[str] = field(default_factory=set)

    def stats(self) -> dict[str, Any]:
        return {
            "requests": sum(self.seen.values()),
            "bodies": len(self.seen),
            "answered_bodies": len(self.answered),
            "answered_twice": sum(count > 1 for count in self.answered.values()),
            "faults": dict(self.faults),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "connections": self.connections,
            "too_early": self.too_early,
            "last_headers": self.headers,
            "last_fields": {name: value for name, value in self.fields.items() if name != "messages"},
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length") or 0))
                if not await self.answer(method, path, headers, body, reader, writer):
                    break
        writer.close()

    async def answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answers one request; False where the connection ends with it."""
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if self.options.raw:
            name = json.loads(body)["messages"][-1]["content"] if body else path.rpartition("/")[2]
            writer.write(Path(self.options.raw, name).read_bytes())
            await writer.drain()
            return False
        if path == "/stats":
            send(writer, 200, self.stats())
        elif path == "/prompts":
            send(writer, 200, {"prompts": sorted(self.prompts)})
        elif self.options.key is not None and given != self.options.key:
            send(writer, 401, error(f"Incorrect API key provided: {given}", "invalid_api_key"))
        elif path == "/v1/models" and self.options.models_status != 200:
            send(writer, self.options.models_status, error("not now", "some_code"))
        elif (method, path) == ("GET", "/v1/models"):
            send(writer, 200, {"object": "list", "data": [{"id": m, "object": "model"} for m in self.options.models]})
        elif (method, path) == ("POST", "/v1/chat/completions"):
            self.headers = dict(headers)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                return await self.complete(body, given, reader, writer)
            finally:
                self.in_flight -= 1
        else:
            send(writer, 404, error(f"no such path: {path}", "not_found"))
        return True

    async def complete(
        self, body: bytes, given: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        self.too_early += time.monotonic() < self.closed_until
        digest = hashlib.sha256(body).hexdigest()
        fault = self.fault_of(digest)
        self.seen[digest] += 1
        self.fields = asked = json.loads(body)
        self.prompts.add(asked["messages"][-1]["content"])
        if asked["model"] not in (*self.options.models, *self.options.unlisted):
            send(writer, 404, error(f"The model {asked['model']!r} does not exist", "model_not_found"))
            return True
        for name in sorted(set(self.options.not_taken) & set(asked)):
            send(writer, 400, error(f"Unsupported parameter: {name}", "unsupported_parameter", name))
            return True
        if self.options.latency:
            await asyncio.sleep(self.options.latency)
        if fault:
            self.faults[fault] += 1
        if fault.isdigit():
            # As careless servers do: the key and the prompt stand in the body of the error.
            said = error(f"{given} may not ask: {asked['messages'][-1]['content']}", "some_code")
            wait = {self.options.retry_after_header: self.options.retry_after} if fault in ("429", "503") else {}
            if wait and self.options.retry_after_header == "retry-after":
                self.closed_until = time.monotonic() + float(self.options.retry_after)
            send(writer, int(fault), said, wait)
            return True
        if fault == "timeout":
            await reader.read()  # until the client gives up
            return False
        if fault == "closed":
            return False
        said = self.completion(asked, fault)
        if fault == "reset":
            writer.write(head_of(200, 10_000) + json.dumps(said).encode())
            await writer.drain()
            writer.transport.abort()
            return False
        if fault == "truncated":
            whole = json.dumps(said).encode()
            writer.write(head_of(200, len(whole) // 2) + whole[: len(whole) // 2])
        elif fault == "no-body":
            writer.write(head_of(200, 0))
        elif fault == "html":
            page = b"<html>502</html>"
            writer.write(head_of(200, len(page)).replace(b"application/json", b"text/html") + page)
        else:
            if fault in ("", "refusal"):
                self.answered[digest] += 1
            send(writer, 200, said)
        return True

    def fault_of(self, digest: str) -> str:
        options = self.options
        total = sum(self.seen.values())
        if total < options.fault_first:
            return options.faults[total % len(options.faults)]
        if not options.fault_share:
            return ""
        drawn = hashlib.sha256(f"{options.fault_seed}:{digest}:{self.seen[digest]}".encode()).digest()
        if int.from_bytes(drawn[:8]) >= options.fault_share * 2**64:
            return ""
        return options.faults[int.from_bytes(drawn[8:16]) % len(options.faults)]

    def completion(self, asked: Mapping[str, Any], fault: str) -> dict[str, Any]:
        text = {"refusal": REFUSAL, "blank": " \n", "filter": ""}.get(fault)
        if text is None:
            text = self.brain(asked["messages"], asked.get("seed", 0))
        message = {"role": "assistant", "content": text}
        finish = {"length": "length", "filter": "content_filter"}.get(fault, "stop")
        if fault == "length":
            message["content"] = "<think>I go on and on"
        if self.options.reasoning:
            message |= {"reasoning_content": self.options.reasoning, "reasoning": self.options.reasoning}
        choices = [] if fault == "no-choices" else [{"index": 0, "message": message, "finish_reason": finish}]
        prompt_tokens = sum(len(message["content"]) for message in asked["messages"]) // 4
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(str(message["content"]).split())}
        whole = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": asked["model"]}
        return whole | {"choices": choices} | ({} if fault == "no-usage" else {"usage": usage})


def error(message: str, code: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def head_of(status: int, length: int, headers: Mapping[str, str] | None = None) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    start = f"HTTP/1.1 {status} {REASONS.get(status, 'Other')}\r\n"
    return f"{start}content-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n".encode()


def send(
    writer: asyncio.StreamWriter, status: int, said: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> None:
    body = json.dumps(said).encode()
    writer.write(head_of(status, len(body), headers) + body)


async def serve(options: Options, stop_with_stdin: bool) -> None:
    module, _, function = options.brain.partition(":")
    brain = getattr(importlib.import_module(module), function) if module else plain_brain
    server = await asyncio.start_server(Server(options, brain).serve, "127.0.0.1", options.port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    stopped = asyncio.Event()
    if stop_with_stdin:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
    await stopped.wait()


@contextlib.contextmanager
def serving(brain: str | Brain = "", **options: Any) -> Iterator[str]:
    """Starts the server as a process of its own; it ends with the block, or with this process.

    Args:
        brain: a function that can be imported, or its name as "module:function"; by default `plain_brain`.
        options: fields of `Options`.

    Yields:
        Its address, as http://127.0.0.1:PORT/v1.
    """
    name = brain if isinstance(brain, str) else f"{brain.__module__}:{brain.__qualname__}"
    chosen = Options(**options, brain=name.replace("__main__:", "tests.support.endpoint:"))
    command = [sys.executable, str(Path(__file__).resolve()), "--stop-with-stdin", *words_of(chosen)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def stats(base_url: str) -> dict[str, Any]:
    """What a running server has counted."""
    return _told(base_url, "/stats")


def prompts(base_url: str) -> set[str]:
    """The last message of each conversation that a running server was asked to go on with."""
    return set(_told(base_url, "/prompts")["prompts"])


def _told(base_url: str, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(base_url.removesuffix("/v1") + path, timeout=10) as response:
        found: dict[str, Any] = json.load(response)
    return found


def words_of(options: Options) -> list[str]:
    """The command line that says the same as these options."""
    words = []
    for name, value in vars(options).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, value if isinstance(value, str) else ",".join(value) if name in LISTS else str(value)]
    return words


LISTS = ("models", "unlisted", "faults", "not_taken")


def options_of(words: Sequence[str] | None = None) -> tuple[Options, bool]:
    """Reads the command line: one flag a field of `Options`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when the standard input does")
    for name, default in vars(Options()).items():
        flag = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(flag, action="store_true")
        elif name in LISTS:
            parser.add_argument(
                flag, type=lambda value: [part for part in value.split(",") if part], default=default, metavar="A,B,..."
            )
        else:
            parser.add_argument(flag, type=str if default is None else type(default), default=default)
    found = vars(parser.parse_args(words))
    stop_with_stdin = found.pop("stop_with_stdin")
    return Options(**found), stop_with_stdin


if __name__ == "__main__":
    asyncio.run(serve(*options_of()))
