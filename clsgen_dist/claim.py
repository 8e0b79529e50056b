"""One run folder, one process: two that wrote at once would mix their checkpoints without a word."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clsgen_dist.errors import ConfigError

#: What a file system says that knows no locks; some network file systems are mounted so.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def claimed(folder: Path, *, setting: str = "run.name", place: str = "run.output_dir") -> Iterator[None]:
    """Keeps other processes out of a run folder as long as this one is in the context.

    The kernel lets go of the claim when the process ends, however it ends, so nothing is left to clean up by hand. The
    file of the claim stands beside the folder, which may not exist yet. Where the file system knows no locks there is
    no claim.

    Args:
        folder: of the run.
        setting: what to choose otherwise where another process is at work there.
        place: what to look at where nobody may write there.

    Raises:
        ConfigError: another process is at work there, or nobody may write there.
    """
    path = folder.with_name(f".{folder.name}.lock")
    try:
        made = _make(path.parent)
        held = _lock(path, folder, setting)
    except OSError as error:
        raise ConfigError(f"{folder}: nothing can be written there ({error.strerror}); see {place}") from None
    try:
        os.ftruncate(held, 0)
        os.write(held, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for it finds that it is gone
        os.close(held)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()


def _make(parent: Path) -> list[Path]:
    """Makes a folder and its parents; returns those that were not there, innermost first."""
    made = [place for place in (parent, *parent.parents) if not place.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    return made


def _lock(path: Path, folder: Path, setting: str) -> int:
    """The open file of a claim that is held."""
    while True:
        place = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(place, 200).decode(errors="replace") or "another process"
            os.close(place)
            raise ConfigError(
                f"{folder}: {holder} is at work there; wait until it ends, or choose another {setting}"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return place
            os.close(place)
            raise
        try:
            if os.stat(path).st_ino == os.fstat(place).st_ino:
                return place
        except FileNotFoundError:
            pass
        os.close(place)  # its holder ended between the two calls and took the file along
