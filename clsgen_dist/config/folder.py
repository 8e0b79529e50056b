"""The run folder: where each stage reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clsgen_dist.records import EXPLAINED_SPLITS


@dataclass(frozen=True)
class RunFolder:
    """Names of everything that a run writes below OUTPUT_DIR/RUN_NAME."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def zero(self) -> Path:
        """ZeRO settings as they were when the run began."""
        return self.path / "ds_config.json"

    @property
    def manifest(self) -> Path:
        """What the rows were: counts, sources, hashes."""
        return self.path / "explained" / "manifest.json"

    @property
    def backbone(self) -> Path:
        """A backbone that was made for this run."""
        return self.path / "backbone"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Trainable weights of the best step."""
        return self.path / "checkpoints" / "best"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def tracking(self) -> Path:
        """Which MLflow run this is."""
        return self.path / "tracking.json"

    def rows(self, split: str) -> Path:
        return self.path / ("explained" if split in EXPLAINED_SPLITS else "rows") / f"{split}.parquet"

    def tokens(self, split: str) -> Path:
        return self.path / "tokens" / f"{split}.arrow"

    def evaluation(self, split: str) -> Path:
        return self.path / "evaluation" / split
