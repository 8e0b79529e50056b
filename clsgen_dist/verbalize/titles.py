"""What the methods of a study are called on its page."""

from __future__ import annotations

#: Methods that are called by one name.
_WHOLE = {
    "base_rate": "Base rate alone",
    "raw": "As said",
    "raw_floored": "As said, with the floor",
    "rank": "Ranks of what was said",
    "learned": "Learned, with the texts",
    "platt": "Invert softmax + Platt",
    "vector": "Invert softmax + vector",
    "beta": "Invert softmax + beta",
    "isotonic": "Invert softmax + isotonic",
}

#: Sources and transformations that a scaling may follow.
_FIRST = {
    "resoftmax": "Re-softmax",
    "invert_softmax": "Invert softmax",
    "label_tokens": "Tokens of the labels",
    "digit_expectation": "Tokens of the digits",
}

_SCALINGS = {"temperature": "T", "platt": "Platt", "vector": "vector", "beta": "beta", "isotonic": "isotonic"}


def title_of(name: str) -> str:
    """A method's name for people, such as "Invert softmax + T"; a column nobody knows keeps its name, with spaces."""
    if name in _WHOLE:
        return _WHOLE[name]
    first, _, last = name.rpartition("_")
    source, _, softmax = first.rpartition("_")
    if source and softmax == "resoftmax":
        return f"{_FIRST.get(source, source.replace('_', ' '))}, re-softmax + {_SCALINGS[last]}"
    if first and last in _SCALINGS:
        return f"{_FIRST.get(first, first.replace('_', ' '))} + {_SCALINGS[last]}"
    return _FIRST.get(name, name.replace("_", " "))
