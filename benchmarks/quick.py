"""The core of the benchmarks in ten minutes at most on two cores: `make bench-quick`.

Gemma 3 270M, bf16, 16 e-SNLI rows a step, one process a side, sides in turn. Writes benchmarks/out/quick.json with the
five ratios, the same ratios of processor time, medians and spread of every side, machine and versions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import training  # noqa: E402
from benchmarks.job import ROWS_A_STEP  # noqa: E402
from benchmarks.peers import make_environment  # noqa: E402
from benchmarks.rows import prompts, read_texts, tokenize  # noqa: E402

#: Rows to predict, of mixed lengths as in benchmarks/prediction.py: one in nine is long.
NUM_LONG, SHORT_A_LONG = 6, 8

#: Seconds after which no further round is started, so that the whole stays under ten minutes on two idle cores.
ROUND_SECONDS = 200.0


def predicted(backbone: str, threads: int) -> dict[str, Any]:
    """Rows a second, probabilities only, ours and the pipeline's, on rows of mixed lengths."""
    short, long = read_texts("esnli", NUM_LONG * SHORT_A_LONG), read_texts("pubmedqa", NUM_LONG)
    # Lengths alternate, as they come.
    rows = [row for n in range(NUM_LONG) for row in (*short[n * SHORT_A_LONG : (n + 1) * SHORT_A_LONG], long[n])]
    task, whole = prompts(rows)
    python = make_environment(training.OUT / "peers")
    job = {"rows": whole, "backbone": backbone, "precision": "bf16", "num_warm": 1, "num_timed": 2}
    job["options"] = {"task": task, "token_budget": 4096}
    found: dict[str, Any] = {}
    for side in ("predict_ours", "predict_pipeline"):
        result = training.run_turn(python, side, job, threads, seconds=1800)
        found[side] = {
            "rows_per_second": [len(rows) / wall for wall in result["wall"]],
            "cpu_milliseconds_per_row": [1e3 * cpu / len(rows) for cpu in result["cpu"]],
            "peak_bytes": result["peak_bytes"],
        }
        print(f"{side:<18} {statistics.median(found[side]['rows_per_second']):6.2f} rows/s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=str(ROOT / "models" / "gemma3-270m"), help="folder of the model")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each side, at most")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn that count")
    parser.add_argument("--zero", default="ds_configs/zero2_cpu.json", help="ZeRO settings of our side")
    settings = parser.parse_args()
    started = time.perf_counter()
    rows = tokenize(read_texts("esnli", (1 + settings.steps) * ROWS_A_STEP), settings.backbone)
    sides = training.sides_of(settings.zero, 4096, "padded")
    measured: dict[str, training.Measured] = {}
    for number in range(settings.rounds):
        if number and time.perf_counter() - started > ROUND_SECONDS:
            break
        training.compare(
            rows,
            sides,
            backbone=settings.backbone,
            precision="bf16",
            num_warm=1,
            num_timed=settings.steps,
            rounds=1,
            threads=settings.threads,
            measured=measured,
        )
    print(training.table(measured))
    prediction = predicted(settings.backbone, settings.threads)
    rates = {side: statistics.median(one["rows_per_second"]) for side, one in prediction.items()}
    result = training.ratios(measured) | {
        "rows_per_second_vs_hf_pipeline": round(rates["predict_ours"] / rates["predict_pipeline"], 3),
        "sides": training.summary(measured) | prediction,
        "settings": vars(settings) | {"rows": rows_of(rows), "rounds_done": len(measured["ours"].peak_bytes)},
        "machine": training.machine(),
        "versions": training.versions(),
        "seconds": round(time.perf_counter() - started),
    }
    training.OUT.mkdir(parents=True, exist_ok=True)
    place = training.OUT / "quick.json"
    place.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if isinstance(value, float)}, indent=2))
    print(place)


def rows_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What the rows are like."""
    return {
        "num_rows": len(rows),
        "mean_prompt_tokens": statistics.mean(len(row["prompt"]) for row in rows),
        "mean_completion_tokens": statistics.mean(len(row["completion"]) for row in rows),
    }


if __name__ == "__main__":
    main()
