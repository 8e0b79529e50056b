"""Joint training against what users would run instead, on the same rows, side by side.

    make bench-quick                                # Gemma 3 270M, e-SNLI rows, ten minutes at most on two cores
    python benchmarks/training.py --rows esnli [--rounds 3] [--steps 4] [--precision bf16]

Sides take turns, each turn in a process of its own: ours (both losses), TRL's SFTTrainer (explanations only) and a
plain HF Trainer (both losses, all logits). Ratios are of medians over all steps that count. Processor time stands
beside wall time, since other work on the machine hardly changes it. Results go to benchmarks/out/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.job import ROWS_A_STEP  # noqa: E402
from benchmarks.peers import environment_of_sides, make_environment  # noqa: E402
from benchmarks.rows import read_texts, tokenize  # noqa: E402

OUT = ROOT / "benchmarks" / "out"
PACKAGES = ("torch", "deepspeed", "transformers", "peft", "trl", "accelerate")


@dataclass
class Measured:
    """Turns of one side.

    Attributes:
        tokens_per_second: of each step that counts, wall time.
        cpu_milliseconds_per_token: of the same steps, processor time over all threads.
        peak_bytes: of each turn.
    """

    tokens_per_second: list[float] = field(default_factory=list)
    cpu_milliseconds_per_token: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    last_losses: list[float] = field(default_factory=list)

    def add(self, result: dict[str, Any], tokens_by_step: list[int]) -> None:
        for wall, cpu, tokens in zip(result["wall"], result["cpu"], tokens_by_step, strict=True):
            self.tokens_per_second.append(tokens / wall)
            self.cpu_milliseconds_per_token.append(1e3 * cpu / tokens)
        self.peak_bytes.append(result["peak_bytes"])
        self.last_losses = result["losses"]


def run_turn(python: Path, side: str, job: dict[str, Any], threads: int, seconds: float) -> dict[str, Any]:
    """One side, once, in its own process."""
    with tempfile.TemporaryDirectory(prefix="clsgen-bench-") as scratch:
        job_file, result_file = Path(scratch) / "job.json", Path(scratch) / "result.json"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        command = [str(python), str(ROOT / "benchmarks" / "side.py"), side, str(job_file), str(result_file)]
        ran = subprocess.run(
            command,
            env=environment_of_sides(threads),
            cwd=scratch,
            timeout=seconds,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode != 0:
            raise SystemExit(f"the side {side} failed:\n{ran.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return found


def compare(
    rows: list[dict[str, Any]],
    sides: dict[str, dict[str, Any]],
    *,
    backbone: str,
    precision: str,
    num_warm: int,
    num_timed: int,
    rounds: int,
    threads: int,
    measured: dict[str, Measured] | None = None,
) -> dict[str, Measured]:
    """Runs every side `rounds` times in turn: A B C A B C; adds to `measured` where it is given.

    `sides`: options by name; of `side.py` each runs what its option `side` names, by default its own name.
    """
    python = make_environment(OUT / "peers")
    steps = [rows[s * ROWS_A_STEP : (s + 1) * ROWS_A_STEP] for s in range(num_warm + num_timed)]
    tokens = [sum(len(row["prompt"]) + len(row["completion"]) for row in step) for step in steps]
    rows = [row for step in steps for row in step]
    measured = {} if measured is None else measured
    for side in sides:
        measured.setdefault(side, Measured())
    for number in range(rounds):
        for side, options in sides.items():
            started = time.perf_counter()
            job = {
                "rows": rows,
                "backbone": backbone,
                "precision": precision,
                "num_warm": num_warm,
                "num_timed": num_timed,
                "options": options,
            }
            result = run_turn(python, options.get("side", side), job, threads, seconds=1800)
            measured[side].add(result, tokens[num_warm:])
            rate = statistics.median(measured[side].tokens_per_second)
            seconds = time.perf_counter() - started
            print(f"round {number + 1}  {side:<14} {rate:7.1f} tokens/s  {seconds:5.0f} s", flush=True)
    return measured


def sides_of(zero: str, token_budget: int, layout: str, rows_a_pass: int = ROWS_A_STEP) -> dict[str, dict[str, Any]]:
    """Ours, and peers with their best settings."""
    return {
        "ours": {"zero": str(ROOT / zero), "token_budget": token_budget},
        "trl": {"layout": layout, "rows_a_pass": rows_a_pass},
        "naive": {"rows_a_pass": rows_a_pass},
    }


def ratios(measured: dict[str, Measured]) -> dict[str, float]:
    """What the goals are about: speeds over the peer's, memory as a share of the peer's."""
    found = {}
    ours = measured["ours"]
    for side, name in (("naive", "naive_joint"), ("trl", "trl_sft")):
        peer = measured[side]
        found[f"speed_vs_{name}"] = _ratio(ours.tokens_per_second, peer.tokens_per_second)
        found[f"memory_vs_{name}"] = _ratio(ours.peak_bytes, peer.peak_bytes)
        found[f"cpu_time_vs_{name}"] = _ratio(ours.cpu_milliseconds_per_token, peer.cpu_milliseconds_per_token)
    return found


def _ratio(ours: list[Any], theirs: list[Any]) -> float:
    return round(statistics.median(ours) / statistics.median(theirs), 3)


def summary(measured: dict[str, Measured]) -> dict[str, Any]:
    """Medians and spread (lowest, highest) of every side."""
    return {
        side: {
            name: {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
            for name, values in asdict(one).items()
            if name != "last_losses"
        }
        | {"last_losses": one.last_losses}
        for side, one in measured.items()
    }


def machine() -> dict[str, Any]:
    """Where this was measured, and how busy the machine was with other things."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": name or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    requirements = (ROOT / "benchmarks" / "requirements.txt").read_text(encoding="utf-8")
    pinned = dict(line.split("==") for line in requirements.split() if "==" in line)
    return {name: pinned.get(name) or metadata.version(name) for name in PACKAGES}


def table(measured: dict[str, Measured]) -> str:
    """The same as text."""
    lines = [f"{'side':<16}{'tokens/s':>10}{'spread':>18}{'CPU ms/token':>14}{'peak GiB':>10}"]
    for side, one in measured.items():
        speeds = one.tokens_per_second
        spread = f"{min(speeds):.1f} to {max(speeds):.1f}"
        cpu = statistics.median(one.cpu_milliseconds_per_token)
        peak = statistics.median(one.peak_bytes) / 2**30
        lines.append(f"{side:<16}{statistics.median(speeds):>10.1f}{spread:>18}{cpu:>14.2f}{peak:>10.2f}")
    return "\n".join(lines)


def arguments(told: str | None, *, rounds: int, steps: int) -> argparse.ArgumentParser:
    """What benchmarks of training steps are asked for, with these defaults."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", choices=("esnli", "pubmedqa", "vignettes"), default="esnli")
    parser.add_argument("--backbone", default=str(ROOT / "models" / "gemma3-270m"), help="folder of the model")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each side")
    parser.add_argument("--warm", type=int, default=1, help="steps that do not count")
    parser.add_argument("--steps", type=int, default=steps, help="steps that count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser


def measure(settings: argparse.Namespace, sides: dict[str, dict[str, Any]]) -> dict[str, Measured]:
    """Compares sides as `arguments` were answered."""
    rows = tokenize(read_texts(settings.rows, (settings.warm + settings.steps) * ROWS_A_STEP), settings.backbone)
    return compare(
        rows,
        sides,
        backbone=settings.backbone,
        precision=settings.precision,
        num_warm=settings.warm,
        num_timed=settings.steps,
        rounds=settings.rounds,
        threads=settings.threads,
    )


def main() -> None:
    parser = arguments(__doc__, rounds=3, steps=4)
    parser.add_argument("--zero", default="ds_configs/zero2_cpu.json", help="ZeRO settings of our side")
    parser.add_argument("--token-budget", type=int, default=4096, help="tokens a micro-batch of our side")
    parser.add_argument("--trl-layout", choices=("padded", "padding-free"), default="padded")
    parser.add_argument(
        "--rows-a-pass", type=int, choices=(1, 2, 4, 8, 16), default=ROWS_A_STEP, help="micro-batch of the peers"
    )
    parser.add_argument("--only", nargs="+", choices=("ours", "trl", "naive"), help="some sides only")
    settings = parser.parse_args()
    sides = sides_of(settings.zero, settings.token_budget, settings.trl_layout, settings.rows_a_pass)
    measured = measure(settings, {side: sides[side] for side in sides if side in (settings.only or sides)})
    print(table(measured))
    if not settings.only:
        result = ratios(measured) | {"settings": vars(settings), "sides": summary(measured)}
        OUT.mkdir(parents=True, exist_ok=True)
        place = OUT / f"training_{settings.rows}.json"
        place.write_text(json.dumps(result | {"machine": machine(), "versions": versions()}, indent=2) + "\n")
        print(json.dumps(ratios(measured), indent=2))


if __name__ == "__main__":
    main()
