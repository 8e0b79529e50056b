"""Whether all ranks see one folder or object store, tried before anything heavy is loaded."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from pathlib import Path

from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import ConfigError
from clsgen_dist.objects import Objects, reason

#: Network file systems show a new file to other nodes after some seconds.
_PATIENCE_SECONDS = 10.0


def check_storage(folder: Path, ranks: Ranks, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Each rank writes a small file beside the run folder and looks for those of all others. All ranks call it.

    Args:
        folder: of the run; it need not exist, the folder around it must on every node.
        ranks: the group.
        patience_seconds: how long a rank looks for the files of others.

    Raises:
        ConfigError: a rank cannot write there, or does not see what another one wrote; on all ranks alike.
    """
    if ranks.world_size == 1:
        return
    token = ranks.from_leader(uuid.uuid4().hex[:8])
    places = [folder.with_name(f".{folder.name}.probe-{token}-{rank}") for rank in range(ranks.world_size)]
    try:
        problem = None
        try:
            places[ranks.rank].write_text(str(ranks.rank), encoding="utf-8")
        except OSError as error:
            problem = f"cannot write there ({error.strerror})"
        wrote = ranks.gather(problem)
        if not any(wrote):
            problem = _unseen(places, patience_seconds)
        found = ranks.gather((problem, socket.gethostname()))
    finally:
        with contextlib.suppress(OSError):
            places[ranks.rank].unlink(missing_ok=True)
    ranks.barrier()  # nothing of it is left when anybody goes on
    if any(problem for problem, _ in found):
        told = "; ".join(f"rank {n} on {host}: {problem}" for n, (problem, host) in enumerate(found) if problem)
        raise ConfigError(
            f"run.output_dir {folder.parent} is not one folder that all nodes see and may write to ({told}); give the "
            "path of a shared file system"
        )


def check_objects(objects: Objects, ranks: Ranks) -> None:
    """Each rank writes a small object and reads those of all others. All ranks call it, a single one too.

    Args:
        objects: of the run.
        ranks: the group.

    Raises:
        ConfigError: a rank cannot write or read there; on all ranks alike.
    """
    probe = objects.below(f".probe-{ranks.from_leader(uuid.uuid4().hex[:8])}")
    own, problem = str(ranks.rank), None
    try:
        probe.write(own, own.encode())
    except OSError as error:
        problem = f"cannot write there ({reason(error)})"
    wrote = ranks.gather(problem)
    if not any(wrote):
        try:
            unseen = [rank for rank in range(ranks.world_size) if probe.read(str(rank)) != str(rank).encode()]
            problem = f"does not see what rank {unseen[0]} wrote" if unseen else None
        except OSError as error:
            problem = f"cannot read there ({reason(error)})"
    found = ranks.gather((problem, socket.gethostname()))
    with contextlib.suppress(OSError):
        probe.delete(own)
    told = "; ".join(f"rank {n} on {host}: {problem}" for n, (problem, host) in enumerate(found) if problem)
    if told:
        raise ConfigError(
            f"run.storage {objects.uri}: not all nodes can use it ({told}); see that the bucket exists and that each "
            "node has keys or a role, and the region, for it"
        )


def _unseen(places: list[Path], patience_seconds: float) -> str | None:
    """Says whose files do not come into sight or do not hold what was written."""
    deadline = time.monotonic() + patience_seconds
    while missing := [rank for rank, place in enumerate(places) if not _holds(place, rank)]:
        if time.monotonic() > deadline:
            return f"does not see what rank {', '.join(map(str, missing[:8]))} wrote"
        time.sleep(0.1)
    return None


def _holds(place: Path, rank: int) -> bool:
    try:
        return place.read_text(encoding="utf-8") == str(rank)
    except OSError:
        return False
