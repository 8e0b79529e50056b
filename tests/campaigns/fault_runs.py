"""Runs that something is done to: plain ranks and commands, their steps as they are told, and what they leave."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, dump_config
from tests.integration.test_launchers import BIN, ENVIRONMENT, TWO_RANKS
from tests.support import runs as support
from tests.support.ranks import RankPool, RanksFailed, free_port
from tests.support.runs import bundle_weights, compared_config, flow_on_rank
from tests.support.tiny import ROOT, tiny_rows
from tests.support.watching import last_step, told_steps

NUM_STEPS, KILLS_A_RUN = 30, 5
LIMIT_SECONDS = 600.0
#: Longest wait between a step and a fault, seconds: some steps.
LATEST_SECONDS = 0.3


def fault_config(folder: Path, name: str, **settings: Any) -> RunConfig:
    """30 steps on two workers, a checkpoint every second one."""
    often = {"train.epochs": 3, "train.checkpoint_steps": 2, "train.num_workers": 2, "evaluate.max_explained_rows": 1}
    return compared_config(folder, name, tiny_rows(80), **{**often, **settings})


def wait_for_step(config: RunConfig, step: int, lives: Callable[[], bool]) -> bool:
    """Waits until the run has told a step; False where it ended before, or time is over."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline and lives():
        if last_step(config) >= step:
            return True
        time.sleep(0.02)
    return False


def seconds_to_next_step(config: RunConfig, fault: float, gone: float) -> list[float]:
    """From a fault to the first step told after those that it hit were `gone`, which may go on for a moment.

    Both are times of the wall clock.
    """
    later = [when - fault for _, when in told_steps(config) if when > gone]
    return [min(later)] if later else []


def random_steps(draw: random.Random, num_faults: int) -> list[int]:
    """Steps for so many faults of one run, each in its share of the run, none in the last steps."""
    share = (NUM_STEPS - 4) / num_faults
    return [max(1, int(share * n + draw.uniform(0, share))) for n in range(num_faults)]


def wrongs_of(config: RunConfig, expected: dict[str, torch.Tensor], run_ids: set[str]) -> list[str]:
    """What is not as in the run that was left alone: weights to the bit, one MLflow run with every step once."""
    import mlflow

    wrongs = []
    found = bundle_weights(config)
    same = expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    if not expected or not same:
        wrongs.append("other weights")
    uri = str(config.tracking.uri)
    client = mlflow.MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments() if e.name == config.tracking.experiment]
    runs = [r for r in client.search_runs(experiments) if r.info.run_name == config.run.name]
    ids = {run.info.run_id for run in runs}
    if len(ids) != 1 or not run_ids <= ids:
        wrongs.append(f"{len(ids)} MLflow runs")
    for run in runs:
        steps = Counter(point.step for point in client.get_metric_history(run.info.run_id, "train/loss"))
        if steps != Counter(range(1, NUM_STEPS + 1)):
            wrongs.append("steps missing or doubled in MLflow")
        if run.info.status != "FINISHED":
            wrongs.append(f"status {run.info.status}")
    return wrongs


def forked_pool() -> RankPool:
    """Two ranks, forked from a process that has imported what they need; twenty kills would else be mostly imports."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    multiprocessing.set_forkserver_preload(["clsgen_dist.pipeline", "mlflow", __name__])
    return RankPool(2, start_method="forkserver")


class Hit:
    """Does something to a process at a step, from a thread, while the run goes on in another.

    Attributes:
        when: wall clock seconds of the fault; None where the run ended before.
        step, process: last step told then, and the id of who was hit.
    """

    def __init__(
        self, config: RunConfig, step: int, delay: float, number: int, victim: Callable[[], int | None]
    ) -> None:
        self.when: float | None = None
        self.step = self.process = -1
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._wait, args=(config, step, delay, number, victim), daemon=True)
        self._thread.start()

    def _wait(self, config: RunConfig, step: int, delay: float, number: int, victim: Callable[[], int | None]) -> None:
        if not wait_for_step(config, step, lambda: not self._ended.is_set()) or self._ended.wait(delay):
            return
        process = victim()
        if process is None or RunFolder(config.folder).bundle.exists():
            return
        self.step, self.process = last_step(config), process
        self.when = time.time()
        os.kill(process, number)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def flow_heard(config: RunConfig, log: str) -> None:
    """The whole flow as one rank whose words on stderr go to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 2)
    flow_on_rank(config)


def ranks_until_hit(
    pool: RankPool, config: RunConfig, log: Path, step: int, rank: int, number: int, delay: float
) -> Hit:
    """Runs the flow on plain ranks, one of which gets a signal on the way."""

    def victim() -> int | None:
        return pool._ranks[rank][0].pid if pool._ranks else None

    hit = Hit(config, step, delay, number, victim)
    try:
        pool.run(flow_heard, config, str(log), seconds=LIMIT_SECONDS)
    except RanksFailed:
        pass
    finally:
        hit.end()
    return hit


@contextmanager
def started(config: RunConfig, launcher: str) -> Iterator[subprocess.Popen[bytes]]:
    """The run as a command, under Ray or the deepspeed launcher; ended with all its processes, if it has not ended.

    What it says goes to NAME.log beside the configuration.
    """
    folder = Path(config.run.output_dir).parent
    path = folder / f"{config.run.name}.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    if launcher == "ray":
        command = [sys.executable, "launchers/ray_train.py", "--config", str(path)]
    else:
        port = str(free_port())
        command = [str(BIN / "deepspeed"), *TWO_RANKS, "--master_port", port, "launchers/train.py"]
        command += ["--config", str(path)]
    with (folder / f"{config.run.name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=ENVIRONMENT, start_new_session=True)
    try:
        yield process
    finally:
        end_all(descendants(process.pid))
        if process.poll() is None:
            process.kill()
        process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def end_all(processes: list[psutil.Process]) -> int:
    """Kills those that are left, by their ids; returns how many they were."""
    left = [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)
    return len(left)


def workers_of(pid: int) -> list[psutil.Process]:
    """Worker processes below a command: actors of Ray Train, or ranks of the deepspeed launcher."""
    found = []
    for process in descendants(pid):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        # The launcher's own processes name the script too, further on.
        if "RayTrainWorker" in " ".join(words) or "launchers/train.py" in words[:3]:
            found.append(process)
    return found


def step_milliseconds(config: RunConfig) -> float:
    """Trains as one rank; returns the median time of a step and its checkpoint, the first few steps left out.

    The mean would be that of whatever else the machine did for a moment.
    """
    times: list[float] = []

    class Clocked(support.Recorder):
        def stepped(self, state: Any, metrics: Any) -> None:
            times.append(time.perf_counter())
            super().stepped(state, metrics)

    before, support.Recorder = support.Recorder, Clocked  # type: ignore[misc]
    try:
        support.train_on_rank(config)
    finally:
        support.Recorder = before  # type: ignore[misc]
    return 1000 * statistics.median(after - before for before, after in itertools.pairwise(times[3:]))
