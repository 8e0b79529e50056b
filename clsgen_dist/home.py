"""Where a run folder is at home: in a folder that all nodes see, or in an object store with a copy on each node."""

from __future__ import annotations

import socket

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.object_place import ObjectPlace
from clsgen_dist.engine.places import Place, SharedFolder
from clsgen_dist.errors import CheckpointError
from clsgen_dist.mirror import CHECKPOINTS, mirror_of
from clsgen_dist.train.storage import check_objects, check_storage


class Home:
    """The home of one run, as one rank of a group sees it.

    Attributes:
        mates: ranks that see the same folder as this one, itself included, in order.
    """

    def __init__(self, config: RunConfig, ranks: Ranks) -> None:
        """All ranks make it.

        Raises:
            ConfigError: run.storage cannot be used.
        """
        self._folder, self._ranks = RunFolder(config.folder), ranks
        self._mirror = mirror_of(config)
        self.mates = list(range(ranks.world_size))
        if self._mirror is not None:
            everyone = ranks.gather((socket.gethostname(), str(config.folder)))
            self.mates = [rank for rank, where in enumerate(everyone) if where == everyone[ranks.rank]]

    def check(self) -> None:
        """Tries it, before anything heavy is loaded. All ranks call it.

        Raises:
            ConfigError: a rank cannot use it; on all ranks alike.
        """
        if self._mirror is None:
            check_storage(self._folder.path, self._ranks)
        else:
            check_objects(self._mirror.objects, self._ranks)

    def keep(self) -> None:
        """On rank 0: what this node's copy has is in the store afterwards. Raises CheckpointError."""
        if self._mirror is not None:
            self._mirror.push()

    def bring(self) -> None:
        """Brings what the store has to every node. All ranks call it.

        Raises:
            CheckpointError: on all ranks.
        """
        if self._mirror is None:
            return
        failure: CheckpointError | None = None
        if self.mates[0] == self._ranks.rank:
            try:
                self._mirror.pull()
            except CheckpointError as error:
                failure = error
        _raise_any(self._ranks, failure)

    def share(self) -> None:
        """Brings what rank 0 wrote to the store and to every node. All ranks call it. Raises as `bring` does."""
        if self._mirror is None:
            return
        failure: CheckpointError | None = None
        if self._ranks.leads:
            try:
                self._mirror.push()
            except CheckpointError as error:
                failure = error
        _raise_any(self._ranks, failure)
        self.bring()

    def checkpoints(self) -> Place:
        """The place of the run's checkpoints. All ranks call it."""
        if self._mirror is None:
            return SharedFolder(self._folder.checkpoints, self._ranks)
        objects = self._mirror.objects.below(CHECKPOINTS)
        return ObjectPlace(objects, self._folder.checkpoints, self._ranks, self.mates, self._mirror.push)


def _raise_any(ranks: Ranks, failure: CheckpointError | None) -> None:
    """Raises on all ranks what any of them met."""
    for found in ranks.gather(failure):
        if found is not None:
            raise found
