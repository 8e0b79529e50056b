"""Objects below a prefix of an object store, s3:// or gs://, or of a folder, file://, through pyarrow."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pyarrow import ArrowException, fs

from clsgen_dist.errors import ConfigError

#: Bytes that are read or written at once.
_CHUNK_BYTES = 8 * 2**20
#: How long a call to Google's store is tried again.
_RETRIES = timedelta(seconds=30)


@dataclass(frozen=True)
class Stored:
    """What a listing says: bytes, and when it was last written, in ns since 1970, or -1 where that is not said."""

    size: int
    changed_ns: int


class Objects:
    """Objects by name, relative to a prefix. There are no folders: a name with slashes is a name."""

    def __init__(self, uri: str) -> None:
        """Opens a prefix; nothing is asked of the store yet.

        Args:
            uri: as s3://BUCKET/PREFIX. Keys, region and endpoint come from the environment or the machine's role.

        Raises:
            ConfigError: the address cannot be used.
        """
        self.uri = uri.rstrip("/")
        try:
            self._files, self._root = _file_system(self.uri)
        except (OSError, ValueError, ArrowException) as error:
            raise ConfigError(f"run.storage {uri}: no address of an object store ({reason(error)})") from None

    def below(self, name: str) -> Objects:
        """The objects whose names begin with `name/`."""
        other = copy.copy(self)
        other.uri, other._root = f"{self.uri}/{name}", f"{self._root}/{name}"
        return other

    def listing(self) -> dict[str, Stored]:
        """All objects by name. Raises OSError."""
        with _as_os_error():
            found = self._files.get_file_info(fs.FileSelector(self._root, recursive=True, allow_not_found=True))
        start = len(self._root) + 1
        return {
            info.path[start:]: Stored(info.size, -1 if info.mtime_ns is None else info.mtime_ns)
            for info in found
            if info.type == fs.FileType.File
        }

    def has(self, name: str) -> bool:
        """Whether there is such an object. Raises OSError."""
        with _as_os_error():
            return bool(self._files.get_file_info(self._path(name)).type == fs.FileType.File)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is no such object, else OSError."""
        with _as_os_error(), self._files.open_input_stream(self._path(name)) as source:
            return bytes(source.read())

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces an object; readers meet the old one or the new one whole. Raises OSError."""
        with _as_os_error():
            self._make_parent(name)
            with self._files.open_output_stream(self._path(name)) as sink:
                sink.write(content)

    def upload(self, path: Path, name: str) -> None:
        """Makes or replaces an object from a file, as `write` does. Raises OSError."""
        with _as_os_error():
            self._make_parent(name)
            with path.open("rb") as source, self._files.open_output_stream(self._path(name)) as sink:
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)

    def download(self, name: str, path: Path) -> None:
        """Writes an object beside a file's place and moves it there. Raises OSError as `read` does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with (
                _as_os_error(),
                self._files.open_input_stream(self._path(name)) as source,
                unfinished.open("wb") as sink,
            ):
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Takes an object away, if it is there. Raises OSError."""
        with _as_os_error():
            try:
                self._files.delete_file(self._path(name))
            except FileNotFoundError:
                return

    def delete_all(self) -> None:
        """Takes all objects of this prefix away. Raises OSError."""
        for name in self.listing():
            self.delete(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _make_parent(self, name: str) -> None:
        """Folders are made where they are folders; in a store they would be objects of their own."""
        if isinstance(self._files, fs.LocalFileSystem):
            self._files.create_dir(self._path(name).rpartition("/")[0], recursive=True)


def _file_system(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the place in it."""
    scheme, _, rest = uri.partition("://")
    if scheme != "gs":
        files, place = fs.FileSystem.from_uri(uri)
        return files, place
    # Without these the library asks for a quarter of an hour before it says that there are no credentials. The variable
    # is that of Google's own libraries.
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator:
        scheme, _, host = emulator.rpartition("://")
        return fs.GcsFileSystem(
            anonymous=True, scheme=scheme or "http", endpoint_override=host, retry_time_limit=_RETRIES
        ), rest
    return fs.GcsFileSystem(retry_time_limit=_RETRIES), rest


@contextmanager
def _as_os_error() -> Iterator[None]:
    """pyarrow names some failures of a store otherwise than OSError."""
    try:
        yield
    except OSError:
        raise
    except ArrowException as error:
        raise OSError(reason(error)) from error


def reason(error: Exception) -> str:
    """What went wrong, on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
