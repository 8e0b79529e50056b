"""A proxy before an MLflow server that loses answers, answers nothing, or lets nobody in."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class UnreliableProxy:
    """Passes requests on.

    Attributes:
        address: what clients are told in the place of the server's address.
        loses_first_answer: drops the answer to the first request of each kind and path, after the server did its work.
        is_down: closes every connection without a word.
        hangs: keeps every connection and never answers.
        refused_paths: parts of paths that are answered by 500 and not passed on.
        lost: method and path of each request whose answer was dropped.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.loses_first_answer = self.is_down = self.hangs = False
        self.refused_paths: tuple[str, ...] = ()
        self.lost: list[str] = []
        self.released = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

            def log_message(self, *words: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        request.close_connection = True
        if self.hangs:
            self.released.wait()
            return
        if self.is_down:
            return
        if any(part in request.path for part in self.refused_paths):
            request.send_error(500)
            return
        status, headers, answer = self._ask(request, body)
        name = f"{request.command} {urlsplit(request.path).path}"
        if self.loses_first_answer and name not in self.lost:
            self.lost.append(name)
            return
        request.send_response(status)
        for key, value in headers:
            if key.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                request.send_header(key, value)
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def _ask(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(str(self._target.hostname), self._target.port, timeout=60)
        try:
            headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
            connection.request(request.command, request.path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


@contextmanager
def unreliable_proxy(target: str) -> Iterator[UnreliableProxy]:
    """A proxy before `target`, that passes everything on until it is told otherwise."""
    proxy = UnreliableProxy(target)
    thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()
