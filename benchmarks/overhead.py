"""What MLflow, checkpoints and the progress bar cost: blocks of training steps with them and without, in turns.

    python benchmarks/overhead.py [--rounds 4] [--steps 10]      # Gemma 3 270M, 16 rows a step; minutes on two cores
    python benchmarks/overhead.py --tiny                         # a toy, in seconds

One process, one model, the same rows on both sides of a turn. In a block "with", every step is told to MLflow (a
database in a file) and to a bar on a terminal, and the last step writes a checkpoint; the block ends when all of it is
on the disk and in MLflow, for which a real run would not wait. Beside the blocks stands what was counted: seconds that
the training thread spends in these calls, and processor seconds of the threads behind it. Writes
benchmarks/out/overhead.json and overhead.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.training import OUT, machine, versions  # noqa: E402
from clsgen_dist import launch  # noqa: E402

#: What is counted: name, module, class, method, and whether it is work of the training thread, whose waits count too.
COUNTED = (
    ("telling a step", "clsgen_dist.observe", "RunObserver", "stepped", True),
    ("beginning a checkpoint", "clsgen_dist.engine.checkpoint", "CheckpointWriter", "save", True),
    ("MLflow thread", "clsgen_dist.tracking.courier", "Courier", "advance", False),
    ("checkpoint thread", "clsgen_dist.engine.checkpoint", "_Writing", "_run", False),
    ("thread of the bar", "rich.live", "Live", "refresh", False),
)


@contextlib.contextmanager
def counted(seconds: Counter[str]) -> Iterator[None]:
    """Adds up seconds of what is counted, by name."""
    import importlib

    def watched(call: Callable[..., Any], name: str, clock: Callable[[], float]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                return call(*args, **kwargs)
            finally:
                seconds[name] += clock() - started

        return timed

    with contextlib.ExitStack() as held:
        for name, module, owner, method, is_of_training in COUNTED:
            place = getattr(importlib.import_module(module), owner)
            clock = time.perf_counter if is_of_training else time.thread_time
            held.enter_context(patch.object(place, method, watched(getattr(place, method), name, clock)))
        yield


def config_of(folder: Path, backbone: str, steps: int, tiny: bool) -> Any:
    """Vignettes, LoRA, 16 rows a step, a checkpoint every so many steps."""
    from clsgen_dist.config.run import build_config
    from clsgen_dist.config.source import ConfigSource

    toy = {"from_scratch": {"hidden_size": 64, "intermediate_size": 192}}
    tree = {
        "run": {"name": "overhead", "output_dir": str(folder)},
        "task": {"question": "Does this patient need urgent care?", "labels": ["no", "yes"]},
        "data": {"vignettes": {"num_train": 2000, "num_validation": 50, "num_calibration": 50, "num_test": 50}},
        "model": toy if tiny else {"name_or_path": backbone, "lora": {"rank": 16, "alpha": 32}},
        "train": {
            "global_batch": 16,
            "precision": "fp32" if tiny else "bf16",
            "epochs": 100,
            "checkpoint_steps": steps,
            "deepspeed": str(ROOT / "ds_configs" / "zero2_cpu.json"),
        },
    }
    return build_config(ConfigSource(tree=tree, places={(): "overhead"}))


def measure(config: Any, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Blocks in turns; of each the side, wall and processor seconds, and what was counted in it."""
    from clsgen_dist.config.zero import read_zero
    from clsgen_dist.data.tokens import TokenizedSplit
    from clsgen_dist.engine.checkpoint import CheckpointWriter
    from clsgen_dist.engine.deepspeed import Engine, partitioned_loading, start_distributed
    from clsgen_dist.engine.ds_config import full_ds_config
    from clsgen_dist.engine.places import SharedFolder
    from clsgen_dist.model.build import DTYPES, build_model, parameter_groups
    from clsgen_dist.objective import Weights
    from clsgen_dist.observe import RunObserver, Unobserved, open_tracker
    from clsgen_dist.prepare import backbone_place, prepare
    from clsgen_dist.progress import ProgressBar
    from clsgen_dist.train.loop import train
    from clsgen_dist.train.state import TrainState
    from clsgen_dist.train.step import Stepper

    folder = prepare(config)
    ranks = start_distributed(600)
    precision = config.train.precision
    zero = full_ds_config(read_zero(config.train.deepspeed), precision=precision, max_grad_norm=1.0, world_size=1)
    with partitioned_loading(zero):
        place = backbone_place(config, folder)
        model = build_model(config.model, place, 2, dtype=DTYPES[precision], seed=0)
    groups = parameter_groups(model, learning_rate=2e-4, head_learning_rate=1e-3, weight_decay=0.0)
    engine = Engine(model, groups, zero, betas=(0.9, 0.999), eps=1e-8)
    split = TokenizedSplit(folder.tokens("train"))
    stepper = Stepper(
        engine,
        ranks,
        split,
        Weights(1.0, 1.0, 0.0, 0.0, (1.0, 1.0)),
        seed=0,
        global_batch=config.train.global_batch,
        token_budget=config.train.token_budget,
        one_line=False,
        factors=lambda step: {"backbone": 1.0, "head": 1.0},
        name_rows=lambda rows: [],
    )
    writer = CheckpointWriter(
        SharedFolder(folder.checkpoints, ranks), ranks, keep=2, background=True, required=True, warn=print
    )
    tracker = open_tracker(config, folder)
    state, seconds = TrainState(), Counter[str]()

    def block(is_observed: bool, first_rows: int) -> None:
        """Steps on the rows of steps from `first_rows` on, so that blocks beside each other read the same."""
        nonlocal state
        begun = state.step
        with ProgressBar() if is_observed else contextlib.nullcontext() as bar:
            state = train(
                state,
                state.step + steps,
                run_step=lambda step: stepper.run(first_rows + step - begun),
                validate=lambda: stepper.run(0),  # never called
                keep_best=lambda state, validation: None,
                save=lambda state: writer.save(engine, state.step, state.to_dict()),
                validation_due=lambda step: False,
                checkpoint_due=lambda step: is_observed and step % steps == 0,
                stop_wanted=lambda: False,
                events=RunObserver(config, len(split), tracker, bar) if is_observed else Unobserved(),
            )
            writer.settle()
        if is_observed:
            tracker.flush()
            while tracker._courier.num_waiting:
                time.sleep(0.01)

    with counted(seconds):
        block(True, 0)  # makes what is made once: tables of the database, moments of the optimizer
        found = []
        for number in range(rounds):
            # A B B A: a machine that grows faster or slower favours neither.
            for is_observed in (True, False) if number % 2 == 0 else (False, True):
                seconds.clear()
                wall, used = time.perf_counter(), time.process_time()
                block(is_observed, (number + 1) * steps)
                found.append(
                    {
                        "side": "with" if is_observed else "without",
                        "wall_seconds": time.perf_counter() - wall,
                        "cpu_seconds": time.process_time() - used,
                        "counted": dict(seconds),
                    }
                )
                print(json.dumps(found[-1]), flush=True)
    tracker.close("FINISHED")
    engine.close()
    return found


def judged(blocks: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Shares of training time, each a median over rounds.

    Returns:
        `wall_share` and `cpu_share`: what blocks with them took more than those without, of the latter, beside the
        lowest and the highest; `counted_share`: what was counted in blocks with them, of a block without; `counted`:
        the same by what it was, in milliseconds a block.
    """
    sides = {side: [one for one in blocks if one["side"] == side] for side in ("with", "without")}
    plain_seconds = statistics.median(one["wall_seconds"] for one in sides["without"])
    found: dict[str, Any] = {"steps_a_block": steps, "seconds_a_step": plain_seconds / steps}
    for clock in ("wall", "cpu"):
        name = f"{clock}_seconds"
        shares = [a[name] / b[name] - 1 for a, b in zip(sides["with"], sides["without"], strict=True)]
        found[f"{clock}_share"] = {"median": statistics.median(shares), "low": min(shares), "high": max(shares)}
    sums = [sum(one["counted"].values()) for one in sides["with"]]
    found["counted_share"] = statistics.median(sums) / plain_seconds
    found["counted"] = {
        name: 1e3 * statistics.median(one["counted"].get(name, 0.0) for one in sides["with"]) for name, *_ in COUNTED
    }
    return found


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    steps = found["steps_a_block"]
    lines = [
        f"Of {steps} steps of {found['seconds_a_step']:.2f} s, the last with a checkpoint:",
        "",
        "| measured | share of training time |",
        "|---|--:|",
        *(
            f"| {name}, with over without, {steps} steps in turns (lowest to highest) | {100 * one['median']:.2f} % "
            f"({100 * one['low']:.1f} to {100 * one['high']:.1f}) |"
            for name, one in (("wall time", found["wall_share"]), ("processor time", found["cpu_share"]))
        ),
        f"| counted, all of the below | {100 * found['counted_share']:.2f} % |",
    ]
    whole = 10 * found["seconds_a_step"] * steps
    lines += [f"| {name}, {spent:.0f} ms | {spent / whole:.2f} % |" for name, spent in found["counted"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=str(ROOT / "models" / "gemma3-270m"), help="folder of the model")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
    parser.add_argument("--steps", type=int, default=10, help="of a block, and between checkpoints")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tiny", action="store_true", help="a toy in place of the backbone")
    settings = parser.parse_args()
    launch.quiet_console()
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # torch is not imported yet
    os.environ["FORCE_COLOR"] = "1"  # the bar of a terminal, which draws itself ten times a second
    with tempfile.TemporaryDirectory(prefix="clsgen-overhead-") as folder:
        config = config_of(Path(folder), settings.backbone, settings.steps, settings.tiny)
        blocks = measure(config, settings.rounds, settings.steps)
    found = judged(blocks, settings.steps)
    OUT.mkdir(parents=True, exist_ok=True)
    whole = {**found, "blocks": blocks, "settings": vars(settings), "machine": machine(), "versions": versions()}
    (OUT / "overhead.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    (OUT / "overhead.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
