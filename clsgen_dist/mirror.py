"""A run folder that stands in an object store, and its copy on a node.

The copy is brought up to date before a stage reads it and the store after a stage wrote it, so a run goes on on nodes
that share no disk, after the loss of any of them. Checkpoints have a road of their own, see engine/places.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clsgen_dist.config.run import RunConfig
from clsgen_dist.errors import CheckpointError, ConfigError, DataError
from clsgen_dist.objects import Objects, Stored, reason

#: Files that say of what is beside or around them that it is whole come after it.
_LAST = ("manifest.json", "config.yaml")
CHECKPOINTS = "checkpoints"
_BUNDLE, _BUNDLE_LAST = "bundle/", "bundle/manifest.json"


@dataclass(frozen=True)
class _Known:
    """An object as it was seen last, and the file that was its equal then: bytes and times in ns."""

    size: int
    changed_ns: int
    file_changed_ns: int

    def is_of(self, stored: Stored) -> bool:
        """Whether it is the same; of an object without a time nobody knows."""
        return stored.changed_ns >= 0 and (self.size, self.changed_ns) == (stored.size, stored.changed_ns)


class Mirror:
    """Keeps one node's copy of a run folder and the store alike. One process at a time, on rank 0 for the store."""

    def __init__(self, objects: Objects, folder: Path) -> None:
        """Nothing is done yet.

        Args:
            objects: of the run alone.
            folder: the copy; it need not exist.
        """
        self.objects = objects
        self.folder = folder
        #: Beside the folder: what the copy knows of the store as it was last seen.
        self._record = folder.with_name(f".{folder.name}.mirror.json")

    def pull(self) -> None:
        """Brings to the copy what is new in the store.

        What the store never had stays, and so does what was changed here since, and not there: it goes to the store
        with the next push.

        Raises:
            CheckpointError: the store cannot be read, or the copy cannot be written.
        """
        try:
            self._pull()
        except OSError as error:
            raise CheckpointError(
                f"{self.objects.uri}: cannot be brought to {self.folder} ({reason(error)}); the same command goes on"
            ) from None

    def push(self) -> None:
        """Makes the store what the copy has. Call `pull` before the first one.

        Raises:
            CheckpointError: the copy cannot be read, or the store cannot be written.
        """
        try:
            self._push()
        except OSError as error:
            raise CheckpointError(
                f"{self.objects.uri}: cannot be written ({reason(error)}); the copy in {self.folder} stays as it is, "
                "and the same command goes on"
            ) from None

    def _pull(self) -> None:
        listed = {name: stored for name, stored in self.objects.listing().items() if _is_mirrored(name)}
        known = self._known()
        for name in known.keys() - listed.keys() - {_BUNDLE_LAST}:
            (self.folder / name).unlink(missing_ok=True)
        if _BUNDLE_LAST not in listed:  # whoever wrote it died on the way
            listed = {name: stored for name, stored in listed.items() if not name.startswith(_BUNDLE)}
        kept = {name: known[name] for name in known.keys() & listed.keys()}
        try:
            for name in _in_order(listed):
                path, stored = self.folder / name, listed[name]
                if name in kept and kept[name].is_of(stored) and path.exists():
                    continue
                kept.pop(name, None)
                self.objects.download(name, path)
                if path.stat().st_size != stored.size:
                    raise OSError(f"{name}: {path.stat().st_size:,} of {stored.size:,} bytes came")
                kept[name] = _Known(stored.size, stored.changed_ns, path.stat().st_mtime_ns)
        finally:
            self._remember(kept)

    def _push(self) -> None:
        known = self._known()
        here = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        here = {name: path for name, path in here.items() if _is_mirrored(name)}
        gone = [name for name in known if name not in here]
        changed = [name for name, path in here.items() if name not in known or not _equals(path, known[name])]
        if not gone and not changed:
            return
        if any(name.startswith(_BUNDLE) for name in (*changed, *gone)):
            # Files of one bundle beside the manifest of another are none, for all to come, should this process die now.
            self.objects.delete(_BUNDLE_LAST)
            changed = list({*changed, _BUNDLE_LAST} & here.keys())
        written = {}
        for name in _in_order(changed):
            before = here[name].stat()
            self.objects.upload(here[name], name)
            written[name] = before
        for name in gone:
            self.objects.delete(name)
            del known[name]
        listed = self.objects.listing()
        for name, status in written.items():
            if name not in listed:
                raise OSError(f"{name}: was written and is not there")
            # A file that grew meanwhile has another size or time than is remembered here, and goes again next time.
            known[name] = _Known(listed[name].size, listed[name].changed_ns, status.st_mtime_ns)
        self._remember(known)

    def _known(self) -> dict[str, _Known]:
        try:
            content: dict[str, Any] = json.loads(self._record.read_text(encoding="utf-8"))
            if content["uri"] != self.objects.uri:
                return {}
            return {name: _Known(*map(int, numbers)) for name, numbers in content["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # everything is brought or written anew

    def _remember(self, known: dict[str, _Known]) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        files = {name: [one.size, one.changed_ns, one.file_changed_ns] for name, one in sorted(known.items())}
        unfinished = self._record.with_name(f"{self._record.name}.tmp")
        unfinished.write_text(json.dumps({"uri": self.objects.uri, "files": files}) + "\n", encoding="utf-8")
        os.replace(unfinished, self._record)


def mirror_of(config: RunConfig) -> Mirror | None:
    """The mirror of a run whose folder stands in an object store; None where it stands in a folder that all share.

    Raises:
        ConfigError: the address cannot be used.
    """
    return None if config.stored_at is None else Mirror(Objects(config.stored_at), config.folder)


@contextmanager
def kept_alike(mirror: Mirror | None) -> Iterator[None]:
    """Inside, the copy has what the store has; afterwards the store has what the copy has.

    So it is after an error too, for what was done is paid for; but not where a setting or a row was refused.

    Raises:
        CheckpointError: the store cannot be read or written.
    """
    if mirror is None:
        yield
        return
    mirror.pull()
    try:
        yield
    except (ConfigError, DataError):
        raise
    except BaseException:
        with suppress(CheckpointError):  # the first error is the one to tell
            mirror.push()
        raise
    mirror.push()


def _is_mirrored(name: str) -> bool:
    parts = name.split("/")
    # Empty parts and dots also lead out of the folder: keys of a store may be `/etc/x` and `../x`.
    return parts[0] != CHECKPOINTS and not any(part == "" or part.startswith(".") for part in parts)


def _in_order(names: Iterable[str]) -> list[str]:
    def place(name: str) -> tuple[int, str]:
        last = name.rpartition("/")[2]
        return (_LAST.index(last) + 1 if last in _LAST else 0), name

    return sorted(names, key=place)


def _equals(path: Path, known: _Known) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (known.size, known.file_changed_ns)
