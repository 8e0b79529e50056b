"""Mutates good and bad inputs and looks for a crash that is not one of our errors: `make campaign-fuzz`.

    python tests/campaigns/fuzz.py --minutes 10 --seed 0

Targets take turns: readers of rows, the configuration, bundles that are sealed again after a change, answers in words.
An input that crashes, or takes longer than ten seconds, is kept and named; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from clsgen_dist.bundle import load_bundle, trained_on
from clsgen_dist.config.run import load_config
from clsgen_dist.config.sections import Data
from clsgen_dist.data.rows import read_rows
from clsgen_dist.errors import ClsGenError
from clsgen_dist.verbalize.parsing import parse_distribution
from tests.hostile import makers
from tests.hostile.corpus import read_corpus

LONGEST_SECONDS = 10

#: Pieces that mutations put in.
WORDS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"'",
        b",",
        b":",
        b"\n",
        b"\r",
        b"\t",
        b"\0",
        b"\\",
        b"|",
        b"%",
        b"- ",
        b"&a ",
        b"*a",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"1e400",
        b"-1",
        b"0",
        b"9" * 400,
        b"\\ud83d",
        b"\xff",
        b"\xef\xbb\xbf",
        b"!!int ",
        b"<<: ",
    ),
    *(b"yes", b"no", b"0.7", b"70%", b"text", b"label", b"../", b"/etc/passwd", b"\xe2\x80\xae", b"\xd9\xa7"),
)


class Slow(Exception):
    """An input took too long."""


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The input with one to eight changes: bytes, pieces cut, doubled, moved, words put in."""
    data = bytearray(content[:200_000])
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        place = draw.randrange(len(data) + 1)
        length = draw.randint(1, max(1, min(40, len(data))))
        kind = draw.randrange(6)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length] * draw.randint(1, 4)
        elif kind == 3:
            data[place:place] = draw.choice(WORDS)
        elif kind == 4:
            data[place : place + length] = draw.choice(WORDS)
        elif data:
            data[place % len(data)] = draw.randrange(256)
    return bytes(data)


class Fuzzer:
    """Targets, their inputs to start from, and what became of what they were given."""

    def __init__(self, folder: Path, seed: int) -> None:
        from tests.support.bundles import write_tiny_bundle

        self.folder = folder
        self.draw = random.Random(seed)
        self.tried: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.crashes: list[str] = []
        self.bundle = write_tiny_bundle(folder)
        self.files = sorted(p.relative_to(self.bundle) for p in self.bundle.rglob("*") if p.is_file())
        self.starts = self._starts()
        self.targets: dict[str, Callable[[], bytes]] = {
            **{name: lambda name=name: self._rows(name) for name in ("jsonl", "json", "csv", "parquet")},
            "config": self._config,
            "bundle": self._bundle,
            "spoken": self._spoken,
        }

    def _starts(self) -> dict[str, list[bytes]]:
        starts: dict[str, list[bytes]] = {"jsonl": [], "json": [], "csv": [], "parquet": [], "config": [], "spoken": []}
        for case in read_corpus():
            kind = Path(case.file).suffix[1:] if case.door == "rows" else case.door
            if kind in starts and case.content is not None:
                starts[kind].append(case.content)
        starts["jsonl"].append(b'{"id": 1, "text": "a b", "label": 0}\n{"id": 2, "text": "c", "label": "yes"}\n')
        starts["json"].append(b'{"data": [{"text": "a", "label": 0}, {"text": "b", "label": 1}]}')
        starts["csv"].append(b'id,text,label\n1,"a, b",0\n2,c,yes\n')
        starts["spoken"] += [b'{"yes": 0.7, "no": 0.3}', b"| yes | 70% |\n| no | 30% |", b"yes: 3/4, no: 1/4"]
        for make in (makers.parquet_unknown_label, makers.parquet_nested_text, makers.parquet_far_date):
            make(self.folder / "start.parquet")
            starts["parquet"].append((self.folder / "start.parquet").read_bytes())
            (self.folder / "start.parquet").unlink()
        return starts

    def _input(self, kind: str) -> bytes:
        return mutated(self.draw.choice(self.starts[kind]), self.draw)

    def _rows(self, kind: str) -> bytes:
        path, content = self.folder / f"rows.{kind}", self._input(kind)
        path.write_bytes(content)
        self._try(kind, content, lambda: list(read_rows(str(path), Data(), ["no", "yes"])))
        return content

    def _config(self) -> bytes:
        path, content = self.folder / "run.yaml", self._input("config")
        path.write_bytes(content)
        self._try("config", content, lambda: load_config(path))
        return content

    def _spoken(self) -> bytes:
        content = self._input("spoken")
        text = content.decode("utf-8", self.draw.choice(["replace", "surrogateescape"]))
        self._try("spoken", content, lambda: parse_distribution(text, ["no", "yes"], sum_tolerance=0.05))
        return content

    def _bundle(self) -> bytes:
        """One file of a bundle changed; three of four times the hashes then fit it."""
        place = self.folder / "changed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.bundle, place)
        name = self.draw.choice(self.files)
        content = mutated((self.bundle / name).read_bytes(), self.draw)
        (place / name).write_bytes(content)
        if self.draw.random() < 0.75:
            # A manifest that is none cannot be given hashes.
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                makers.seal_again(place)

        def load() -> None:
            load_bundle(place, device=torch.device("cpu"))
            trained_on(place)

        self._try("bundle", name.as_posix().encode() + b"\n" + content, load)
        return content

    def _try(self, target: str, content: bytes, work: Callable[[], Any]) -> None:
        self.tried[target] += 1
        signal.alarm(LONGEST_SECONDS)
        try:
            work()
        except ClsGenError:
            self.refused[target] += 1
        except Exception as error:  # noqa: BLE001 - what is looked for
            signal.alarm(0)
            where = traceback.extract_tb(error.__traceback__)[-1]
            kept = Path(tempfile.gettempdir()) / f"clsgen-fuzz-{target}-{len(self.crashes)}"
            kept.write_bytes(content)
            self.crashes.append(
                f"{target}: {type(error).__name__} ({str(error)[:120]}) at {where.filename}:{where.lineno}; {kept}"
            )
        finally:
            signal.alarm(0)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for name, target in self.targets.items():
                for _ in range(1 if name == "bundle" else 20):
                    target()

    def report(self) -> dict[str, Any]:
        return {
            "tried": dict(self.tried),
            "refused": dict(self.refused),
            "crashes": self.crashes,
        }


def _too_slow(*_: object) -> None:
    raise Slow(f"more than {LONGEST_SECONDS} seconds")


def fuzz(seconds: float, seed: int) -> dict[str, Any]:
    """Tries inputs for so long; returns how many of each target, how many were refused, and the crashes."""
    before = signal.signal(signal.SIGALRM, _too_slow)
    try:
        with tempfile.TemporaryDirectory(prefix="clsgen-fuzz-") as folder:
            fuzzer = Fuzzer(Path(folder), seed)
            fuzzer.run(seconds)
            return fuzzer.report()
    finally:
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = fuzz(60 * given.minutes, given.seed)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["crashes"] else 0)


if __name__ == "__main__":
    main()
