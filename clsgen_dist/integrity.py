"""Files that can be trusted: hashes, fingerprints, JSON written whole and read with care."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from clsgen_dist.errors import BundleError, CheckpointError, NumericsError

#: Bytes of a JSON file of a bundle, at most; the largest one is a calibrator of 100,000 points.
MOST_JSON_BYTES = 64_000_000


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(base: str) -> str:
    """Tells base models apart: sha256 over config and, of each weight file, size, header and sampled blocks.

    Samples rather than all bytes: a base of 140 GB is told apart in a second. A name on the Hub stands for itself; its
    revision is in the manifest.
    """
    folder = Path(base)
    if not folder.is_dir():
        return f"hub:{base}"
    if not (folder / "config.json").is_file():
        raise BundleError(f"no base model at {base}: config.json is missing there")
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for index in range(64):
                file.seek(index * max(0, size - 4096) // 63)
                digest.update(file.read(4096))
    return digest.hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes an object beside its place and moves it there, so that a reader meets the whole file or none.

    Raises:
        NumericsError: a number is NaN or infinite, which JSON cannot say.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise NumericsError(
            f"{path}: found a number that is NaN or infinite, expected finite ones ({error})"
        ) from error
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object of a bundle. Raises BundleError where it is missing, is none, or is larger than any can be."""
    try:
        return _read_object(path)
    except FileNotFoundError:
        raise BundleError(f"{path.parent}: no bundle here ({path.name} is missing)") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from None


def read_run_json(path: Path, needed: Mapping[str, type | UnionType]) -> dict[str, Any]:
    """Reads an object that a run folder holds.

    Args:
        path: of the file.
        needed: what it must say: dotted name -> type.

    Raises:
        CheckpointError: it is missing, is no such object, or does not say it.
    """
    try:
        content = _read_object(path)
        for name, kind in needed.items():
            found: Any = content
            for part in name.split("."):
                found = found[part] if isinstance(found, dict) and part in found else ...
            if not isinstance(found, kind):
                raise ValueError(f"{name} is {'missing' if found is ... else 'not as this program writes it'}")
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    except ValueError as error:
        fault = str(error)
    else:
        return content
    raise CheckpointError(f"{path}: {fault}; restore it from a copy, or choose another run.name")


def check_unaltered(path: Path, sha256: str) -> None:
    """Compares a file of a run folder with the hash that the run noted. Raises CheckpointError where it differs."""
    try:
        fault = None if sha256_of(path) == sha256 else "altered since the run began (sha256 differs)"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    if fault is not None:
        raise CheckpointError(f"{path}: {fault}; restore it from a copy, or choose another run.name")


def _read_object(path: Path) -> dict[str, Any]:
    """Raises OSError, or ValueError with words that a user understands."""
    with path.open("rb") as file:
        text = file.read(MOST_JSON_BYTES + 1)
    if len(text) > MOST_JSON_BYTES:
        raise ValueError(f"has more than {MOST_JSON_BYTES:,} bytes, which no such file has")
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("cannot be read (nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, found {type(content).__name__}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")
