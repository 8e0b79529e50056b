"""Objects below a prefix of an object store, s3:// or gs://, or of a folder, file://, through pyarrow."""

from __future__ import annotations

import copy
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pyarrow import ArrowException, NativeFile, fs

from clsgen_dist.errors import ConfigError

#: Bytes that are read or written at once.
_CHUNK_BYTES = 8 * 2**20
#: How long a call to Google's store is tried again.
_RETRIES = timedelta(seconds=30)
#: How names of files end that are being written into a folder.
_UNFINISHED = ".unfinished"
#: How S3 says, of an object that was opened, that there is none.
_GONE = ("NO_SUCH_KEY", "RESOURCE_NOT_FOUND")


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
            if info.type == fs.FileType.File and not info.path.endswith(_UNFINISHED)
        }

    def has(self, name: str) -> bool:
        """Whether there is such an object. Raises OSError."""
        with _as_os_error():
            return bool(self._files.get_file_info(self._path(name)).type == fs.FileType.File)

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is no such object, else OSError."""
        with self._reading(name) as source:
            return bytes(source.read())

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces an object; readers meet the old one or the new one whole. Raises OSError."""
        with self._writing(name) as sink:
            sink.write(content)

    def upload(self, path: Path, name: str) -> None:
        """Makes or replaces an object from a file, as `write` does. Raises OSError."""
        with path.open("rb") as source, self._writing(name) as sink:
            while chunk := source.read(_CHUNK_BYTES):
                sink.write(chunk)

    def download(self, name: str, path: Path) -> None:
        """Writes an object beside a file's place and moves it there. Raises OSError as `read` does."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with unfinished.open("wb") as sink, self._reading(name) as source:
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

    @contextmanager
    def _reading(self, name: str) -> Iterator[NativeFile]:
        """An object that is read in the block; FileNotFoundError also where it is taken away after it was opened."""
        try:
            with _as_os_error(), self._files.open_input_stream(self._path(name)) as source:
                yield source
        except FileNotFoundError:
            raise
        except OSError as error:
            if not any(words in str(error) for words in _GONE) and self.has(name):
                raise
            raise FileNotFoundError(f"{self.uri}/{name}: was taken away while it was read") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _writing(self, name: str) -> Iterator[NativeFile]:
        """What is written in the block becomes the object at its end. A store does so itself, a folder does not."""
        path = self._path(name)
        is_folder = isinstance(self._files, fs.LocalFileSystem)
        with _as_os_error():
            if not is_folder:
                with self._files.open_output_stream(path) as sink:
                    yield sink
                return
            parent, _, last = path.rpartition("/")
            self._files.create_dir(parent, recursive=True)
            unfinished = f"{parent}/.{last}.{uuid.uuid4().hex}{_UNFINISHED}"
            try:
                with self._files.open_output_stream(unfinished) as sink:
                    yield sink
                self._files.move(unfinished, path)
            except BaseException:
                with suppress(OSError):
                    self._files.delete_file(unfinished)
                raise


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
