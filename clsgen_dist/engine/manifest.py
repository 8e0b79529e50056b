"""What makes a folder a whole checkpoint: the manifest that knows size and sha256 of every other file in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clsgen_dist.errors import CheckpointError
from clsgen_dist.integrity import sha256_of

MANIFEST = "manifest.json"
FORMAT = 2


def checkpoint_folders(folder: Path) -> list[Path]:
    """What stands in the place of a checkpoint, whole or not, oldest first."""
    return sorted(folder.glob("step_*"))


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints whose manifest stands and whose files have the sizes it says, oldest first."""
    return [path for path in checkpoint_folders(folder) if fault_of(path) is None]


def read_facts(path: Path) -> dict[str, Any]:
    """What the manifest of a checkpoint says. Raises CheckpointError where it says nothing of use."""
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: {MANIFEST} cannot be read ({error.strerror})") from None
    return parsed_facts(text, path.name)


def parsed_facts(text: bytes, name: str) -> dict[str, Any]:
    """What the manifest of the checkpoint of that name says. Raises CheckpointError as `read_facts` does."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: {MANIFEST} cannot be read ({error})") from None
    needed = {"format": int, "step": int, "optimizer_steps": int, "state": dict, "shapes": dict, "files": dict}
    if not isinstance(facts, dict) or any(not isinstance(facts.get(key), kind) for key, kind in needed.items()):
        raise CheckpointError(f"{name}: {MANIFEST} is none of this version")
    if facts["format"] != FORMAT or name != f"step_{facts['step']:08d}":
        raise CheckpointError(f"{name}: {MANIFEST} is of format {facts['format']}, step {facts['step']}")
    return facts


def fault_of(path: Path) -> str | None:
    """What is wrong with a checkpoint as far as names and sizes show, or None."""
    try:
        facts = read_facts(path)
        sizes = {file.name: file.stat().st_size for file in path.iterdir() if file.is_file()}
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{path.name}: cannot be read ({error.strerror})"
    return fault_of_sizes(path.name, facts, sizes)


def fault_of_sizes(name: str, facts: Mapping[str, Any], sizes: Mapping[str, int]) -> str | None:
    """What is wrong with a checkpoint of these facts whose files have these sizes, or None."""
    for file, known in facts["files"].items():
        size = sizes.get(file)
        if size is None:
            return f"{name}: {file} is missing"
        if not isinstance(known, dict) or size != known.get("size"):
            return f"{name}: {file} has {size:,} bytes, its manifest says otherwise"
    return None


def altered_file(path: Path, part: int, num_parts: int) -> str | None:
    """The first file whose bytes are not those that were written, of one share of the files.

    Args:
        path: the checkpoint.
        part, num_parts: which share of how many.
    """
    files = read_facts(path)["files"]
    for name in sorted(files)[part::num_parts]:
        if sha256_of(path / Path(name).name) != files[name].get("sha256"):
            return f"{path.name}: {name} was altered, its sha256 is not that of the manifest"
    return None
