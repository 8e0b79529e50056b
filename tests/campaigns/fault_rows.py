"""The rows of `faults.py`: what is done to runs, and what is asked of them afterwards."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.manifest import complete_checkpoints
from tests.campaigns import fault_runs as runs
from tests.campaigns.fault_report import Case
from tests.integration.test_stopping import signalled_on_rank
from tests.support.ranks import RanksFailed
from tests.support.runs import bundle_weights, compared_config, flow_on_rank, long_rows
from tests.support.tiny import ROOT, tiny_backbone
from tests.support.watching import last_step, told_steps

HANG_SECONDS = 10


@dataclass(frozen=True)
class Asked:
    """How much to do, where, and by which dice."""

    folder: Path
    kills: int
    rounds: int
    draw: random.Random

    def shares(self, kills: int) -> list[int]:
        """So many kills, shared out among runs."""
        most = runs.KILLS_A_RUN
        return [min(most, kills - done) for done in range(0, kills, most)]

    @property
    def delay(self) -> float:
        return self.draw.uniform(0.0, runs.LATEST_SECONDS)


Row = Callable[[Asked], Iterator[Case]]
ROWS: dict[str, tuple[str, Row]] = {}


def row(name: str, fault: str) -> Callable[[Row], Row]:
    """Registers a row of the table."""

    def registered(function: Row) -> Row:
        ROWS[name] = (fault, function)
        return function

    return registered


def concluded(
    config: RunConfig,
    expected: dict[str, Any],
    told: list[str],
    times: list[float],
    ids: set[str],
    num_wrong: int = 0,
    gone: list[float] | None = None,
) -> Case:
    """The case of a run that came to its end, or did not.

    `times` of the faults; `gone`: when the processes that each had hit were, by default a second later.
    """
    try:
        wrongs = runs.wrongs_of(config, expected, ids)
    except Exception as error:  # noqa: BLE001 - a run without a bundle is one that was not survived
        wrongs = [f"{type(error).__name__}: {error}"]
    gone = gone or [when + 1.0 for when in times]
    seconds = [second for pair in zip(times, gone, strict=True) for second in runs.seconds_to_next_step(config, *pair)]
    words = "; ".join([*told, *(wrongs or ["as if nothing had been"])])
    return Case(words, len(times), 0 if wrongs else len(times) - num_wrong, seconds)


def on_ranks(asked: Asked, number: int, num_faults: int, is_named: bool, **settings: int) -> Iterator[Case]:
    """Plain ranks, one of which gets a signal; the same call again each time. `is_named`: its neighbour names it."""
    pool = runs.forked_pool()
    try:
        whole = runs.fault_config(asked.folder, "whole")
        pool.run(flow_on_rank, whole, seconds=runs.LIMIT_SECONDS)
        expected = bundle_weights(whole)
        for run, share in enumerate(asked.shares(num_faults)):
            config = runs.fault_config(asked.folder, f"hit{run}", **settings)
            log = asked.folder / f"hit{run}.log"
            told, times, ids, num_wrong = [], [], set(), 0
            for step in runs.random_steps(asked.draw, share):
                step = max(step, last_step(config) + 1)
                rank, delay = asked.draw.randrange(2), asked.delay
                hit = runs.ranks_until_hit(pool, config, log, step, rank, number, delay)
                if hit.when is None:
                    told.append(f"ended before the fault at step {step}")
                    continue
                times.append(hit.when)
                told.append(f"rank {rank} after step {hit.step}")
                ids |= run_ids(config)
                name = f"rank {rank} (process {hit.process} on"
                if is_named and name not in log.read_text(errors="replace"):
                    told.append("it was not named")
                    num_wrong += 1
            try:
                pool.run(flow_on_rank, config, seconds=runs.LIMIT_SECONDS)
            except RanksFailed as error:
                told.append(str(error)[-300:])
            yield concluded(config, expected, told, times, ids, num_wrong)
    finally:
        pool.close(broken=True)


def run_ids(config: RunConfig) -> set[str]:
    """The MLflow run that a run folder speaks of."""
    path = RunFolder(config.folder).tracking
    return set(re.findall(r'"run_id": "(\w+)"', path.read_text())) if path.exists() else set()


@row("kill-ranks", "kill -9 of one of two plain ranks within a random step, the same command again")
def kill_ranks(asked: Asked) -> Iterator[Case]:
    yield from on_ranks(asked, signal.SIGKILL, asked.kills, False)


@row("stop-rank", f"a rank stopped by SIGSTOP, train.hang_seconds {HANG_SECONDS}: named, the same command again")
def stop_rank(asked: Asked) -> Iterator[Case]:
    settings = {"train.hang_seconds": HANG_SECONDS}
    yield from on_ranks(asked, signal.SIGSTOP, asked.rounds, True, **settings)


def expected_of(asked: Asked, launcher: str, **settings: int) -> dict[str, Any]:
    """Weights of the run that was left alone."""
    whole = runs.fault_config(asked.folder, f"whole-{launcher}", **settings)
    with runs.started(whole, launcher) as process:
        if process.wait(runs.LIMIT_SECONDS) != 0:
            raise SystemExit(f"the run that was left alone failed:\n{said(whole)}")
    return bundle_weights(whole)


def said(config: RunConfig) -> str:
    return (Path(config.run.output_dir).parent / f"{config.run.name}.log").read_text(errors="replace")[-2000:]


@row("kill-ray", "kill -9 of a worker within a random step under Ray; the group restarts by itself")
def kill_ray(asked: Asked) -> Iterator[Case]:
    settings = {"ray.max_failures": 2 * runs.KILLS_A_RUN}
    expected = expected_of(asked, "ray", **settings)
    for run, share in enumerate(asked.shares(asked.kills)):
        config = runs.fault_config(asked.folder, f"ray{run}", **settings)
        told, times, ids = [], [], set()
        with runs.started(config, "ray") as driver:
            for step in runs.random_steps(asked.draw, share):
                step = max(step, last_step(config) + 1)
                if not runs.wait_for_step(config, step, lambda: driver.poll() is None):
                    break
                time.sleep(asked.delay)
                victims = runs.workers_of(driver.pid)
                if not victims or RunFolder(config.folder).bundle.exists():
                    told.append("ended before the fault")
                    break
                victim, now = asked.draw.choice(victims), time.time()
                victim.send_signal(signal.SIGKILL)
                times.append(now)
                told.append(f"a worker after step {last_step(config)}")
                ids |= run_ids(config)
            driver.wait(runs.LIMIT_SECONDS)
        told.append(f"exit code {driver.returncode}")
        case = concluded(config, expected, told, times, ids)
        yield case if driver.returncode == 0 else Case(f"{case.told}\n{said(config)}", case.tried, 0, case.seconds)


def again(asked: Asked, launcher: str, num_faults: int, fault: Callable[[psutil.Process], None]) -> Iterator[Case]:
    """A command to which something is done; each time the same command again, at last to the end."""
    expected = expected_of(asked, launcher)
    for run, share in enumerate(asked.shares(num_faults)):
        config = runs.fault_config(asked.folder, f"{launcher}{run}")
        told, times, gone, ids = [], [], [], set()
        for step in runs.random_steps(asked.draw, share):
            step = max(step, last_step(config) + 1)
            with runs.started(config, launcher) as process:
                if not runs.wait_for_step(config, step, lambda process=process: process.poll() is None):
                    told.append(f"ended before the fault at step {step}")
                    continue
                time.sleep(asked.delay)
                below = runs.descendants(process.pid)
                times.append(time.time())
                told.append(f"after step {last_step(config)}")
                fault(psutil.Process(process.pid))
                process.wait(runs.LIMIT_SECONDS)
                psutil.wait_procs(below, timeout=5)
                num_orphans = runs.end_all(below)
                gone.append(time.time())
                told.append(f"exit code {process.returncode}, {num_orphans} processes left and ended")
                ids |= run_ids(config)
        with runs.started(config, launcher) as process:
            process.wait(runs.LIMIT_SECONDS)
        case = concluded(config, expected, told, times, ids, gone=gone)
        yield case if process.returncode == 0 else Case(f"{case.told}\n{said(config)}", case.tried, 0, case.seconds)


@row("kill-driver", "kill -9 of the Ray driver at a random step, the same command again")
def kill_driver(asked: Asked) -> Iterator[Case]:
    yield from again(asked, "ray", asked.rounds, lambda driver: driver.send_signal(signal.SIGKILL))


@row("kill-deepspeed", "kill -9 of a rank under the deepspeed launcher, the same command again")
def kill_deepspeed(asked: Asked) -> Iterator[Case]:
    yield from again(
        asked,
        "deepspeed",
        asked.rounds,
        lambda launcher: asked.draw.choice(runs.workers_of(launcher.pid)).send_signal(signal.SIGKILL),
    )


@row("term-deepspeed", "SIGTERM to the process group of the deepspeed launcher, the same command again")
def term_deepspeed(asked: Asked) -> Iterator[Case]:
    yield from again(asked, "deepspeed", asked.rounds, lambda launcher: os.killpg(launcher.pid, signal.SIGTERM))


@row("term-ranks", "SIGTERM to a rank: checkpoint at the end of the step, exit code 143, the same command again")
def term_ranks(asked: Asked) -> Iterator[Case]:
    pool = runs.forked_pool()
    try:
        whole = runs.fault_config(asked.folder, "whole-term", **{"train.checkpoint_steps": None})
        pool.run(flow_on_rank, whole, seconds=runs.LIMIT_SECONDS)
        for run, share in enumerate(asked.shares(asked.rounds)):
            # Without checkpoints but those of the signal: were one missing, the run would begin anew.
            config = runs.fault_config(asked.folder, f"term{run}", **{"train.checkpoint_steps": None})
            told, times, num_wrong, ids = [], [], 0, set()
            for step in runs.random_steps(asked.draw, share):
                step = max(step, last_step(config) + 1)
                rank = asked.draw.randrange(2)
                words = (config, signal.SIGTERM, rank, ("train", step))
                answers = pool.run(signalled_on_rank, *words, seconds=runs.LIMIT_SECONDS)
                times.append(next(when for taken, when in told_steps(config) if taken == step))
                newest = complete_checkpoints(RunFolder(config.folder).checkpoints)[-1]
                reached = int(newest.name.removeprefix("step_"))
                is_right = (
                    answers[0] == answers[1] and answers[0][0] == 143 and f"after step {reached}," in answers[0][1]
                )
                num_wrong += not (is_right and reached == last_step(config) and reached <= step + 2)
                told.append(f"rank {rank} in step {step}, code {answers[0][0]}, checkpoint of step {reached}")
                ids |= run_ids(config)
            pool.run(flow_on_rank, config, seconds=runs.LIMIT_SECONDS)
            yield concluded(config, bundle_weights(whole), told, times, ids, num_wrong)
    finally:
        pool.close(broken=True)


def through_test(asked: Asked, *words: str) -> Iterator[Case]:
    """A test that does the thing, so many times."""
    for _ in range(asked.rounds):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error)", answer.stdout)}
        passed, tried = counts.get("passed", 0), sum(counts.values())
        yield Case("tests: " + (answer.stdout.splitlines() or ["said nothing"])[-1], max(1, tried), passed)


def test_row(name: str, fault: str, *words: str) -> None:
    row(name, fault)(lambda asked: through_test(asked, *words))


RESUME = "tests/integration/test_resume.py"
test_row("workers", "went on with 2 -> 1, 1 -> 2, 2 -> 3 workers (a test each)", RESUME, "-k", "number_of_workers")
test_row("damage", "a checkpoint damaged in six ways (one test): named, passed over", RESUME, "-k", "damaged")
test_row("disk", "no room for a checkpoint, in foreground and background (a test each)", RESUME, "-k", "no_room")
test_row(
    "mlflow",
    "MLflow away at the start, for a while, for good, killed, or its answers lost (a test each)",
    "tests/integration/test_tracking_outage.py",
    "tests/unit/tracking/test_delivery.py",
    "-k",
    "tracking_outage or down_at_the_start or goes_away or away_for_good or lost_answers",
)
test_row("nan", "NaN or inf in loss or gradient: stopped or skipped (9 tests)", "tests/integration/test_nonfinite.py")
test_row(
    "node",
    "a Ray node lost, run folder in a bucket: goes on with the worker that is left, or waits (a test each)",
    "tests/integration/test_node_lost.py",
)
test_row(
    "store",
    "all nodes lost, the newest checkpoint in the bucket damaged (a test each)",
    "tests/integration/test_object_store.py",
)
test_row("memory", "out of memory: found before the first step (a test each)", "tests/integration/test_memory.py")
test_row(
    "user-error",
    "an error of the user's in a Ray worker: told once, not tried again",
    "tests/integration/test_ray_faults.py",
    "-k",
    "error_of_the_users",
)


@row("cost", "cost of a checkpoint")
def cost(asked: Asked) -> Iterator[Case]:
    """The same run without checkpoints, with one after every step in the foreground, and in the background."""
    base = tiny_backbone(asked.folder / "wide", hidden_size=256, intermediate_size=512)
    ways = {
        "none": {"train.checkpoint_steps": None},
        "foreground": {"train.checkpoint_steps": 1, "checkpoint.background": False},
        "background": {"train.checkpoint_steps": 1, "checkpoint.background": True},
    }
    common = {"model.name_or_path": base, "model.lora": {"rank": 16, "alpha": 16.0}, "train.epochs": 2}
    pool = runs.forked_pool()
    try:
        for number in range(asked.rounds):
            taken = {}
            for way in asked.draw.sample(list(ways), len(ways)):
                config = compared_config(asked.folder, f"{way}{number}", long_rows(80), **common, **ways[way])
                taken[way] = pool.run(runs.step_milliseconds, config, seconds=runs.LIMIT_SECONDS)[0]
            shares = {
                f"{way}, % of a step": 100 * (taken[way] / taken["none"] - 1) for way in ("foreground", "background")
            }
            numbers = {"step without checkpoints, ms": taken["none"], **shares}
            yield Case(", ".join(f"{key}: {value:.1f}" for key, value in numbers.items()), 0, 0, [], numbers)
    finally:
        pool.close(broken=True)
