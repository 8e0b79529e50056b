"""From the start of the command to the first step, beside what the libraries alone take to be imported and loaded.

    python benchmarks/startup.py [--rounds 3]        # Gemma 3 270M, one process
    python benchmarks/startup.py --tiny              # a toy

Each start is a process of its own, in turns: the libraries alone (torch, transformers, PEFT, DeepSpeed, MLflow and
Arrow imported, `from_pretrained`, `get_peft_model`, `deepspeed.initialize`, `mlflow.start_run`), a run that begins
(rows read, split, explained and tokenised), the same run started again, as after an interruption, and one that tries
its longest micro-batch first. Writes benchmarks/out/startup.json and startup.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.training import OUT, machine, versions  # noqa: E402

SIDES = {
    "libraries": "the libraries alone",
    "begin": "a run that begins",
    "again": "the same run, started again",
    "tried": "a run that begins, with `train.dry_batch: true`",
}


def start(side: str, config: Path, backbone: str, threads: int) -> dict[str, Any]:
    """One start: wall and processor seconds to the first step, and the seconds of its parts."""
    result = config.with_name("result.json")
    command = [sys.executable, str(ROOT / "benchmarks" / "startup_side.py"), side, str(config), backbone, str(result)]
    environment = os.environ | {
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": str(threads),
        "CLSGEN_STARTED": str(time.time()),
    }
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    if ended.returncode != 0:
        raise SystemExit(f"the start {side} failed:\n{ended.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def write_config(folder: Path, name: str, backbone: str, threads: int, *, tiny: bool, tried: bool) -> Path:
    """A run of 2,400 vignettes."""
    tree = {
        "run": {"name": name, "output_dir": str(folder)},
        "task": {"question": "Does this patient need urgent care?", "labels": ["no", "yes"]},
        "data": {"vignettes": {"num_train": 2400, "num_validation": 200, "num_calibration": 200, "num_test": 200}},
        "model": {"name_or_path": backbone, "lora": {"rank": 16, "alpha": 32}},
        "train": {
            "global_batch": 16,
            "cpu_threads": threads,
            "precision": "fp32" if tiny else "bf16",
            "deepspeed": str(ROOT / "ds_configs" / "zero2_cpu.json"),
            "dry_batch": True if tried else "auto",
        },
    }
    place = folder / f"{name}.yaml"
    place.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    return place


def measure(folder: Path, backbone: str, rounds: int, threads: int, tiny: bool) -> list[dict[str, Any]]:
    """Starts in turns."""
    found = []
    for number in range(rounds):
        for side in SIDES:
            tried = side == "tried"
            name = f"{'tried' if tried else 'run'}{number}"
            config = write_config(folder, name, backbone, threads, tiny=tiny, tried=tried)
            found.append({"side": side, **start(side, config, backbone, threads)})
            print(json.dumps(found[-1]), flush=True)
    return found


def judged(starts: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each side medians in seconds, and medians of its ratio to the libraries in the same round."""
    by_side = {side: [one for one in starts if one["side"] == side] for side in SIDES}
    found = {}
    for side, ones in by_side.items():
        pairs = list(zip(ones, by_side["libraries"], strict=True))
        found[side] = {
            clock: {
                "seconds": statistics.median(one[clock] for one in ones),
                "ratio": statistics.median(one[clock] / bare[clock] for one, bare in pairs),
                "low": min(one[clock] / bare[clock] for one, bare in pairs),
                "high": max(one[clock] / bare[clock] for one, bare in pairs),
            }
            for clock in ("wall", "cpu")
        } | {
            "parts": {
                name: [statistics.median(one["parts"][name][clock] for one in ones) for clock in (0, 1)]
                for name in ones[0]["parts"]
            }
        }
    return found


def table(found: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "| start | wall s | times the libraries | processor s | times the libraries |",
        "|---|--:|--:|--:|--:|",
    ]
    for side, one in found.items():
        cells = [
            f"{one[clock]['seconds']:.1f} | {one[clock]['ratio']:.2f} "
            f"({one[clock]['low']:.2f} to {one[clock]['high']:.2f})"
            for clock in ("wall", "cpu")
        ]
        lines.append(f"| {SIDES[side]} | {' | '.join(cells)} |")
    for side in SIDES:
        one = found[side]
        parts = ", ".join(f"{name} {wall:.1f} ({cpu:.1f})" for name, (wall, cpu) in one["parts"].items())
        lines += ["", f"{SIDES[side]}, wall (processor) seconds: {parts}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=str(ROOT / "models" / "gemma3-270m"), help="folder of the model")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tiny", action="store_true", help="a toy in place of the backbone")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clsgen-startup-") as folder:
        if settings.tiny:
            from clsgen_dist.config.sections import FromScratch
            from clsgen_dist.model.backbone import make_small_backbone

            settings.backbone = str(Path(folder) / "toy")
            words = ["Does this patient need urgent care? yes no fever"] * 50
            make_small_backbone(Path(settings.backbone), FromScratch(), words, max_tokens=512, seed=0)
        starts = measure(Path(folder), settings.backbone, settings.rounds, settings.threads, settings.tiny)
    found = judged(starts)
    OUT.mkdir(parents=True, exist_ok=True)
    whole = {"sides": found, "starts": starts, "settings": vars(settings), "machine": machine(), "versions": versions()}
    (OUT / "startup.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    (OUT / "startup.md").write_text(table(found), encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
