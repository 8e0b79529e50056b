"""Going on from a checkpoint: the newest one that is whole, into any number of ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.engine.fragments import Fragment
from clsgen_dist.engine.manifest import read_facts
from clsgen_dist.engine.places import Place
from clsgen_dist.errors import CheckpointError


def load_newest(engine: Engine, ranks: Ranks, place: Place, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Restores the newest whole checkpoint. All ranks call it.

    Args:
        engine: what is restored.
        ranks: the group, which need not be as large as the one that wrote it.
        place: of the run's checkpoints.
        warn: hears on rank 0 of each checkpoint that is passed over, and why.

    Returns:
        The state of the loop at that step, or None where no checkpoint was ever written.

    Raises:
        CheckpointError: on all ranks: there are checkpoints and none of them is whole, or it is of another model, or
            the place cannot be read.
    """
    found, unreadable = ranks.from_leader(_found(place) if ranks.leads else None)
    if unreadable is not None:
        raise CheckpointError(f"{place.name}: cannot be read ({unreadable}); the same command goes on when it can")
    faults = []
    for name in reversed(found):
        path, fault = place.bring(name)
        try:
            if fault is None:
                return _load(engine, ranks, path)
        finally:
            place.release()
        faults.append(fault)
        if ranks.leads:
            warn(f"passed over: {fault}")
    if faults:
        raise CheckpointError(
            f"{place.name}: no checkpoint is whole ({'; '.join(faults)}). Restore one from a copy, or remove the "
            "folder to train from the beginning"
        )
    return None


def _found(place: Place) -> tuple[list[str], str | None]:
    try:
        return place.found(), None
    except OSError as error:
        return [], error.strerror or str(error)


def _load(engine: Engine, ranks: Ranks, path: Path) -> dict[str, Any]:
    facts = read_facts(path)
    fault: str | None = None
    if facts["shapes"] != engine.shapes():
        fault = "its parameters are not those of this model"
    else:
        try:
            _fill(engine, path, sorted(facts["files"]))
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            fault = f"{type(error).__name__}: {error}"
    fault = next((told for told in ranks.gather(fault) if told), None)
    if fault is not None:
        raise CheckpointError(f"{path}: cannot be loaded ({fault})")
    engine.restored(facts["optimizer_steps"])
    return dict(facts["state"])


class _Piece(NamedTuple):
    """Where a piece of a parameter lies in the files: offset in the parameter, elements, open file."""

    start: int
    numel: int
    file: Any


def _fill(engine: Engine, path: Path, names: list[str]) -> None:
    """Writes into this rank's share what any rank held of it."""
    pieces: dict[str, list[_Piece]] = {}
    with ExitStack() as opened:
        for name in names:
            file = opened.enter_context(safe_open(path / name, framework="pt"))
            for parameter, start in json.loads(file.metadata()["starts"]).items():
                numel = file.get_slice(f"master/{parameter}").get_shape()[0]
                pieces.setdefault(parameter, []).append(_Piece(int(start), int(numel), file))
        for fragment in engine.fragments():
            for part, view in fragment.parts.items():
                _fill_part(fragment, part, view, pieces.get(fragment.name, []))


def _fill_part(fragment: Fragment, part: str, view: torch.Tensor, pieces: list[_Piece]) -> None:
    first, end = fragment.start, fragment.start + view.numel()
    filled = 0
    for piece in pieces:
        begin, stop = max(first, piece.start), min(end, piece.start + piece.numel)
        if begin < stop:
            values = piece.file.get_slice(f"{part}/{fragment.name}")[begin - piece.start : stop - piece.start]
            view[begin - first : stop - first].copy_(values)
            filled += stop - begin
    if filled != view.numel():
        raise ValueError(f"{part} of {fragment.name}: {filled:,} of {view.numel():,} elements are there")
