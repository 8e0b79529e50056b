"""The checks of our server inside `mlflow models serve`.

MLflow's scoring server drops parameters that it does not know before a model is called, and puts rows and stack traces
into its own errors. No setting changes that. Its requests all pass through one function of
`mlflow.pyfunc.scoring_server`, found by name at every request, so a model that is loaded by that server puts another in
its place: the same request and answer, checked as in `app.py`.

Source: `init` and `invocations` in mlflow/pyfunc/scoring_server/__init__.py and app.py, MLflow 3.17.2.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from typing import Any

from clsgen_dist.serve.answering import Answerer, RefusedRequestError
from clsgen_dist.serve.app import MAX_BYTES, parse_request

_LOG = logging.getLogger("clsgen_dist.serve")
_SERVER = "mlflow.pyfunc.scoring_server"


def take_over(answerer: Answerer) -> bool:
    """Answers the requests of MLflow's scoring server from now on, where this process is one.

    Returns:
        Whether it is one.
    """
    server = sys.modules.get(_SERVER)
    if server is None or f"{_SERVER}.app" not in sys.modules:
        return False

    def invocations(data: bytes, content_type: str | None, model: object, input_schema: object) -> Any:
        status, content = answered(answerer, data, content_type or "")
        return server.InvocationsResponse(json.dumps(content), status, "application/json")

    server.invocations = invocations  # type: ignore[attr-defined]
    return True


def answered(answerer: Answerer, data: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to one request; never raises."""
    try:
        if len(data) > MAX_BYTES:
            raise RefusedRequestError(413, "OVER_THE_LIMIT", f"the body is longer than the limit of {MAX_BYTES} bytes")
        return 200, {"predictions": answerer.answer(*parse_request(data, content_type))}
    except RefusedRequestError as refusal:
        return refusal.status, {"error_code": refusal.code, "message": str(refusal)}
    except Exception as error:  # noqa: BLE001 - whatever it is, its words may hold the row
        _LOG.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        return 500, {"error_code": "INTERNAL_ERROR", "message": "the model could not answer"}
