"""The flow, one function an arrow:

    rows -> explain -> explained set -> prepare -> tokens -> train -> bundle -> calibrate -> evaluate -> report, MLflow

Every rank walks the whole of `run_rank`; rank 0 writes, tracks and shows.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from clsgen_dist.bundle import load_bundle
from clsgen_dist.chat.address import check_endpoint
from clsgen_dist.claim import claimed
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import start_distributed
from clsgen_dist.errors import CheckpointError, ClsGenError, Interrupted
from clsgen_dist.home import Home
from clsgen_dist.mirror import kept_alike, mirror_of
from clsgen_dist.observe import RunObserver, Unobserved, note_training, open_tracker, peak_memory_mib
from clsgen_dist.prepare import backbone_place, prepare
from clsgen_dist.progress import Event, Listener, silent
from clsgen_dist.stopping import StopRequest, heeding_signals
from clsgen_dist.tracking.mlflow import MlflowTracker
from clsgen_dist.train.heartbeat import heartbeat
from clsgen_dist.worker import keep_untrained, train_bundle


def _to_stderr(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def run_launched(config: RunConfig, listener: Listener) -> RunFolder:
    """The whole flow on a rank that a launcher started: rank 0 prepares, the others wait for its word.

    Raises:
        ClsGenError: on every rank, the error that rank 0 met while it prepared.
    """
    config = _with_absolute_paths(config)
    use_threads(config)
    with ExitStack() as held:
        stop = held.enter_context(heeding_signals(config.train.stop_grace_seconds))
        ranks = start_distributed(config.train.collective_timeout_seconds)
        _led(ranks, lambda: held.enter_context(claimed(config.folder)))
        Home(config, ranks).check()
        _led(ranks, lambda: _prepare(config, listener))
        run_rank(config, RunFolder(config.folder), listener, stop)
    return RunFolder(config.folder)


def _led(ranks: Ranks, call: Callable[[], Any]) -> None:
    """Calls something on rank 0 alone; its error is raised on all ranks."""
    failure: ClsGenError | None = None
    if ranks.leads:
        try:
            call()
        except ClsGenError as error:
            failure = error
    failure = ranks.from_leader(failure)
    if failure is not None:
        raise failure


def _prepare(config: RunConfig, listener: Listener) -> RunFolder:
    """Makes the run folder ready, here and in its object store where it has one."""
    if "judge" in config.evaluate.readers:
        check_endpoint(config.evaluate.judge)  # now, not after hours of training
    listener(Event("prepare rows", 0, 1))
    with kept_alike(mirror_of(config)):
        folder = prepare(config, listener)
    listener(Event("prepare rows", 1, 1))
    return folder


def run_with_ray(config: RunConfig, listener: Listener, *, is_trained: bool = True) -> RunFolder:
    """The whole flow on a Ray cluster: this process prepares, the workers do the rest.

    Args:
        config: the run.
        listener: hears of progress.
        is_trained: whether to train; without it the backbone as it is goes through the rest, see `keep_untrained`.

    Raises:
        ClsGenError: what preparing or any worker met.
    """
    from clsgen_dist.orchestrate.ray_train import ray_cluster, run_on_ray  # ray is needed on this road only

    config = _with_absolute_paths(config)
    fewest = config.ray.min_workers or config.train.num_workers
    setting = "ray.min_workers" if config.ray.min_workers else "train.num_workers"
    listener(Event("start Ray", 0, 1))
    with (
        claimed(config.folder),
        ray_cluster(config, fewest, setting),
        heeding_signals(config.train.stop_grace_seconds) as stop,  # last: Ray takes signals as it starts
    ):
        listener(Event("start Ray", 1, 1))
        folder = _prepare(config, listener)
        listener(Event("start workers", config.train.num_workers, config.train.num_workers))
        run_on_ray(config, _ray_rank if is_trained else _untrained_ray_rank, listener, stop)
        mirror = mirror_of(config)
        if mirror is not None:
            mirror.pull()  # what the workers wrote on their nodes
    return folder


def _ray_rank(values: dict[str, Any], listener: Listener, stop: StopRequest) -> None:
    config = RunConfig.model_validate(values)
    Home(config, start_distributed(config.train.collective_timeout_seconds)).check()
    run_rank(config, RunFolder(config.folder), listener, stop, tell=_to_driver(listener))


def _untrained_ray_rank(values: dict[str, Any], listener: Listener, stop: StopRequest) -> None:
    config = RunConfig.model_validate(values)
    run_rank(config, RunFolder(config.folder), listener, stop, is_trained=False, tell=_to_driver(listener))


def _to_driver(listener: Listener) -> Callable[[str], None]:
    def tell(message: str) -> None:
        listener(Event("workers", 1, 1, message))
        time.sleep(1.0)  # it is on its way while the process ends

    return tell


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """Workers may stand in another folder than the driver, and a bundle is opened from anywhere."""
    model = config.model
    if model.name_or_path and Path(model.name_or_path).is_dir():
        model = model.model_copy(update={"name_or_path": str(Path(model.name_or_path).absolute())})
    run = config.run.model_copy(update={"output_dir": str(Path(config.run.output_dir).absolute())})
    return config.model_copy(update={"run": run, "model": model})


def run_rank(
    config: RunConfig,
    folder: RunFolder,
    listener: Listener,
    stop: StopRequest,
    *,
    is_trained: bool = True,
    tell: Callable[[str], None] = _to_stderr,
) -> None:
    """Train, calibrate and evaluate, as one rank of a group, in a run folder that is prepared."""
    use_threads(config)
    ranks = start_distributed(config.train.collective_timeout_seconds)
    home = Home(config, ranks)
    attempt = folder.path / f".signs-{ranks.from_leader(uuid.uuid4().hex[:8])}"
    seconds, stall_seconds = config.train.hang_seconds, config.train.stall_seconds
    with heartbeat(attempt, ranks.rank, home.mates, seconds, tell, stall_seconds=stall_seconds):
        home.bring()
        if ranks.leads:
            _lead(config, folder, ranks, home, listener, stop, is_trained)
        else:
            _stages(config, folder, ranks, home, None, silent, stop, is_trained)


def _lead(
    config: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    home: Home,
    listener: Listener,
    stop: StopRequest,
    is_trained: bool,
) -> None:
    """What rank 0 does: the stages, and their tracking."""
    tracker = open_tracker(config, folder)
    status = "FAILED"
    try:
        home.keep()  # which MLflow run it is, should this node be lost
        _stages(config, folder, ranks, home, tracker, listener, stop, is_trained)
        status = "FINISHED"
    except Interrupted:
        status = "KILLED"
        raise
    finally:
        tracker.close(status)
        with contextlib.suppress(CheckpointError) if status != "FINISHED" else contextlib.nullcontext():
            home.keep()


def use_threads(config: RunConfig) -> None:
    """Shares the node's cores among its workers; too many threads make CPU workers wait for each other."""
    # Ray and torchrun say LOCAL_WORLD_SIZE, the deepspeed launcher says LOCAL_SIZE.
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1")
    torch.set_num_threads(config.train.cpu_threads or max(1, len(os.sched_getaffinity(0)) // local))


def _stages(
    config: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    home: Home,
    tracker: MlflowTracker | None,
    listener: Listener,
    stop: StopRequest,
    is_trained: bool,
) -> None:
    stop.check()
    if is_trained:
        _train(config, folder, ranks, home, tracker, listener, stop)
    else:
        keep_untrained(config, folder, backbone_place(config, folder), ranks)
    home.share()
    trust = config.model.trust_remote_code
    bundle = load_bundle(folder.bundle, device=ranks.device, trust_remote_code=trust)
    # Brings libraries of statistics and plots, for which training does not wait.
    from clsgen_dist.release import calibrate, evaluate_split

    bundle = calibrate(config, folder, bundle, ranks, listener)
    evaluate_split(config, folder, bundle, ranks, tracker, listener)
    if tracker:
        tracker.log_artifacts(folder.bundle, "bundle")
        tracker.log_metrics({"run/peak_memory_mib": peak_memory_mib()}, step=0)


def _train(
    config: RunConfig,
    folder: RunFolder,
    ranks: Ranks,
    home: Home,
    tracker: MlflowTracker | None,
    listener: Listener,
    stop: StopRequest,
) -> None:
    num_rows = len(TokenizedSplit(folder.tokens("train")))
    observer = RunObserver(config, num_rows, tracker, listener) if tracker else Unobserved()
    stood, started = folder.bundle.exists(), time.monotonic()
    try:
        train_bundle(
            config,
            folder,
            backbone_place(config, folder),
            ranks,
            observer,
            lambda message: listener(Event("checkpoint", 1, 1, message)),
            stop,
            home.checkpoints(),
        )
    finally:
        if ranks.leads and not stood:
            note_training(folder, time.monotonic() - started)
