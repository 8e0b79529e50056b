"""Errors of a worker as text: Ray would wrap them in errors of its own and lose them on the way."""

from __future__ import annotations

import json

from clsgen_dist import errors
from clsgen_dist.errors import ClsGenError


def packed_error(error: ClsGenError) -> str:
    """The error that a worker met, to be sent."""
    return json.dumps([type(error).__name__, str(error)])


def unpacked_error(words: str) -> ClsGenError:
    """The error again."""
    name, message = json.loads(words)
    kind = getattr(errors, name)
    assert issubclass(kind, ClsGenError)
    error: ClsGenError = kind(message)
    return error
