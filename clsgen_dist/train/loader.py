"""Micro-batches of steps; on a GPU laid out ahead, in a thread and in pinned memory, so that no kernel waits for them.

On CPUs there is no thread: it would take a core from the very products that it is to keep fed, and laying out a
micro-batch is some ten thousandths of a step (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from clsgen_dist.data.batch import Batch, collate
from clsgen_dist.data.plan import MicroBatch
from clsgen_dist.data.tokens import TokenizedSplit


class Loader:
    """Hands out the micro-batches of one rank. Which rows they have depends on the step alone, so nothing is saved."""

    def __init__(
        self,
        split: TokenizedSplit,
        plan_of: Callable[[int], list[MicroBatch]],
        device: torch.device,
        *,
        one_line: bool,
        ahead: bool,
    ) -> None:
        """`plan_of`: rows of this rank's micro-batches in a step; `one_line` as in `collate`; `ahead`: in a thread."""
        self._split, self._plan_of, self._device, self._one_line = split, plan_of, device, one_line
        self._thread = ThreadPoolExecutor(1, "loader") if ahead else None
        self._next_step = -1
        self._next: Future[tuple[list[MicroBatch], Batch]] | None = None

    def open(self, step: int) -> tuple[list[MicroBatch], Iterator[Batch]]:
        """Rows of a step's micro-batches, and the micro-batches on the device, each when it is asked for.

        An error of the thread is raised where the micro-batch is asked for that it belongs to. While the last one is in
        use, the first one of the next step is laid out.
        """
        if self._thread is None:
            plan = self._plan_of(step)
            return plan, (self._laid_out(members).to(self._device) for members in plan)
        opening = self._next if self._next is not None and self._next_step == step else None
        plan, first = self._opened(step) if opening is None else opening.result()
        return plan, self._batches(self._thread, step, plan, first)

    def _batches(self, thread: ThreadPoolExecutor, step: int, plan: list[MicroBatch], batch: Batch) -> Iterator[Batch]:
        for members in plan[1:]:
            following = thread.submit(self._laid_out, members)
            yield batch.to(self._device)
            batch = following.result()
        self._next_step, self._next = step + 1, thread.submit(self._opened, step + 1)
        yield batch.to(self._device)

    def _opened(self, step: int) -> tuple[list[MicroBatch], Batch]:
        plan = self._plan_of(step)
        return plan, self._laid_out(plan[0])

    def _laid_out(self, members: MicroBatch) -> Batch:
        batch = collate([self._split[row] for row in members], one_line=self._one_line)
        return batch.pinned() if self._device.type == "cuda" else batch
