"""A real MLflow server on loopback, with a database and files of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STARTS_WITHIN_SECONDS = 90.0
_ENDS_WITHIN_SECONDS = 15.0


class TrackingServer:
    """A server that can be killed and started again at the same address, over the same database.

    Attributes:
        address: tracking address and UI.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        folder = self._folder
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
            *("--artifacts-destination", str(folder / "files")),
        ]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (folder / "server.log").open("ab") as log:
            # A session of its own, so that its workers end with it.
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
            )
        _wait(self._process, self.address, folder / "server.log")

    def kill(self) -> None:
        """Ends it and its workers at once, as by kill -9, if it is at work."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_ENDS_WITHIN_SECONDS)
        self._process = None

    def end(self) -> None:
        """Ends it, if it is at work."""
        if self._process is not None:
            _end(self._process)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Serves the UI and the tracking address that it yields; ends every process that it started."""
    server = TrackingServer(folder)
    try:
        server.start()
        yield server.address
    finally:
        server.end()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"mlflow server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(_ENDS_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.2)  # workers of the group, which the next signal finds if they are left
    server.wait(_ENDS_WITHIN_SECONDS)
