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
    def is_begun(self) -> bool:
        """Whether anything stands there, answers about probabilities in words aside: those may come before a run."""
        return self.path.exists() and any(path != self.verbalized for path in self.path.iterdir())

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def zero(self) -> Path:
        """ZeRO settings as they were when the run began."""
        return self.path / "ds_config.json"

    @property
    def labelled_manifest(self) -> Path:
        """What the labelled rows are: sources, counts, hashes."""
        return self.path / "rows" / "manifest.json"

    @property
    def teacher_memory(self) -> Path:
        """What the teacher answered, so that nothing is asked twice."""
        return self.path / "teacher.sqlite"

    @property
    def explained(self) -> Path:
        """The explained set: training and validation rows with their explanations, manifest and report."""
        return self.path / "explained"

    @property
    def manifest(self) -> Path:
        """What the explained set is: teacher, settings, counts, hashes."""
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
    def resources(self) -> Path:
        """What training took: time and memory."""
        return self.path / "resources.json"

    @property
    def tracking(self) -> Path:
        """Which MLflow run this is."""
        return self.path / "tracking.json"

    @property
    def verbalized(self) -> Path:
        """What a language model said of probabilities in words, and what became of it."""
        return self.path / "verbalized"

    def labelled(self, split: str) -> Path:
        """Rows as people labelled them."""
        return self.path / "rows" / f"{split}.parquet"

    def rows(self, split: str) -> Path:
        """Rows as a run uses them: those that are trained on with their explanations."""
        return self.explained / f"{split}.parquet" if split in EXPLAINED_SPLITS else self.labelled(split)

    def tokens(self, split: str) -> Path:
        return self.path / "tokens" / f"{split}.arrow"

    def evaluation(self, split: str) -> Path:
        return self.path / "evaluation" / split
