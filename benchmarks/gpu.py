"""Training on one GPU: model FLOP utilisation, and the longest row that trains, beside TRL where it is installed.

    python benchmarks/gpu.py                 # the shape of Llama 3.1 8B, random weights, LoRA, bf16; some 8 minutes
    python benchmarks/gpu.py --tiny          # the same on any machine in less than a minute, with a toy

Each side runs in a process of its own, with the least recomputation for which there is memory. Needs neither DeepSpeed,
Ray, MLflow nor datasets (the peer needs the last one). Writes benchmarks/out/gpu.json and gpu.md, after each side, so a
run that is cut off leaves what it has measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gpu_side import GpuJob, device, run_job  # noqa: E402

LLAMA_8B = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1_048_576,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    "tie_word_embeddings": False,
}
TOY = LLAMA_8B | {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

#: Dense bf16 operations a second by the data sheet, by what a GPU's name holds.
DATA_SHEETS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def operations_a_step(shape: dict[str, Any], tokens: int, length: int, scored: int) -> float:
    """What a step must compute: recomputation, padding and logits that nobody asks for do not count.

    The backbone is frozen: two operations a weight and token forward, two backward. Adapters (rank 16 on all linear
    layers) take two more, for their own gradients. Causal attention: of each token half the length on average, two
    products forward and four backward.
    """
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    keys = width // shape["num_attention_heads"] * shape["num_key_value_heads"]
    linear = 2 * width * width + 2 * width * keys + 3 * width * inner
    adapters = 16 * (2 * 2 * width + 2 * (width + keys) + 3 * (width + inner))
    attention = 6 * 2 * width * length / 2
    head = 4 * scored * width * shape["vocab_size"]
    return float(tokens * layers * (4 * linear + 6 * adapters + attention) + head)


def jobs(tiny: bool) -> dict[str, GpuJob]:
    """What is measured, by name: two lengths with each side, then the longest that trains."""
    shape = TOY if tiny else LLAMA_8B
    lengths, num_tokens = ([64, 128], 256) if tiny else ([2048, 8192], 8192)
    longest = [256, 512] if tiny else [16_384, 24_576, 32_768, 49_152, 65_536, 98_304, 131_072, 196_608, 262_144]
    steps = {"num_warm": 1, "num_timed": 2} if tiny else {"num_warm": 3, "num_timed": 8}
    plainest = {"activation_offload": False, "compiled": False, "liger": False, "shape": shape}
    policies = ["none", "selective", "full"]
    peers = ["trl"] if importlib.util.find_spec("trl") and importlib.util.find_spec("datasets") else []
    found = {}
    for length in lengths:
        timed = {**plainest, **steps, "lengths": [length], "num_tokens": num_tokens, "policies": policies}
        for side in ("ours", *peers, "plain"):
            found[f"{side}, {length:,} tokens a row"] = GpuJob(side=side, **timed)
        if not tiny:  # it would compile for longer than all else takes
            found[f"ours, compiled, {length:,} tokens a row"] = GpuJob(side="ours", **timed | {"compiled": True})
            if importlib.util.find_spec("liger_kernel"):
                found[f"ours, Liger, {length:,} tokens a row"] = GpuJob(side="ours", **timed | {"liger": True})
    once = {**plainest, "lengths": longest, "num_tokens": 1, "num_warm": 0, "num_timed": 1, "policies": ["full"]}
    for side in ("ours", *peers, "plain"):
        found[f"{side}, longest row"] = GpuJob(side=side, **once)
    found["ours, longest row, activation_offload"] = GpuJob(side="ours", **once | {"activation_offload": True})
    return found


def run_apart(job: GpuJob, seconds: float) -> dict[str, Any]:
    """A job in a process of its own, so that nothing of one side is left in the memory of the next."""
    with tempfile.TemporaryDirectory(prefix="clsgen-gpu-") as scratch:
        job_file, result_file = Path(scratch) / "job.json", Path(scratch) / "result.json"
        job_file.write_text(json.dumps(job._asdict()), encoding="utf-8")
        command = [sys.executable, str(ROOT / "benchmarks" / "gpu_side.py"), str(job_file), str(result_file)]
        environment = os.environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "TOKENIZERS_PARALLELISM": "false"}
        try:
            ran = subprocess.run(
                command, env=environment, timeout=seconds, capture_output=True, text=True, check=False, cwd=scratch
            )
        except subprocess.TimeoutExpired:
            return {"seconds": [], "error": f"took more than {seconds:.0f} s"}
        if ran.returncode != 0:
            return {"seconds": [], "error": ran.stderr[-2000:]}
        found: dict[str, Any] = json.loads(result_file.read_text(encoding="utf-8"))
        return found


def peak_operations() -> tuple[float, str]:
    """Operations a second to measure against: the data sheet's, or those of one large product on this device."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    for part, sheet in DATA_SHEETS.items():
        if part in name:
            return sheet, f"{name}, data sheet"
    size, best = 1024, 0.0
    one = torch.randn(size, size, dtype=torch.bfloat16, device=device())
    for _ in range(3):
        started = time.perf_counter()
        (one @ one)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best, f"{name}, a product of {size} x {size}"


def judged(job: GpuJob, found: dict[str, Any], peak: float) -> dict[str, Any]:
    """What was measured, with medians and utilisation."""
    if not found["seconds"]:
        return found
    seconds = statistics.median(found["seconds"])
    needed = operations_a_step(job.shape, found["tokens"], found["length"], found["scored"])
    return found | {
        "tokens_per_second": found["tokens"] / seconds,
        "operations_per_second": needed / seconds,
        "utilisation": needed / seconds / peak,
    }


def table(results: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        "| what | row, tokens | rows | recomputed | tokens a second | MFU | peak GiB | did not train |",
        "|---|--:|--:|---|--:|--:|--:|--:|",
    ]
    for name, one in results.items():
        if not one["seconds"]:
            lines.append(f"| {name} | | | | | | | {one.get('error', one.get('failed'))!s:.60} |")
            continue
        lines.append(
            f"| {name} | {one['length']:,} | {one['tokens'] // one['length']} | {one['policy']} | "
            f"{one['tokens_per_second']:,.0f} | {100 * one['utilisation']:.1f} % | {one['peak_bytes'] / 2**30:.1f} | "
            f"{one['failed'] or ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a toy, on any device, in this process")
    parser.add_argument("--only", default="", help="jobs whose name holds this")
    parser.add_argument("--seconds", type=float, default=150.0, help="longest time of one side")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out", help="folder of gpu.json and gpu.md")
    settings = parser.parse_args()
    if not settings.tiny and not torch.cuda.is_available():
        parser.error("no GPU here; --tiny tries the script on CPUs")
    settings.out.mkdir(parents=True, exist_ok=True)
    peak, of_what = peak_operations()
    results: dict[str, Any] = {}
    for name, job in jobs(settings.tiny).items():
        if settings.only not in name:
            continue
        found = run_job(job) if settings.tiny else run_apart(job, settings.seconds)
        results[name] = judged(job, found, peak)
        print(table({name: results[name]}).splitlines()[-1], flush=True)
        versions = {package: metadata.version(package) for package in ("torch", "transformers", "peft")}
        whole = {"peak_operations": peak, "peak_of": of_what, "versions": versions, "results": results}
        (settings.out / "gpu.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
        heading = f"Utilisation is of {peak / 1e12:.1f} x 10^12 operations a second ({of_what}).\n\n"
        (settings.out / "gpu.md").write_text(heading + table(results) + "\n", encoding="utf-8")
    print(settings.out / "gpu.md")


if __name__ == "__main__":
    main()
