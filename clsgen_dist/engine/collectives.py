"""What ranks tell each other. At world size 1 every call is the identity, so no caller need ask."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from clsgen_dist.stopping import StopRequest

#: Where ranks were asked by both, the first one is told.
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Ranks:
    """This process among its group.

    Attributes:
        rank: number of this process, 0 leads.
        world_size: number of processes.
        device: where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise sum over ranks, in the tensor's own number format."""
        if self.world_size > 1:
            values = values.to(self.device)
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, on all ranks, in rank order. Values are pickled by torch."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def from_leader(self, value: Any) -> Any:
        """Rank 0's value, on all ranks."""
        if self.world_size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device if self.device.type == "cuda" else None)
        return box[0]

    def barrier(self) -> None:
        if self.world_size > 1:
            distributed.barrier()


def agreed_signal(ranks: Ranks, stop: StopRequest) -> int | None:
    """The signal by which any rank was asked to stop, the same on all ranks; None where none was. All ranks call it."""
    asked = torch.tensor([float(stop.signal_number == number) for number in _SIGNALS])
    found = ranks.sum(asked).tolist()
    return next((int(number) for number, count in zip(_SIGNALS, found, strict=True) if count), None)


def current_ranks() -> Ranks:
    """The ranks of the process group that stands, or this process alone."""
    if not distributed.is_initialized():
        return Ranks(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))
    if torch.cuda.is_available():
        # One GPU a worker, by LOCAL_RANK: set before anything is allocated, or all workers would share GPU 0.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    return Ranks(distributed.get_rank(), distributed.get_world_size(), device)
