"""What a cluster's room for workers means for a run, in words."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("clsgen_dist.ray")


class Room:
    """Says what nodes that are lost or come back mean for the run: a wait without a word looks like a hang."""

    def __init__(self, wanted: int, least: int | None) -> None:
        """`least`: workers that the run goes on with; None: it waits for all that are `wanted`."""
        self._wanted, self._least, self._seen = wanted, least, wanted

    def look(self, slots: int) -> None:
        """Hears how many workers there is room for."""
        slots = min(slots, self._wanted)
        if slots == self._seen:
            return
        self._seen = slots
        said = f"the Ray cluster has room for {slots} of {self._wanted} workers"
        if slots == self._wanted:
            _LOG.warning("%s again", said)
        elif self._least is None:
            _LOG.warning("%s: waiting for the others (ray.min_workers lets a run go on with fewer)", said)
        elif slots < self._least:
            _LOG.warning("%s: waiting for ray.min_workers, %d", said, self._least)
        else:
            _LOG.warning("%s: the run goes on with these from its newest checkpoint", said)
