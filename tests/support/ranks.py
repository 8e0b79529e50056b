"""Real ranks without a launcher: processes over gloo that wait for functions to run, one after another.

Starting a rank costs its imports, some ten seconds; so a pool of ranks lives as long as the test session, and each
`run` costs what it runs. After an error or a time limit the ranks are killed, and the next `run` starts fresh ones.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

#: After one rank has failed, the others may have something to say too.
_GRACE_SECONDS = 5.0

_ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MASTER_ADDR": "127.0.0.1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


class RanksFailed(Exception):
    """A rank raised, died or took too long; the message holds the tracebacks."""


class RankPool:
    """N ranks of one process group."""

    def __init__(
        self, world_size: int, environment: Mapping[str, str] | None = None, *, start_method: str = "spawn"
    ) -> None:
        """Starts nothing yet.

        Args:
            world_size: number of ranks.
            environment: added to, or replaces, what ranks get; an empty value removes it.
            start_method: of multiprocessing; forked from a server, ranks need no imports that the server has done.
        """
        self._world_size = world_size
        self._environment = _ENVIRONMENT | dict(environment or {})
        self._start_method = start_method
        self._ranks: list[tuple[Any, Connection]] = []

    def run(self, function: Callable[..., Any], *args: Any, seconds: float = 120.0) -> list[Any]:
        """Calls a module-level function on every rank.

        Args:
            function: what to run; finds its rank in the environment, or in the process group that it joins.
            args: its arguments, the same on every rank; they and the results travel by pickle, tensors as numpy arrays.
            seconds: longest time that it may take; starting the ranks does not count.

        Returns:
            The results, by rank.

        Raises:
            RanksFailed: a rank raised or died, or the time was over; all ranks are ended.
        """
        if not self._ranks:
            self._start()
        for _, connection in self._ranks:
            connection.send((function, args))
        results: dict[int, Any] = {}
        failures: dict[int, str] = {}
        deadline = time.monotonic() + seconds
        while len(results) + len(failures) < self._world_size:
            waiting = {c: n for n, (_, c) in enumerate(self._ranks) if n not in results and n not in failures}
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                failures |= dict.fromkeys(waiting.values(), "was still busy when the time was over\n")
            for connection in ready:
                rank = waiting[connection]
                try:
                    succeeded, answer = connection.recv()
                except (EOFError, ConnectionError):
                    succeeded, answer = False, "ended without a word\n"
                (results if succeeded else failures)[rank] = answer
            if failures:
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        if failures:
            self.close(broken=True)
            told = "\n".join(f"rank {rank} {failures[rank]}" for rank in sorted(failures))
            raise RanksFailed(f"{function.__name__} on {self._world_size} ranks:\n{told}")
        return [results[rank] for rank in range(self._world_size)]

    def close(self, *, broken: bool = False) -> None:
        """Ends the ranks, with `broken` at once; a later `run` starts new ones."""
        for _, connection in self._ranks:
            connection.close()
        for process, _ in self._ranks:
            process.join(timeout=0 if broken else _GRACE_SECONDS)
            process.kill()
            process.join()
        self._ranks = []

    def _start(self) -> None:
        context: Any = multiprocessing.get_context(self._start_method)
        port = str(free_port())
        for rank in range(self._world_size):
            environment = self._environment | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self._world_size),
                "LOCAL_WORLD_SIZE": str(self._world_size),
                "MASTER_PORT": port,
            }
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, environment), name=f"rank{rank}", daemon=True)
            process.start()
            theirs.close()
            self._ranks.append((process, ours))
        for _, connection in self._ranks:
            connection.recv()  # its imports are done


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    """What a rank does: runs what it is sent until the pool lets go of it."""
    for name, value in environment.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    warnings.simplefilter("ignore")  # gloo's collectives give one at every step
    import clsgen_dist.accelerator
    import clsgen_dist.engine.deepspeed  # noqa: F401 - heavy, and needed by all that ranks run

    connection.send("ready")
    while True:
        try:
            function, args = connection.recv()
        except EOFError:
            # Tearing down modules takes seconds; only what multiprocessing would miss is put away.
            multiprocessing.util._exit_function()
            os._exit(0)
        try:
            answer = (True, function(*args))
        except BaseException:  # noqa: BLE001 - told to the test, whatever it is
            answer = (False, f"raised\n{traceback.format_exc()}")
        connection.send(answer)
