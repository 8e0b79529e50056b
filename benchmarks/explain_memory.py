"""Memory of explaining against the number of rows: it should be flat.

python benchmarks/explain_memory.py [--sizes 1000 100000 1000000] [--teacher evidence]

Each size runs in a process of its own, on rows made on the spot. Writes a JSON beside a table.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "out" / "explain_memory.json"
WORDS = [f"{start}{end}" for start in "bcdfghjklmnprst" for end in ("ara", "ile", "onu", "eta", "usi", "oka")]


def write_rows(path: Path, num_rows: int) -> None:
    """Rows of forty words whose label is whether they speak of fever."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            label = number % 2
            words = [*draw.choices(WORDS, k=39), "fever" if label else "calm", str(number)]
            reason = " ".join(draw.choices(WORDS, k=10))
            file.write(json.dumps({"text": " ".join(words), "label": label, "explanation": reason}) + "\n")


def run_one(num_rows: int, teacher: str) -> dict[str, float]:
    """Explains so many rows in this process."""
    sys.path.insert(0, str(ROOT))
    from clsgen_dist.config.run import load_config
    from clsgen_dist.explain.stage import explain_run
    from clsgen_dist.progress import silent

    with tempfile.TemporaryDirectory() as scratch:
        rows, config = Path(scratch) / "rows.jsonl", Path(scratch) / "run.yaml"
        write_rows(rows, num_rows)
        config.write_text(
            f"run: {{name: memory, output_dir: {scratch}/runs}}\n"
            'task: {question: "Fever?", labels: ["no", "yes"]}\n'
            f"data: {{train: {rows}}}\n"
            "model: {name_or_path: none, lora: {}}\n"
            f"train: {{deepspeed: {ROOT}/ds_configs/zero3_cpu.json}}\n"
            f"explain: {{teacher: {teacher}}}\n",
            encoding="utf-8",
        )
        begun = time.perf_counter()
        explain_run(load_config(config), silent)
        seconds = time.perf_counter() - begun
    return {
        "num_rows": num_rows,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--teacher", choices=("column", "evidence"), default="evidence")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one is not None:
        print(json.dumps(run_one(words.one, words.teacher)))
        return
    results = []
    print(f"{'rows':>10}{'peak memory, MiB':>20}{'seconds':>10}")
    for num_rows in words.sizes:
        command = [sys.executable, __file__, "--one", str(num_rows), "--teacher", words.teacher]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        results.append(json.loads(told.splitlines()[-1]))
        last = results[-1]
        print(f"{num_rows:>10,}{last['peak_memory_mib']:>20,.0f}{last['seconds']:>10,.0f}", flush=True)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"teacher": words.teacher, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
