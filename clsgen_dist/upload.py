"""What `ray job submit --working-dir FOLDER` would upload, known before it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import PathSpec

from clsgen_dist.errors import ConfigError

#: What Ray 2.60 leaves out by itself, beside .gitignore and .rayignore.
RAY_EXCLUDES = (".git", ".venv", "venv", "__pycache__")
#: Named in a message.
_NUM_LARGEST = 3

_Match = Callable[[Path], bool]


@dataclass(frozen=True)
class Upload:
    """Files of a folder that would be uploaded: paths relative to it, and bytes."""

    folder: Path
    files: dict[str, int]

    @property
    def num_bytes(self) -> int:
        return sum(self.files.values())

    def holds(self, path: Path) -> bool:
        """Whether a file, or anything below a folder, is among them."""
        inside = path.relative_to(self.folder).as_posix()
        return inside in self.files or any(name.startswith(f"{inside}/") for name in self.files)


def survey_upload(folder: Path, excludes: Sequence[str] = ()) -> Upload:
    """Goes through a folder as Ray does when it packs it.

    Args:
        folder: the working folder of a job.
        excludes: further patterns, as of .gitignore.

    Source: ray/_private/runtime_env/packaging.py of Ray 2.60, which reads .gitignore and .rayignore in every folder.
    """
    patterns = _matcher(folder, [*RAY_EXCLUDES, *excludes])
    files = dict(_files(folder, folder, [patterns]))
    return Upload(folder, files)


def check_upload(upload: Upload, *, most_mib: float) -> None:
    """Raises ConfigError where more than `most_mib` MiB would be uploaded; it names the largest and the way out."""
    if upload.num_bytes <= most_mib * 2**20:
        return
    largest = sorted(upload.files.items(), key=lambda entry: -entry[1])[:_NUM_LARGEST]
    named = ", ".join(f"{path} {num_bytes / 2**20:.1f} MiB" for path, num_bytes in largest)
    raise ConfigError(
        f"{upload.folder}: {upload.num_bytes / 2**20:.1f} MiB in {len(upload.files):,} files would be uploaded with "
        f"the job, expected {most_mib:g} MiB at most; the largest: {named}. Name what the job does not need in "
        ".rayignore; rows, models and runs belong into a folder that every node sees"
    )


def _files(path: Path, root: Path, outer: list[_Match]) -> Iterator[tuple[str, int]]:
    lists = [path / name for name in (".gitignore", ".rayignore") if (path / name).is_file()]
    matchers = [*outer, *(_matcher(path, found.read_text(encoding="utf-8").splitlines()) for found in lists)]
    for inner in sorted(path.iterdir()):
        if any(matches(inner) for matches in matchers):
            continue
        if inner.is_dir():
            yield from _files(inner, root, matchers)
        elif inner.is_file():
            yield inner.relative_to(root).as_posix(), inner.stat().st_size


def _matcher(folder: Path, lines: Sequence[str]) -> _Match:
    """Whether a path below a folder is one that the folder's patterns leave out."""
    patterns = PathSpec.from_lines("gitignore", lines)

    def matches(path: Path) -> bool:
        # A pattern with a slash at its end is for folders; Ray asks without it, and finds their files one by one.
        name = path.relative_to(folder).as_posix()
        return patterns.match_file(name) or (path.is_dir() and patterns.match_file(f"{name}/"))

    return matches
