"""How much of an endpoint's throughput the teacher's client uses: 64 requests in flight, each answered in 200 ms.

    python benchmarks/explain_throughput.py [--rounds 5] [--requests 6000]

Rounds of two clients take turns against one server in a process of its own: `EndpointChat`, and a bare one that
writes ready bytes into sockets and reads no answer, which is what this machine can do at best. The share is of
64 / 0.2 s = 320 requests a second. The result also goes to benchmarks/out/explain_throughput.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clsgen_dist.chat.endpoint import EndpointChat  # noqa: E402
from clsgen_dist.chat.interface import Request  # noqa: E402
from clsgen_dist.config.explain import Explain  # noqa: E402
from tests.support.endpoint import serving, stats  # noqa: E402

IN_FLIGHT, LATENCY_SECONDS = 64, 0.2
BEST_PER_SECOND = IN_FLIGHT / LATENCY_SECONDS

#: About as long as an abstract.
TEXT = "The trial compared two doses in adults with mild disease, and followed them for a year. " * 16


@dataclass(frozen=True)
class Round:
    """One client's turn.

    Attributes:
        requests_per_second: answered.
        cpu_milliseconds: processor time of the client's process, a request.
    """

    requests_per_second: float
    cpu_milliseconds: float


def request_of(number: int) -> Request:
    return Request(messages=({"role": "user", "content": TEXT},), temperature=0.7, max_tokens=256, seed=number)


async def take_turn(ask: Callable[[int], Awaitable[object]], num_requests: int) -> Round:
    """Keeps as many requests in flight as are wanted until all are answered."""
    numbers = iter(range(num_requests))

    async def hand() -> None:
        for number in numbers:
            await ask(number)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(hand() for _ in range(IN_FLIGHT)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Round(round(num_requests / wall, 1), round(1000 * cpu / num_requests, 3))


async def run_chat(base_url: str, num_requests: int) -> Round:
    explain = Explain(base_url=base_url, model="teacher", api_key_env=None, requests_in_flight=IN_FLIGHT)
    chat = EndpointChat(explain)
    try:
        await chat.complete(request_of(-1))  # imports and the first connection are not what is measured
        return await take_turn(lambda number: chat.complete(request_of(number)), num_requests)
    finally:
        await chat.close()


async def run_bare(base_url: str, num_requests: int) -> Round:
    address = urlsplit(base_url)
    request = request_of(0)
    body = json.dumps({"model": "teacher", "messages": request.messages, "seed": 0}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    idle = [await asyncio.open_connection(address.hostname, address.port) for _ in range(IN_FLIGHT)]

    async def ask(number: int) -> None:
        reader, writer = idle.pop()
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]))
        idle.append((reader, writer))

    result = await take_turn(ask, num_requests)
    for _, writer in idle:
        writer.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=6000, help="of each client in each round")
    options = parser.parse_args()
    clients = {"EndpointChat": run_chat, "bare": run_bare}
    rounds: dict[str, list[Round]] = {name: [] for name in clients}
    with serving(latency=LATENCY_SECONDS) as base_url:
        for number in range(options.rounds):
            for name, run in clients.items():
                turn = asyncio.run(run(base_url, options.requests))
                rounds[name].append(turn)
                print(f"round {number + 1}, {name:<12} {describe(turn)}", flush=True)
        most_in_flight = stats(base_url)["most_in_flight"]
    medians = {name: Round(*(median(turns, field) for field in asdict(turns[0]))) for name, turns in rounds.items()}
    for name, turn in medians.items():
        print(f"median,  {name:<12} {describe(turn)}")
    result = {
        "in_flight": IN_FLIGHT,
        "most_in_flight": most_in_flight,
        "latency_seconds": LATENCY_SECONDS,
        "requests_a_round": options.requests,
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "share": {name: round(turn.requests_per_second / BEST_PER_SECOND, 4) for name, turn in medians.items()},
        "median": {name: asdict(turn) for name, turn in medians.items()},
        "rounds": {name: [asdict(turn) for turn in turns] for name, turns in rounds.items()},
    }
    path = ROOT / "benchmarks/out/explain_throughput.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path.relative_to(ROOT))


def median(turns: list[Round], field: str) -> float:
    return statistics.median(getattr(turn, field) for turn in turns)


def describe(turn: Round) -> str:
    share = turn.requests_per_second / BEST_PER_SECOND
    speed = f"{turn.requests_per_second:6.1f} requests/s, {share:6.1%} of {BEST_PER_SECOND:.0f}"
    return f"{speed}; {turn.cpu_milliseconds} ms of processor time each"


if __name__ == "__main__":
    main()
