"""What rank 0 tells the world of a run: to MLflow, and to the person who watches."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import torch

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, leaves
from clsgen_dist.integrity import write_json
from clsgen_dist.progress import Event, Listener
from clsgen_dist.tracking.mlflow import MlflowTracker, git_commit
from clsgen_dist.train import schedule
from clsgen_dist.train.state import TrainState
from clsgen_dist.train.step import StepMetrics, Validation


def open_tracker(config: RunConfig, folder: RunFolder) -> MlflowTracker:
    """Opens the MLflow run of a run folder, the same one every time.

    Raises:
        ConfigError, TrackingError: the server or database can never be used; one that is only away gets the run later.
    """
    uri = tracking_uri(config)
    # A database has no place for files of its own; MLflow would choose the folder where the command was started.
    local = Path(config.run.output_dir).absolute() / "mlartifacts" if uri.startswith("sqlite:") else None
    tracker = MlflowTracker(
        uri,
        config.tracking.experiment,
        config.run.name,
        folder=folder.path,
        artifacts=local,
        parent=config.tracking.parent_run_id,
    )
    if not tracker.is_begun:
        tracker.log_params(dict(leaves(config.model_dump(mode="json"))))
        tracker.log_artifacts(folder.config, "")
        for page in (folder.manifest, folder.explained / "explain_report.html"):
            tracker.log_artifacts(page, "explained")
        for split, facts in json.loads(folder.manifest.read_text(encoding="utf-8"))["splits"].items():
            tracker.log_dataset(split, folder.rows(split), facts["sha256"], facts["num_rows"])
        commit = git_commit(Path(__file__).parent) or "unknown"
        tags = {"run_folder": config.stored_at or str(folder.path), "git_commit": commit}
        # Names that the MLflow UI has places for.
        tracker.set_tags(tags | {"mlflow.source.name": "clsgen_dist", "mlflow.source.git.commit": commit})
        tracker.begun()
    return tracker


def tracking_uri(config: RunConfig) -> str:
    """Where the run is tracked."""
    return config.tracking.uri or f"sqlite:///{Path(config.run.output_dir).absolute() / 'mlflow.db'}"


class RunObserver:
    """Hears of steps and validations; `Events` of the loop, on rank 0."""

    def __init__(self, config: RunConfig, num_rows: int, tracker: MlflowTracker, listener: Listener) -> None:
        self._train = config.train
        self._has_head = config.objective.w_cls > 0
        self._num_steps = schedule.total_steps(config.train, num_rows)
        self._tracker = tracker
        self._listener = listener

    def stepped(self, state: TrainState, metrics: StepMetrics) -> None:
        factors = schedule.learning_rate_factors(self._train, state.step - 1, self._num_steps)
        numbers = {
            "train/loss": metrics.loss,
            "train/loss_cls": metrics.loss_cls,
            "train/loss_gen": metrics.loss_gen,
            "train/kl": metrics.kl,
            "train/grad_norm": metrics.grad_norm,
            "train/learning_rate": self._train.learning_rate * factors["backbone"],
            "train/head_learning_rate": self._train.head_learning_rate * factors["head"],
            "train/tokens_per_second": metrics.tokens_per_second,
            "train/tokens_seen": state.tokens_seen,
            "train/peak_memory_mib": peak_memory_mib(),
        }
        if metrics.general_kl is not None:
            numbers["train/general_kl"] = metrics.general_kl
        if self._train.on_nonfinite == "skip":
            numbers["train/skipped_steps"] = state.num_skipped
        if metrics.skipped is not None:
            self._listener(Event("skipped steps", state.num_skipped, state.num_skipped, metrics.skipped))
        if not self._has_head:
            del numbers["train/loss_cls"]  # of weights that nobody trains
        self._tracker.log_metrics(numbers, step=state.step)
        if schedule.is_due(state.step, self._train.checkpoint_steps, self._num_steps):
            self._tracker.flush()  # a step that a checkpoint holds is never taken, and so never told, again
        note = f"loss {metrics.loss:.3f}  {metrics.tokens_per_second:,.0f} tokens/s"
        self._listener(Event("train", state.step, self._num_steps, note))

    def validated(self, state: TrainState, validation: Validation) -> None:
        numbers = {
            "validation/loss": validation.loss,
            "validation/loss_cls": validation.loss_cls,
            "validation/loss_gen": validation.loss_gen,
            "validation/best_step": state.best_step,
        }
        self._tracker.log_metrics(numbers, step=state.step)
        self._tracker.flush()


class Unobserved:
    """`Events` of the ranks that say nothing."""

    def stepped(self, state: TrainState, metrics: StepMetrics) -> None:
        """Says nothing."""

    def validated(self, state: TrainState, validation: Validation) -> None:
        """Says nothing."""


def note_training(folder: RunFolder, seconds: float) -> None:
    """Writes down what an attempt at training took, beside what earlier attempts took that ended with a word."""
    known = json.loads(folder.resources.read_text(encoding="utf-8")) if folder.resources.exists() else {}
    write_json(
        folder.resources,
        {
            "train_seconds": known.get("train_seconds", 0.0) + seconds,
            "num_attempts": known.get("num_attempts", 0) + 1,
            "peak_memory_mib": max(known.get("peak_memory_mib", 0.0), peak_memory_mib()),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        },
    )


def peak_memory_mib() -> float:
    """Most memory so far: of the GPU where there is one, else of this process, MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
