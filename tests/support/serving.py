"""A client of a model server on loopback."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Reply:
    """What came back. Attributes: status, headers with names in lower case, raw body."""

    status: int
    headers: dict[str, str]
    raw: str

    @property
    def content(self) -> Any:
        return json.loads(self.raw)

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


class Client:
    """Asks one server, each time over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, content: Any, *, request_id: str | None = None) -> Reply:
        """Posts an object to /invocations."""
        return self.send(json.dumps(content).encode(), request_id=request_id)

    def send(
        self, body: bytes | Iterable[bytes], *, kind: str = "application/json", request_id: str | None = None
    ) -> Reply:
        """Posts bytes, or chunks without a length, to /invocations."""
        headers = {"content-type": kind} | ({"x-request-id": request_id} if request_id else {})
        return self._call("POST", "/invocations", body, headers)

    def get(self, path: str) -> Reply:
        return self._call("GET", path, None, {})

    def _call(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read().decode())
        finally:
            connection.close()
