"""What a side of a benchmark is asked to do, and how its steps are timed."""

from __future__ import annotations

import resource
import time
from typing import Any, NamedTuple

ROWS_A_STEP = 16


class Clock:
    """Wall and processor seconds of steps."""

    def __init__(self, num_warm: int) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[float] = []
        self._num_warm, self._num_seen = num_warm, 0
        self.start()

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def stop(self) -> None:
        self._num_seen += 1
        if self._num_seen > self._num_warm:
            self.wall.append(time.perf_counter() - self._wall)
            self.cpu.append(_cpu_seconds() - self._cpu)
        self.start()


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Job(NamedTuple):
    """What a side is asked to do.

    Attributes:
        rows: token ids `prompt` and `completion`, and `label`, in the order in which they are trained on.
        backbone: folder of the model.
        precision: bf16 or fp32.
        num_warm, num_timed: steps.
        options: of the side: `zero` and `token_budget` of ours, perhaps `attention` and the technique that it is
            `without`; `layout` of TRL; `rows_a_pass` of both peers, a divisor of `ROWS_A_STEP`.
    """

    rows: list[dict[str, Any]]
    backbone: str
    precision: str
    num_warm: int
    num_timed: int
    options: dict[str, Any]


#: The same adapter on every side.
LORA = {"rank": 16, "alpha": 32.0, "targets": "all-linear"}
LEARNING_RATE = 2e-4
