"""Ray Train starts the workers, one a GPU or CPU slot, and restarts them when one dies. The only importer of ray."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

# Before ray is imported: which warnings it gives, and that workers stay in the folder of the driver.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import ray
import torch
from ray.train import CheckpointConfig, FailureConfig, ScalingConfig
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clsgen_dist.config.passed_on import TO_WORKERS, kept_by_own_cluster
from clsgen_dist.config.run import RunConfig, leaves
from clsgen_dist.config.services import Ray
from clsgen_dist.errors import ClsGenError, ConfigError, Interrupted
from clsgen_dist.orchestrate.room import Room
from clsgen_dist.progress import Event, Listener
from clsgen_dist.stopping import StopRequest, heeding_sigterm_in_any_thread

RankMain = Callable[[dict[str, Any], Listener, StopRequest], None]


class RaySettings(Protocol):
    """The section of a configuration that says which cluster."""

    @property
    def ray(self) -> Ray: ...
    def model_dump(self) -> dict[str, Any]: ...


#: What workers may take to end once they have said that they do.
_LEAVING_SECONDS = 15.0
#: Between looks at how many workers the cluster has room for.
_LOOK_SECONDS = 5.0


@contextmanager
def ray_cluster(config: RaySettings, num_workers: int, setting: str) -> Iterator[None]:
    """Joins the cluster of the configuration, or starts one on this machine that ends with the block.

    Args:
        config: the run.
        num_workers: slots that are needed, one a GPU or, on a cluster without any, one a share of its CPUs.
        setting: dotted name of the setting that says so.

    Raises:
        ConfigError: the cluster cannot be reached, or has fewer slots than the run wants workers.
    """
    address = config.ray.address or os.environ.get("RAY_ADDRESS")
    kept = dict(os.environ)
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # the cluster of this process alone, on loopback
        kept = kept_by_own_cluster(os.environ, dict(leaves(config.model_dump())))
    try:
        with _environment(kept):
            ray.init(
                # Without a word Ray would join whatever cluster another run has on this machine, and end with that run.
                address=address or "local",
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"ray.address {address}: no Ray cluster answers there ({error})") from None
    try:
        _check_slots(config, num_workers, setting)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, this process has these variables alone, and so have the processes that it starts."""
    whole = dict(os.environ)
    for name in whole.keys() - variables.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(whole)


def _slots(config: RaySettings) -> tuple[int, str]:
    """How many workers the cluster, as it is now, has room for, and what each of them takes."""
    total = ray.cluster_resources()
    num_gpus = int(total.get("GPU", 0))
    if num_gpus:
        return num_gpus, "GPUs"
    return int(total.get("CPU", 0) // config.ray.cpus_per_worker), f"CPU slots of {config.ray.cpus_per_worker:g}"


def _check_slots(config: RaySettings, num_workers: int, setting: str) -> None:
    """Says within seconds what would else be a long wait."""
    slots, kind = _slots(config)
    if num_workers > slots:
        raise ConfigError(f"{setting} is {num_workers}, the Ray cluster has {slots} {kind}; lower it or add nodes")


def run_on_ray(config: RunConfig, rank_main: RankMain, listener: Listener, stop: StopRequest) -> None:
    """Runs `rank_main` on every worker of a group.

    Args:
        config: the run; its folder must be prepared, and be seen by all nodes or stand in run.storage.
        rank_main: what one rank does with the configuration, as plain values, a listener and a request to stop.
        listener: hears what rank 0 tells.
        stop: of this process; workers are told.

    Raises:
        ClsGenError: the error that a worker met; it is not tried again.
    """
    # On the driver's own node: left to Ray it may stand on any, and a node that is lost would take the run with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    relay = _Relay.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    use_gpu = bool(ray.cluster_resources().get("GPU", 0))
    most = config.train.num_workers
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"config": config.model_dump(mode="json"), "relay": relay, "rank_main": rank_main},
        torch_config=TorchConfig(
            backend="nccl" if use_gpu else "gloo", timeout_s=config.train.collective_timeout_seconds
        ),
        scaling_config=ScalingConfig(
            # As a range, Ray starts a group of as many as there is room for, and a larger one when there is more.
            num_workers=(config.ray.min_workers, most) if config.ray.min_workers else most,  # type: ignore[arg-type]
            use_gpu=use_gpu,
            resources_per_worker={"CPU": config.ray.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=RayRunConfig(
            name=config.run.name,
            storage_path=f"{config.run.storage or Path(config.run.output_dir).absolute()}".rstrip("/") + "/.ray",
            failure_config=FailureConfig(max_failures=config.ray.max_failures),
            checkpoint_config=CheckpointConfig(),
            worker_runtime_env={  # type: ignore[call-arg]
                "env_vars": {name: os.environ[name] for name in TO_WORKERS if name in os.environ}
            },
        ),
    )
    room = Room(most, config.ray.min_workers)
    with _listening(relay, listener), stop.held():
        _fit(trainer, relay, stop, lambda: room.look(_slots(config)[0]))
    failure = ray.get(relay.failure.remote())
    if failure is not None:
        raise failure


def _fit(trainer: TorchTrainer, relay: Any, stop: StopRequest, look: Callable[[], None]) -> None:
    """Runs the trainer, tells its workers of a signal, and looks at the cluster now and then.

    In a thread of its own: in the main one Ray would answer Ctrl-C itself, by ending the workers in mid-step.
    """
    caught: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            caught.append(error)

    thread = threading.Thread(target=fit, daemon=True, name="ray-train")
    thread.start()
    was_told, looked = False, time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        if time.monotonic() - looked > _LOOK_SECONDS:
            with suppress(Exception):  # no run ends because nobody can count slots
                look()
            looked = time.monotonic()
        if stop.signal_number is not None and not was_told:
            relay.stop.remote(stop.signal_number)
            was_told = True
        if was_told and isinstance(ray.get(relay.failure.remote()), Interrupted):
            thread.join(_LEAVING_SECONDS)
            return  # the cluster, or this driver's part of it, is let go of by the caller
    if caught:
        raise caught[0]


def _rank(loop_config: dict[str, Any]) -> None:
    """One worker. Errors that are the user's to mend end the run instead of being tried again."""
    relay = loop_config["relay"]
    rank = ray.train.get_context().get_world_rank()
    stop = StopRequest()
    if rank == 0:  # the others hear of it from rank 0, at the end of a step
        threading.Thread(target=_hear_of_signals, args=(relay, stop), daemon=True, name="signals").start()
    try:
        with heeding_sigterm_in_any_thread(stop, loop_config["config"]["train"]["stop_grace_seconds"]):
            loop_config["rank_main"](loop_config["config"], lambda event: relay.tell.remote(event), stop)
    except ClsGenError as error:
        if isinstance(error, Interrupted) and ray.get(relay.signal.remote()) is None:
            # A worker was told to go, not the run: Ray starts the group again.
            raise RuntimeError(f"a worker got SIGTERM: {error}") from None
        ray.get(relay.fail.remote(error, rank))
        # The other ranks failed alike or wait in a collective; without this process there they wait no longer.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except RuntimeError:
        time.sleep(2.0)
        if ray.get(relay.failure.remote()) is None:
            raise  # a fault of its own: Ray starts the group again


def _hear_of_signals(relay: Any, stop: StopRequest) -> None:
    """Asks the driver for a signal, once a second; where no step is taken, the run ends by its word alone."""
    number = None
    while number is None:
        time.sleep(1.0)
        number = ray.get(relay.signal.remote())
    stop.ask(number)
    if not stop.is_held:
        relay.fail.remote(Interrupted("the same command goes on where it was", number), 0)


@ray.remote(num_cpus=0)
class _Relay:
    """Carries progress and errors from the workers to the driver."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._failures: dict[int, ClsGenError] = {}
        self._signal: int | None = None

    def stop(self, number: int) -> None:
        self._signal = number

    def signal(self) -> int | None:
        return self._signal

    def tell(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def fail(self, error: ClsGenError, rank: int) -> None:
        self._failures[rank] = error

    def failure(self) -> ClsGenError | None:
        return self._failures[min(self._failures)] if self._failures else None


@contextmanager
def _listening(relay: Any, listener: Listener) -> Iterator[None]:
    """Passes events on while the block runs."""
    ended = threading.Event()

    def pass_on() -> None:
        while True:
            last = ended.wait(0.5)
            for event in ray.get(relay.take.remote()):
                listener(event)
            if last:
                return

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=10)
