"""Files that can be trusted: hashes, fingerprints, JSON written whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from clsgen_dist.errors import BundleError, NumericsError


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
    """Reads an object of a bundle. Raises BundleError where it is missing or is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path.parent}: no bundle here ({path.name} is missing)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected an object, found {type(content).__name__}")
    return content
