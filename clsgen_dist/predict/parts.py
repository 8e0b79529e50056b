"""What a prediction has finished, on disk, so that the same command goes on after any end.

OUTPUT.parts/
  request.json         what was asked: another request is refused
  part-000012.jsonl    a window of rows whose predictions are whole, in their order
  journal-000013.jsonl a window that is being worked on: a line a prediction, with the number of its row
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.integrity import write_json
from clsgen_dist.records import Prediction

_REQUEST = "request.json"
_OURS = re.compile(r"(request\.json|whole\.jsonl|(part|journal)-\d{6,}\.jsonl(\.tmp)?)")


class Parts:
    """The folder of an output that is not whole yet."""

    def __init__(self, output: Path, request: Mapping[str, Any]) -> None:
        """Looks at what stands there; writes nothing.

        Args:
            output: file that will hold all predictions.
            request: what decides what they are, plain values by name.

        Raises:
            ConfigError: what stands there was asked for otherwise, or is not of this program.
        """
        self.folder = output.with_name(output.name + ".parts")
        self._output = output
        self._request = dict(request)
        if not self.folder.exists():
            return
        strange = [path.name for path in self.folder.iterdir() if not _OURS.fullmatch(path.name)]
        if strange:
            raise ConfigError(
                f"{self.folder}: found {strange[0]}, expected parts of predictions; choose another --output"
            )
        if not (self.folder / _REQUEST).exists():
            return
        before = _read_request(self.folder / _REQUEST)
        changed = sorted(n for n in before.keys() | self._request.keys() if before.get(n) != self._request.get(n))
        if changed:
            found = ", ".join(
                f"{name} ({_shown(before.get(name))}, now {_shown(self._request.get(name))})" for name in changed
            )
            raise ConfigError(
                f"{self.folder}: predictions that were begun with another {found}; run that command again to finish "
                "them, or delete the folder, or choose another --output"
            )

    def begin(self) -> None:
        """Makes the folder, or takes it over as it stands."""
        if not (self.folder / _REQUEST).exists():
            shutil.rmtree(self.folder, ignore_errors=True)  # left by an output that became whole
            self.folder.mkdir()
            write_json(self.folder / _REQUEST, self._request)

    def has(self, window: int) -> bool:
        """Whether a window is finished."""
        return self._part(window).exists()

    def known(self, window: int) -> dict[int, Prediction]:
        """What the journal of an unfinished window holds, by the number of the row in the window.

        A line that was cut when the process ended is taken away.
        """
        path, found, end = self._journal(window), dict[int, Prediction](), 0
        if not path.exists():
            return {}
        with path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    record = None
                if record is None:
                    break
                end += len(line)
                number = record.pop("row")
                found[number] = Prediction(**record)
        os.truncate(path, end)
        return found

    def note(self, window: int, found: Mapping[int, Prediction]) -> None:
        """Adds predictions to the journal of a window; later ones of a row take the place of earlier ones."""
        lines = (json.dumps({"row": n, **plain(p)}, ensure_ascii=False) + "\n" for n, p in found.items())
        with self._journal(window).open("a", encoding="utf-8") as file:
            file.writelines(lines)

    def finish(self, window: int, predictions: Iterable[Prediction]) -> None:
        """Writes a window, whole or not at all."""
        write_lines(self._part(window), predictions)
        self._journal(window).unlink(missing_ok=True)

    def publish(self, num_windows: int) -> None:
        """Puts the finished windows together as the output, which appears whole, and takes the folder away."""
        whole = self.folder / "whole.jsonl"
        with whole.open("wb") as target:
            for window in range(num_windows):
                with self._part(window).open("rb") as part:
                    shutil.copyfileobj(part, target)
            target.flush()
            os.fsync(target.fileno())
        os.replace(whole, self._output)
        (self.folder / _REQUEST).unlink()  # first: without it, what is left is nobody's
        shutil.rmtree(self.folder)

    def _part(self, window: int) -> Path:
        return self.folder / f"part-{window:06}.jsonl"

    def _journal(self, window: int) -> Path:
        return self.folder / f"journal-{window:06}.jsonl"


def write_lines(path: Path, predictions: Iterable[Prediction]) -> None:
    """Writes predictions as JSON lines, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(plain(p), ensure_ascii=False) + "\n" for p in predictions)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def plain(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain values by name."""
    return {name: getattr(prediction, name) for name in Prediction.__dataclass_fields__}


def _read_request(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete its folder") from None
    return content if isinstance(content, dict) else {}


def _shown(value: object) -> str:
    return repr(value)[:16]
