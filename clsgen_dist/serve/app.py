"""The server: one ASGI application that checks a request before the model sees it, and says nothing but what it must.

    POST /invocations   {"dataframe_records": [{"text": ...}], "params": {"explain": true}} -> predictions
    GET  /health        200 as soon as the model is loaded
    GET  /version       model, program, limits

The request is that of `mlflow models serve`. Other than MLflow's own server this one refuses what it does not know,
bounds what it reads and what waits, and puts neither a stack trace nor a row into an error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import traceback
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from clsgen_dist import __version__
from clsgen_dist.serve.answering import MAX_ROWS, Answerer, RefusedRequestError
from clsgen_dist.serve.desk import Desk, FullError

#: Bytes of a request, at most.
MAX_BYTES = 2**20
#: Requests that wait for the model, at most, and seconds that one waits for its body and for its answer.
QUEUE_SIZE, TIMEOUT_S = 64, 60
#: Requests whose bodies are held at one time, for each that may wait.
_OPEN_A_PLACE = 4
_LOG = logging.getLogger("clsgen_dist.serve")
Predictions = list[dict[str, Any]]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEYS = {"dataframe_records", "dataframe_split", "params"}


def make_app(
    answerer: Answerer, *, max_bytes: int = MAX_BYTES, queue_size: int = QUEUE_SIZE, timeout_s: float = TIMEOUT_S
) -> Starlette:
    """The application of a loaded bundle.

    Args:
        answerer: the bundle.
        max_bytes: of a request's body; a longer one is refused before it is read.
        queue_size: requests that wait for the model; a further one is sent away.
        timeout_s: seconds that a request waits for its body, and for its answer.
    """
    desk: Desk[tuple[list[Any], Mapping[str, Any]], Predictions] = Desk(
        lambda asked: answerer.answer(*asked), queue_size
    )
    busy = RefusedRequestError(503, "TOO_MANY_REQUESTS", f"{queue_size} requests wait, which is the limit; try later")
    num_open = 0

    async def answered(request: Request) -> Predictions:
        try:
            async with asyncio.timeout(timeout_s):
                body = await _body(request, max_bytes)
        except TimeoutError:
            raise RefusedRequestError(408, "TIMEOUT", f"the body did not come within {timeout_s:g} s") from None
        try:
            waiting = desk.submit(parse_request(body, request.headers.get("content-type", "")))
        except FullError:
            raise busy from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(waiting), timeout_s)
        except TimeoutError:
            raise RefusedRequestError(504, "TIMEOUT", f"no answer within {timeout_s:g} s; ask for fewer rows") from None

    async def invocations(request: Request) -> JSONResponse:
        nonlocal num_open
        name = request_id(request.headers.get("x-request-id"))
        num_open += 1
        try:
            if num_open > _OPEN_A_PLACE * queue_size:
                raise busy
            predictions = await answered(request)
        except RefusedRequestError as refusal:
            return _told(name, {"error_code": refusal.code, "message": str(refusal)}, refusal.status)
        except Exception as error:  # noqa: BLE001 - whatever it is, its words may hold the row
            places = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("request %s: %s\n%s", name, type(error).__name__, places)
            return _told(name, {"error_code": "INTERNAL_ERROR", "message": "the model could not answer"}, 500)
        finally:
            num_open -= 1
        return _told(name, {"predictions": predictions}, 200)

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok" if desk.is_alive else "failed"}, 200 if desk.is_alive else 503)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(desk.close)

    async def version(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "model_version": answerer.version,
                "calibrated": answerer.is_calibrated,
                "clsgen_dist": __version__,
                "limits": {
                    "bytes": max_bytes,
                    "rows": MAX_ROWS,
                    "text_tokens": answerer.max_text_tokens,
                    "waiting_requests": queue_size,
                    "seconds": timeout_s,
                },
            }
        )

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/health", health),
            Route("/ping", health),
            Route("/version", version),
        ],
        lifespan=lifespan,
    )


def request_id(given: str | None) -> str:
    """The id that a client gave its request, where it is a harmless one, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def parse_request(body: bytes, content_type: str) -> tuple[list[Any], Mapping[str, Any]]:
    """Rows and parameters of a request.

    Raises:
        RefusedRequestError: it is not JSON (400, or 415 where it says so), or not such an object.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusedRequestError(415, "UNSUPPORTED_MEDIA_TYPE", "expected Content-Type: application/json")
    try:
        tree = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RefusedRequestError(400, "NOT_JSON", "the body is not JSON in UTF-8") from None
    if not isinstance(tree, dict):
        raise RefusedRequestError(400, "BAD_REQUEST", "expected an object with dataframe_records")
    if tree.keys() - _KEYS or ("dataframe_records" in tree) == ("dataframe_split" in tree):
        raise RefusedRequestError(
            400, "BAD_REQUEST", "expected dataframe_records or dataframe_split, perhaps params, and nothing else"
        )
    params = tree.get("params")
    if params is not None and not isinstance(params, dict):
        raise RefusedRequestError(400, "BAD_REQUEST", "params: expected an object")
    records = tree["dataframe_records"] if "dataframe_records" in tree else _records(tree["dataframe_split"])
    if not isinstance(records, list):
        raise RefusedRequestError(400, "BAD_REQUEST", "dataframe_records: expected a list of objects")
    return records, params or {}


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _records(split: Any) -> list[Any]:
    if not isinstance(split, dict) or split.keys() - {"columns", "data", "index"}:
        raise RefusedRequestError(400, "BAD_REQUEST", "dataframe_split: expected columns and data")
    columns, data = split.get("columns"), split.get("data")
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise RefusedRequestError(400, "BAD_REQUEST", "dataframe_split.columns: expected a list of names")
    if not isinstance(data, list) or not all(isinstance(row, list) and len(row) == len(columns) for row in data):
        raise RefusedRequestError(400, "BAD_REQUEST", "dataframe_split.data: expected rows as long as columns")
    return [dict(zip(columns, row, strict=True)) for row in data]


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body, which is read no further than the limit."""
    declared = request.headers.get("content-length", "0")
    found = bytearray()
    if not declared.isdecimal() or int(declared) <= max_bytes:
        async for part in request.stream():
            found += part
            if len(found) > max_bytes:
                break
        else:
            return bytes(found)
    raise RefusedRequestError(413, "OVER_THE_LIMIT", f"the body is longer than the limit of {max_bytes} bytes")


def _told(name: str, content: dict[str, Any], status: int) -> JSONResponse:
    headers = {"X-Request-ID": name} | ({"Retry-After": "1"} if status == 503 else {})
    return JSONResponse({**content, "request_id": name}, status_code=status, headers=headers)
