"""Where a run's numbers and files go: the seam behind which MLflow stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """One run of a tracking service, held by rank 0 alone. Only opening it may fail a training."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Notes numbers of an optimizer step. Names are `part/name`; values are finite."""

    def flush(self) -> None:
        """Sends what is waiting."""

    def log_artifacts(self, path: Path, folder: str) -> None:
        """Stores a file, or all files of a folder, under `folder`."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Notes facts that are not numbers."""

    def close(self, status: str) -> None:
        """Sends what is waiting and ends the run as FINISHED or FAILED."""
