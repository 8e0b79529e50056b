"""A bundle as an MLflow model, for `mlflow models serve` and `mlflow.pyfunc.load_model`."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from clsgen_dist.serve.answering import Answerer, RefusedRequestError, open_answerer
from clsgen_dist.serve.mlflow_server import take_over

#: Where the base model is on the machine that serves, if it is not where the bundle says.
BASE_VARIABLE = "CLSGEN_DIST_BASE"
_LOG = logging.getLogger("clsgen_dist.serve")
#: Artifact of the model that the bundle is.
BUNDLE = "bundle"
#: File that MLflow writes beside a model that it fetched from the registry.
_REGISTERED = "registered_model_meta"


class RefusedError(MlflowException):
    """A refusal for MLflow's server, which writes rows into the message of an error; this one keeps its own."""

    def __init__(self, refusal: RefusedRequestError) -> None:
        self._told, self._status = str(refusal), refusal.status
        super().__init__(self._told, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self._told

    @message.setter
    def message(self, told: str) -> None:
        """Leaves the message as it is."""

    def get_http_status_code(self) -> int:
        return self._status


class BundleModel(PythonModel):
    """Answers rows of a data frame with columns `text` and perhaps `id`."""

    _answerer: Answerer | None = None
    #: MLflow would ask for type hints, aloud; the signature is given when a bundle is registered.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Loads the bundle. Raises BundleError."""
        folder = Path(context.artifacts[BUNDLE])
        base = os.environ.get(BASE_VARIABLE) or None
        self._answerer = open_answerer(folder, version=registered_version(folder.parents[1]), base=base)
        take_over(self._answerer)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Predictions as objects; raises RefusedError. MLflow would read type hints as a signature: there are none."""
        assert self._answerer is not None, "load_context comes first"
        frame = model_input.astype(object).where(model_input.notna(), None)
        try:
            return self._answerer.answer(frame.to_dict(orient="records"), _plain(params or {}))
        except RefusedRequestError as refusal:
            raise RefusedError(refusal) from None
        except Exception as error:  # noqa: BLE001 - MLflow's server would answer with its words and stack trace
            places = "".join(traceback.format_tb(error.__traceback__))
            _LOG.error("%s\n%s", type(error).__name__, places)
            raise RefusedError(RefusedRequestError(500, "INTERNAL_ERROR", "the model could not answer")) from None


def registered_version(folder: Path) -> str | None:
    """NAME/VERSION of a model that was fetched from the registry into a folder; None for any other folder."""
    path = folder / _REGISTERED
    if not path.is_file():
        return None
    facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    return f"{facts['model_name']}/{facts['model_version']}"


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as Python's own types; MLflow gives numbers of numpy, and 0 for one that was not given."""
    found = {name: value.item() if hasattr(value, "item") else value for name, value in params.items()}
    if found.get("max_new_tokens") == 0:
        del found["max_new_tokens"]
    return found
