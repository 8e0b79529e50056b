"""Does memory grow with the number of rows, and time a token with the length of a row?

    python benchmarks/scaling.py [--rows 1000 100000 1000000] [--lengths 256 512 1024 2048 4096 8192]

Rows: peak memory of `prepare` and, in another process, of the loader over steps of an epoch: what is the process's own,
and all that is resident, with pages of mapped files, which the kernel takes back where memory is short. A million rows
take a quarter of an hour of a core. Lengths: seconds of the processor a token, of steps of equally many tokens with a
small model, beside the operations that they need. Other work on the machine hardly changes either. Writes
benchmarks/out/scaling.json and scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

OUT = ROOT / "benchmarks" / "out"

#: Steps of the loader, spread over an epoch.
NUM_LOADED_STEPS = 300

#: A Llama whose attention weighs at 8,192 tokens about as much as all else.
SHAPE = {
    "vocab_size": 2048,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 16_384,
}
TOKENS_A_STEP = 8192

_SECONDS_BETWEEN_LOOKS = 0.05


def rows_of_file(num_rows: int) -> Iterator[str]:
    """Lines of about 400 characters, each with a label and a reason."""
    for number in range(num_rows):
        words = " ".join(f"word{(number * 7 + n) % 97}" for n in range(55))
        record = {"id": f"row-{number}", "text": f"fever {number} {words}", "label": number % 2}
        yield json.dumps(record | {"explanation": "There is a fever, and that is enough."}) + "\n"


def config_of(folder: Path) -> Any:
    """A run over FOLDER/rows.jsonl with a tiny backbone that is made on the spot."""
    from clsgen_dist.config.run import build_config
    from clsgen_dist.config.source import ConfigSource

    tree = {
        "run": {"name": "run", "output_dir": str(folder / "runs")},
        "task": {"question": "Is it urgent?", "labels": ["no", "yes"]},
        "data": {"train": str(folder / "rows.jsonl"), "max_prompt_tokens": 512, "group_column": None},
        "model": {"from_scratch": {"hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 2}},
        "train": {"deepspeed": str(ROOT / "ds_configs" / "zero3_cpu.json"), "precision": "fp32"},
    }
    return build_config(ConfigSource(tree=tree))


def prepare_rows(folder: Path) -> None:
    from clsgen_dist.prepare import prepare

    prepare(config_of(folder))


def load_rows(folder: Path) -> None:
    """Opens the rows as a rank does and lays out micro-batches of steps from an epoch's beginning to its end."""
    import torch

    from clsgen_dist.config.folder import RunFolder
    from clsgen_dist.data.plan import num_steps_an_epoch, plan_step, rows_of_step
    from clsgen_dist.data.tokens import TokenizedSplit
    from clsgen_dist.train.loader import Loader

    config = config_of(folder)
    split = TokenizedSplit(RunFolder(config.folder).tokens("train"))

    def plan(step: int) -> list[list[int]]:
        rows = rows_of_step(0, step, len(split), config.train.global_batch)
        return plan_step(rows, split.lengths, world_size=1, token_budget=config.train.token_budget)[0]

    loader = Loader(split, plan, torch.device("cpu"), one_line=False, ahead=False)
    num_steps = num_steps_an_epoch(len(split), config.train.global_batch)
    for step in range(0, num_steps, max(1, num_steps // NUM_LOADED_STEPS)):
        for batch in loader.open(step)[1]:
            assert batch.input_ids.numel() > 0


class OwnMemory(threading.Thread):
    """Watches the anonymous memory of this process, whose peak the kernel does not keep."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mib = 0.0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            self.peak_mib = max(self.peak_mib, status_mib("RssAnon"))

    def end(self) -> None:
        self._ended.set()
        self.join()


def status_mib(name: str) -> float:
    """A size that the kernel tells of this process; VmHWM is its peak, where `getrusage` begins with the parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


PARTS = {"prepare": prepare_rows, "load": load_rows}


def memory_by_rows(num_rows: int) -> dict[str, float]:
    """Peak MiB of each part, its own and all, and seconds of the processor."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="clsgen-scaling-") as scratch:
        with (Path(scratch) / "rows.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(rows_of_file(num_rows))
        for part in PARTS:
            command = [sys.executable, "-W", "ignore", __file__, "--part", part, "--folder", scratch]
            said = subprocess.check_output(command, cwd=ROOT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            found |= {f"{part}_{name}": value for name, value in json.loads(said.splitlines()[-1]).items()}
    return found


def time_by_length(length: int, num_timed: int) -> dict[str, float]:
    """Milliseconds of the processor a token, and operations a token, of a step of rows of this length."""
    from benchmarks.gpu import operations_a_step
    from benchmarks.gpu_side import MOST_SCORED, GpuJob, ours, rows_of

    job = GpuJob("ours", SHAPE, [length], TOKENS_A_STEP, 1, num_timed, ["none"], False, False)
    num_rows, num_scored = TOKENS_A_STEP // length, min(MOST_SCORED, length // 4)
    moments: list[float] = []
    ours(job, rows_of(job, length, num_rows, num_scored), "none", lambda: moments.append(time.process_time()))
    steps = [after - before for before, after in pairwise(moments[1:])]
    seconds = statistics.median(steps)
    needed = operations_a_step(SHAPE, TOKENS_A_STEP, length, num_rows * num_scored)
    return {
        "cpu_milliseconds_per_token": 1e3 * seconds / TOKENS_A_STEP,
        "megaoperations_per_token": needed / TOKENS_A_STEP / 1e6,
    }


def table(by_rows: dict[str, Any], by_length: dict[str, Any]) -> str:
    """Both as Markdown."""
    lines = [
        "| rows | prepare, own MiB | all MiB | CPU s | loader, own MiB | all MiB | CPU s |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for rows, one in by_rows.items():
        numbers = (one[f"{part}_{name}"] for part in PARTS for name in ("own_mib", "peak_mib", "cpu_seconds"))
        lines.append(f"| {int(rows):,} | " + " | ".join(f"{number:,.0f}" for number in numbers) + " |")
    lines += [
        "",
        "| tokens a row | CPU ms a token | of the first | operations a token, of the first |",
        "|--:|--:|--:|--:|",
    ]
    first = next(iter(by_length.values()), {})
    for length, one in by_length.items():
        time_a_token, needed = one["cpu_milliseconds_per_token"], one["megaoperations_per_token"]
        shares = (time_a_token / first["cpu_milliseconds_per_token"], needed / first["megaoperations_per_token"])
        lines.append(f"| {int(length):,} | {time_a_token:.3f} | {shares[0]:.2f} | {shares[1]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--steps", type=int, default=2, help="steps that count, of each length")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of scaling.json and scaling.md")
    parser.add_argument("--part", choices=PARTS, help="of a measurement of rows, in a process of its own")
    parser.add_argument("--folder", type=Path, help="where that part finds its rows")
    settings = parser.parse_args()
    if settings.part:
        own = OwnMemory()
        own.start()
        PARTS[settings.part](settings.folder)
        own.end()
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {"own_mib": own.peak_mib, "peak_mib": status_mib("VmHWM"), "cpu_seconds": used.ru_utime + used.ru_stime}
        print(json.dumps(found))
        return
    settings.out.mkdir(parents=True, exist_ok=True)
    by_rows: dict[str, Any] = {}
    by_length: dict[str, Any] = {}
    measures = [(by_rows, n, memory_by_rows) for n in settings.rows]
    measures += [(by_length, n, lambda n: time_by_length(n, settings.steps)) for n in settings.lengths]
    for found, number, measure in measures:
        found[str(number)] = measure(number)
        print(number, found[str(number)], flush=True)
        whole = {"by_rows": by_rows, "by_length": by_length}
        (settings.out / "scaling.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        (settings.out / "scaling.md").write_text(table(by_rows, by_length) + "\n", encoding="utf-8")
    print(table(by_rows, by_length))


if __name__ == "__main__":
    main()
