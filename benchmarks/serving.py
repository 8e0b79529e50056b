"""A server under load from loopback: lost or mixed-up answers, memory, latency, rows a second; then malformed requests.

    python benchmarks/serving.py --bundle runs/demo/bundle [--requests 2000] [--clients 8] [--explain 0.1]

Starts launchers/serve.py. Every text is asked alone first, one after another, which gives the answer that the load must
give again; then the clients ask all requests (1 to 4 rows of mixed length), each over a kept connection. Every answer
must carry its request's id and its rows' ids, and say what the text alone got: the same label and words, and
probabilities to 1e-5 (rows of one request share a batch, whose padding moves the last bits). Then come as many
malformed requests, which must get 4xx, and the server must answer as before. Results go to benchmarks/out/serving.json
and serving.md. Exit code 1 where an answer was wrong.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: Requests after which memory is looked at first: what grows until then is caches that are filled once.
WARM_REQUESTS = 200
_PATIENCE_SECONDS = 180
_WORDS = ("fever", "cough", "calm", "pain", "alert", "pulse", "rash", "walks", "eats", "tired", "since", "monday")


@dataclass(frozen=True)
class Asked:
    """A request: its id, texts by row id, and whether explanations are asked for."""

    name: str
    texts: dict[str, str]
    explain: bool

    def body(self) -> bytes:
        rows = [{"id": name, "text": text} for name, text in self.texts.items()]
        return json.dumps({"dataframe_records": rows, "params": {"explain": self.explain}}).encode()


@dataclass(frozen=True)
class Answer:
    """What came back, and after how many seconds."""

    status: int
    request_id: str
    body: bytes
    seconds: float


class Client:
    """One kept connection, opened again where the server closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = self._open()

    def _open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE_SECONDS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, body: bytes, name: str, kind: str = "application/json") -> Answer:
        headers = {"Content-Type": kind, "X-Request-ID": name}
        started = time.perf_counter()
        try:
            self._connection.request("POST", "/invocations", body, headers)
            reply = self._connection.getresponse()
        except (ConnectionError, http.client.HTTPException):  # closed while it stood idle
            self._connection.close()
            self._connection = self._open()
            self._connection.request("POST", "/invocations", body, headers)
            reply = self._connection.getresponse()
        content = reply.read()
        if reply.getheader("connection") == "close":
            self._connection.close()
        return Answer(reply.status, reply.getheader("x-request-id", ""), content, time.perf_counter() - started)


@contextmanager
def server(bundle: Path, log: Path) -> Iterator[tuple[int, int]]:
    """Port and process of a server that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "launchers" / "serve.py"), "--bundle", str(bundle), "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        _wait(process, port, log)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def requests(count: int, explained: float, seed: int = 0) -> list[Asked]:
    """Requests of 1 to 4 rows with texts of 4 to 25 words."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        texts = {
            f"row-{number}-{row}": " ".join([*draw.choices(_WORDS, k=draw.randint(3, 24)), str(draw.randrange(1000))])
            for row in range(draw.choice((1, 1, 1, 2, 4)))
        }
        found.append(Asked(f"request-{number}", texts, draw.random() < explained))
    return found


def malformed(count: int, seed: int = 1) -> list[tuple[bytes, str]]:
    """Bodies that are no requests, of every kind in turn, and their content type."""
    draw = random.Random(seed)
    kinds: list[Any] = [
        lambda: (bytes(draw.randrange(256) for _ in range(draw.randrange(200))), "application/json"),
        lambda: (b'{"dataframe_records": [{"text": "cut', "application/json"),
        lambda: (b'{"dataframe_records": ' + b"[" * draw.randrange(1, 50_000), "application/json"),
        lambda: (json.dumps({"dataframe_records": [{"text": draw.random()}]}).encode(), "application/json"),
        lambda: (
            json.dumps({"dataframe_records": [{"text": "a"}], "params": {"explian": True}}).encode(),
            "application/json",
        ),
        lambda: (json.dumps({"dataframe_records": [{"text": "fever " * 3000}]}).encode(), "application/json"),
        lambda: (json.dumps({"dataframe_records": [{"text": "a"}] * 500}).encode(), "application/json"),
        lambda: (json.dumps({"dataframe_split": {"columns": ["text"], "data": [[1, 2]]}}).encode(), "application/json"),
        lambda: (json.dumps({"inputs": ["a"]}).encode(), "application/json"),
        lambda: (json.dumps([draw.random()]).encode(), "application/json"),
        lambda: (b'{"dataframe_records": [{"text": "\\ud800"}]}', "application/json"),
        lambda: (b"text\na\n", "text/csv"),
        lambda: (b" " * 2_000_000, "application/json"),
    ]
    return [kinds[number % len(kinds)]() for number in range(count)]


def rss_mb(pid: int) -> float:
    """Memory that a process holds, MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


def faults_of(asked: Asked, answer: Answer, alone: dict[tuple[str, bool], Any]) -> str | None:
    """What is wrong with an answer, in a word; None where nothing is."""
    if answer.status != 200:
        return f"status {answer.status}"
    if answer.request_id != asked.name:
        return "id of another request"
    rows = json.loads(answer.body)["predictions"]
    if [row["id"] for row in rows] != list(asked.texts):
        return "ids of other rows"
    for row, text in zip(rows, asked.texts.values(), strict=True):
        expected = alone[text, asked.explain]
        if (row["predicted"], row["explanation"]) != (expected["predicted"], expected["explanation"]):
            return "label or words of another answer"
        if any(abs(p - expected["probability"][label]) > 1e-5 for label, p in row["probability"].items()):
            return "probability of another answer"
    return None


def shared_out(port: int, jobs: list[Any], clients: int, work: Any) -> list[Any]:
    """Has clients, each with a connection of its own, do jobs; results in their order."""

    def some(first: int) -> list[Any]:
        with Client(port) as client:
            return [work(client, job) for job in jobs[first::clients]]

    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(some, range(clients)))
    return [parts[number % clients][number // clients] for number in range(len(jobs))]


def asked_alone(client: Client, asked: list[Asked]) -> dict[tuple[str, bool], Any]:
    """The answer to each text by itself, with and without explanation as its request asks."""
    found = {}
    for request in asked:
        for text in request.texts.values():
            one = Asked("single", {"a": text}, request.explain)
            found[text, request.explain] = json.loads(client.post(one.body(), "single").body)["predictions"][0]
    return found


def measure(bundle: Path, log: Path, num_requests: int, clients: int, explained: float) -> dict[str, Any]:
    """Runs it all; see the head of this file."""
    asked = requests(num_requests, explained)
    with server(bundle, log) as (port, pid):
        with Client(port) as single:
            alone = asked_alone(single, asked)

        def ask(client: Client, request: Asked) -> Answer:
            return client.post(request.body(), request.name)

        warm = min(WARM_REQUESTS, num_requests // 2)
        answers = shared_out(port, asked[:warm], clients, ask)
        before, started = rss_mb(pid), time.perf_counter()
        answers += shared_out(port, asked[warm:], clients, ask)
        seconds, after = time.perf_counter() - started, rss_mb(pid)
        wrong = Counter(fault for r, a in zip(asked, answers, strict=True) if (fault := faults_of(r, a, alone)))

        broken = malformed(num_requests)
        refused = shared_out(port, broken, clients, lambda client, job: client.post(job[0], "bad", job[1]))
        statuses = Counter(str(answer.status) for answer in refused)
        leaks = sum(b"Traceback" in answer.body or b"fever" in answer.body for answer in refused)
        with Client(port) as again:
            last = faults_of(asked[0], again.post(asked[0].body(), asked[0].name), alone)
        finally_mb = rss_mb(pid)
    taken = sorted(1000 * answer.seconds for answer in answers[warm:])
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    num_rows = sum(len(request.texts) for request in asked[warm:])
    return {
        "requests": num_requests,
        "clients": clients,
        "explained": sum(request.explain for request in asked),
        "wrong": dict(wrong),
        "p50_ms": round(cuts[49], 1),
        "p99_ms": round(cuts[98], 1),
        "rows_per_s": round(num_rows / seconds, 1),
        "requests_per_s": round(len(taken) / seconds, 1),
        "rss_mb_after_warm": round(before, 1),
        "rss_mb_after_load": round(after, 1),
        "rss_mb_after_malformed": round(finally_mb, 1),
        "malformed": dict(sorted(statuses.items())),
        "malformed_not_4xx": sum(not 400 <= answer.status < 500 for answer in refused),
        "malformed_that_told": leaks,
        "answers_as_before": last is None,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def is_right(found: dict[str, Any]) -> bool:
    """Whether nothing was lost, mixed up or told."""
    nothing = (found["wrong"], found["malformed_not_4xx"], found["malformed_that_told"])
    return not any(nothing) and bool(found["answers_as_before"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--explain", type=float, default=0.1, help="share of the requests that ask for explanations")
    words = parser.parse_args()
    out = ROOT / "benchmarks" / "out"
    out.mkdir(exist_ok=True)
    found = measure(words.bundle, out / "serving.log", words.requests, words.clients, words.explain)
    (out / "serving.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    lines = ["| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in found.items())]
    (out / "serving.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0 if is_right(found) else 1


if __name__ == "__main__":
    sys.exit(main())
