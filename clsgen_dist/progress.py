"""What a person sees while a run is going: a bar with loss, tokens a second and time left."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Event:
    """A stage has come this far.

    Attributes:
        stage: its name.
        done, total: in units of the stage.
        note: numbers to show beside the bar.
    """

    stage: str
    done: int
    total: int
    note: str = ""


class Listener(Protocol):
    """Hears of progress."""

    def __call__(self, event: Event) -> None: ...


def silent(event: Event) -> None:
    """Listens to nothing."""


class ProgressBar:
    """Shows a bar a stage; a line now and then where the output is no terminal."""

    _SECONDS_BETWEEN_LINES = 10.0

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._last_line = 0.0
        self._bar = Progress(
            TextColumn("{task.description:<13}"),
            BarColumn(bar_width=12),  # with the note, a line fits a terminal of 80 columns
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            refresh_per_second=2,  # each costs a millisecond or two of a core that trains
        )

    def __enter__(self) -> ProgressBar:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        if not self._console.is_terminal:
            self._line(event)
            return
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bar.add_task(event.stage, total=event.total, note="")
        self._bar.update(self._tasks[event.stage], completed=event.done, total=event.total, note=event.note)

    def _line(self, event: Event) -> None:
        now = time.monotonic()
        started = self._started.setdefault(event.stage, now)
        if event.done < event.total and now - self._last_line < self._SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        left = (now - started) * (event.total - event.done) / max(1, event.done)
        rest = "done" if event.done >= event.total else f"{left:.0f} s left"
        note = event.note.replace("\n", ", ")
        print(f"{event.stage}: {event.done}/{event.total}, {rest}  {note}".rstrip(), file=sys.stderr, flush=True)
