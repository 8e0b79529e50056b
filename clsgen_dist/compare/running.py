"""The jobs of a comparison, one after another, each in a process of its own; then what came of them.

Stopped at any point, the same command goes on where it was: finished jobs are not run again, and a training goes on
from its checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clsgen_dist.claim import claimed
from clsgen_dist.compare.arms import Comparison, Job
from clsgen_dist.compare.report import write_outputs
from clsgen_dist.compare.results import gather
from clsgen_dist.compare.work import ROWS_KIND
from clsgen_dist.config.run import RunConfig, dump_config, leaves
from clsgen_dist.errors import ClsGenError, ConfigError
from clsgen_dist.launch import INTERRUPTED, UNUSABLE
from clsgen_dist.tracking.mlflow import MlflowTracker, git_commit

Say = Callable[[str], None]

#: Lines of a job that failed, shown again at the end.
_LAST_LINES = 12

#: How long a job may take to end when it is asked to.
_GRACE_SECONDS = 30.0


def compare(comparison: Comparison, say: Say) -> dict[str, Any]:
    """Runs what is not finished, and writes OUTPUT_DIR/NAME/compare/.

    Args:
        comparison: what to compare.
        say: hears a line at a time of how far everything is.

    Returns:
        The content of comparison.json; `failed` names the jobs that ended in an error, with its words.

    Raises:
        ConfigError, DataError: the rows cannot be made, or another process compares there.
        TrackingError: MLflow cannot be used.
    """
    results = comparison.folder / "compare"
    results.mkdir(parents=True, exist_ok=True)
    with claimed(results):
        return _compare(comparison, results, say)


def _compare(comparison: Comparison, results: Path, say: Say) -> dict[str, Any]:
    tracker = _open_tracker(comparison, results)
    failed: dict[str, str] = {}
    status = "FAILED"
    try:
        with _ended_by_terminate():
            _make_rows(comparison, say)
            _run_jobs(comparison, tracker.reference, failed, say)
        content = _write(comparison, failed, results, tracker)
        status = "FAILED" if failed else "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        if any(job.is_finished for job in comparison.jobs):
            _write(comparison, failed, results, tracker)
            say(f"what is finished is compared in {results}")
        raise
    finally:
        tracker.close(status)
    return content


def _make_rows(comparison: Comparison, say: Say) -> None:
    code, lines = _run(comparison.rows, "rows", ROWS_KIND, comparison.folder, say)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        kind = ConfigError if code == UNUSABLE else ClsGenError
        raise kind(f"the rows of the comparison could not be made: {_error_of(lines)}")


def _run_jobs(comparison: Comparison, parent: str, failed: dict[str, str], say: Say) -> None:
    started, took = time.monotonic(), list[float]()
    waiting = [job for job in comparison.jobs if not job.is_finished]
    say(f"{len(comparison.jobs)} runs, {len(comparison.jobs) - len(waiting)} of them finished before")
    for number, job in enumerate(waiting, 1):
        say(f"[{number}/{len(waiting)}] {job.name}{_time_left(took, waiting[number - 1 :])}")
        begun = time.monotonic()
        code, lines = _run(_under(job.config, parent), job.name, job.arm.kind, comparison.folder, say)
        if job.arm.kind == "trained":
            took.append(time.monotonic() - begun)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code or not job.is_finished:
            failed[job.name] = _error_of(lines)
            say(f"[{number}/{len(waiting)}] {job.name} failed, the others go on: {failed[job.name]}")
    if waiting:
        say(f"all runs are through, after {(time.monotonic() - started) / 60:.1f} min")


def _time_left(took: Sequence[float], waiting: Sequence[Job]) -> str:
    """What is left by the seconds that trainings took so far; all other arms take little of the time."""
    trained = sum(job.arm.kind == "trained" for job in waiting)
    return f", about {sum(took) / len(took) * trained / 60:.0f} min left" if took and trained else ""


def _under(config: RunConfig, parent: str) -> RunConfig:
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"parent_run_id": parent})})


def _run(config: RunConfig, name: str, kind: str, folder: Path, say: Say) -> tuple[int, list[str]]:
    """One process to its end; its words go to the console and into a file. Returns its exit code and last lines."""
    settings = folder / "jobs" / f"{name}.yaml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(dump_config(config), encoding="utf-8")
    command = [sys.executable, "-m", f"{__package__}.work", "--config", str(settings), "--kind", kind]
    # The package may stand where only the launcher knows of it.
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    lines: list[str] = []
    with settings.with_suffix(".log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                lines = [*lines[1 - _LAST_LINES :], line.rstrip()]
                say(f"  {name}  {line.rstrip()}")
            code = process.wait()
        finally:
            _end(process)
    return code, lines


def _end(process: subprocess.Popen[str]) -> None:
    """Sees that a job does not outlive the comparison; a stop in the terminal has reached it, too."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _error_of(lines: list[str]) -> str:
    """The words of an error in the last lines of a job."""
    start = next((n for n, line in enumerate(lines) if line.startswith("error: ")), None)
    told = lines[-1:] if start is None else lines[start:]
    return " ".join(told).removeprefix("error: ") or "it ended without a word"


@contextmanager
def _ended_by_terminate() -> Iterator[None]:
    """A comparison that is told to end (`ray job stop`, Kubernetes) ends as by Ctrl-C, and its job with it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_tracker(comparison: Comparison, results: Path) -> MlflowTracker:
    """The MLflow run that all arms are shown under, the same one every time."""
    tracking = comparison.rows.tracking
    uri = str(tracking.uri)
    local = comparison.folder.parent / "mlartifacts" if uri.startswith("sqlite:") else None
    tracker = MlflowTracker(uri, tracking.experiment, comparison.name, folder=results, artifacts=local)
    if not tracker.is_begun:
        tracker.log_params(dict(leaves(comparison.rows.model_dump(mode="json"))))
        commit = git_commit(Path(__file__).parent) or "unknown"
        tracker.set_tags(
            {
                "comparison_folder": str(comparison.folder),
                "arms": ", ".join(arm.name for arm in comparison.arms),
                "git_commit": commit,
                "mlflow.source.name": "clsgen_dist",
                "mlflow.source.git.commit": commit,
            }
        )
        tracker.begun()
    return tracker


def _write(comparison: Comparison, failed: dict[str, str], results: Path, tracker: MlflowTracker) -> dict[str, Any]:
    content = write_outputs(results, gather(comparison, failed))
    numbers = {
        f"{row['name']}/{metric}": numbers["mean"]
        for row in content["rows"]
        for metric, numbers in row["numbers"].items()
        if numbers is not None
    }
    tracker.log_metrics(numbers, step=0)
    tracker.log_artifacts(results, "compare")
    return content
