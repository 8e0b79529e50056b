"""A loaded bundle that answers requests: rows and parameters checked, predictions as plain values. Knows no server."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from clsgen_dist.bundle import load_bundle
from clsgen_dist.predict.predictor import Predictor
from clsgen_dist.records import Prediction, Row

#: Rows of one request, at most.
MAX_ROWS = 256
#: Characters of an id, at most.
_MAX_ID = 200
#: Names and types of what may stand in `params`.
PARAMS = {"explain": bool, "max_new_tokens": int}
_COLUMNS = ("text", "id")


class RefusedRequestError(Exception):
    """A request that cannot be answered; the message may be shown to whoever asked, and holds no text of a row.

    Attributes:
        status: HTTP status, 4xx.
        code: the kind of fault, in capitals.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Answerer:
    """A bundle that answers one request after another, whichever thread brings them.

    Attributes:
        predictor: model and tokenizer.
        version: what is said of the model in every answer: the registered version, or the run of a plain bundle.
    """

    predictor: Predictor
    version: str
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def is_calibrated(self) -> bool:
        """Whether a calibrator was fitted, so that a probability means what it says."""
        return not self.predictor.bundle.calibrator.is_identity

    @property
    def max_text_tokens(self) -> int:
        """Tokens of a text; a longer one would be cut, so it is refused."""
        return self.predictor.bundle.tokenizer.text_room

    def answer(self, records: Sequence[Any], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answers rows, in their order.

        Args:
            records: objects with `text` and perhaps `id`.
            params: `explain` (false) and `max_new_tokens`, at most and by default that of the bundle.

        Raises:
            RefusedRequestError: an unknown parameter or column, a wrong type (400); too many rows, an empty or too long
                text, a number out of range (422).
        """
        explain, limit = self._params(params)
        rows = _rows(records)
        with self._turn:  # one model, one memory: requests that meet here wait for each other
            self._check_lengths(rows)
            predictor = replace(self.predictor, max_new_tokens=limit)
            predictions = predictor.predict(rows, num_explained=None if explain else 0)
        return [self._content(prediction) for prediction in predictions]

    def _params(self, params: Mapping[str, Any]) -> tuple[bool, int]:
        for name, value in params.items():
            if name not in PARAMS:
                known = ", ".join(PARAMS)
                raise RefusedRequestError(400, "UNKNOWN_PARAMETER", f"params: {name[:50]!a}: unknown; known: {known}")
            if type(value) is not PARAMS[name]:
                kind = {bool: "true or false", int: "a whole number"}[PARAMS[name]]
                raise RefusedRequestError(400, "BAD_REQUEST", f"params.{name}: expected {kind}")
        most = self.predictor.max_new_tokens
        limit = params.get("max_new_tokens", most)
        if not 1 <= limit <= most:
            raise RefusedRequestError(
                422, "OVER_THE_LIMIT", f"params.max_new_tokens: found {limit}, expected 1 to {most}"
            )
        return bool(params.get("explain", False)), limit

    def _check_lengths(self, rows: Sequence[Row]) -> None:
        most = self.max_text_tokens
        for number, count in enumerate(self.predictor.bundle.tokenizer.count_text_tokens([row.text for row in rows])):
            if count > most:
                raise RefusedRequestError(
                    422, "OVER_THE_LIMIT", f"row {number}: its text has {count} tokens, the limit is {most}"
                )

    def _content(self, prediction: Prediction) -> dict[str, Any]:
        return {
            "id": prediction.id,
            "predicted": prediction.predicted,
            "probability": prediction.probability,
            "explanation": prediction.explanation,
            "is_cut": prediction.is_cut,
            "calibrated": self.is_calibrated,
            "threshold": self.predictor.bundle.threshold,
            "model_version": self.version,
        }


def open_answerer(folder: Path, *, version: str | None = None, base: str | None = None) -> Answerer:
    """Loads a bundle.

    Args:
        folder: the bundle.
        version: of the registered model; None: the name of the bundle's run stands in.
        base: folder or name of the base model where it is no longer where the bundle says.

    Raises:
        BundleError: see `load_bundle`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundle = load_bundle(folder, device=device, base=base)
    limits = bundle.manifest["predict"]
    predictor = Predictor(bundle, limits["token_budget"], limits["max_new_tokens"], device)
    return Answerer(predictor, version or f"unregistered, run {bundle.manifest['run']}")


def _rows(records: Sequence[Any]) -> list[Row]:
    if not records:
        raise RefusedRequestError(422, "NO_ROWS", "no rows, expected at least one")
    if len(records) > MAX_ROWS:
        raise RefusedRequestError(422, "OVER_THE_LIMIT", f"{len(records)} rows, the limit is {MAX_ROWS} a request")
    rows = []
    for number, record in enumerate(records):
        if not isinstance(record, Mapping) or "text" not in record:
            raise RefusedRequestError(400, "BAD_REQUEST", f"row {number}: expected an object with text")
        if record.keys() - set(_COLUMNS):
            raise RefusedRequestError(400, "UNKNOWN_COLUMN", f"row {number}: columns may be {', '.join(_COLUMNS)} only")
        text, id_ = record["text"], record.get("id")
        if not isinstance(text, str) or not isinstance(id_, str | None):
            raise RefusedRequestError(400, "BAD_REQUEST", f"row {number}: text and id must be strings")
        if any("\ud800" <= letter <= "\udfff" for letter in f"{text}{id_}"):
            raise RefusedRequestError(400, "BAD_REQUEST", f"row {number}: half a surrogate pair, expected Unicode text")
        if not text.strip():
            raise RefusedRequestError(422, "EMPTY_TEXT", f"row {number}: its text is empty")
        if id_ is not None and len(id_) > _MAX_ID:
            raise RefusedRequestError(
                422, "OVER_THE_LIMIT", f"row {number}: its id is longer than {_MAX_ID} characters"
            )
        rows.append(Row(id=str(number) if id_ is None else id_, text=text))
    return rows
