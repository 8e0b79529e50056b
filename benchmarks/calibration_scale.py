"""Time and memory of calibrating and measuring many rows: within 60 s and 4 GiB on two cores.

    python benchmarks/calibration_scale.py [--rows 1000000] [--labels 10]

Logits of an overconfident model with a bias, whose labels are drawn from what they should have been: a temperature and,
where there are more than two labels, a vector calibrator are fitted and applied, and all metrics are taken, without
bootstrap. The result also goes to benchmarks/out/calibration_scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from clsgen_dist.calibrate.scaling import fit_calibrator  # noqa: E402
from clsgen_dist.evaluate.calibration_metrics import calibration_metrics, null_ece  # noqa: E402
from clsgen_dist.evaluate.metrics import probability_metrics  # noqa: E402

OUT = ROOT / "benchmarks" / "out" / "calibration_scale.json"
NUM_CORES, MAX_SECONDS, MAX_GIB = 2, 60.0, 4.0
NUM_BINS, MAX_TEMPERATURE = 15, 20.0


def draw_rows(num_rows: int, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are twice too large and biased, and labels from the right ones."""
    generator = np.random.default_rng(0)
    right_NK = 1.5 * generator.normal(size=(num_rows, num_labels))
    # The largest of logits with Gumbel noise is a draw from their softmax.
    labels_N = (right_NK + generator.gumbel(size=right_NK.shape)).argmax(axis=1)
    return 2 * right_NK + np.linspace(-0.5, 0.5, num_labels), labels_N


def peak_gib() -> float:
    """Most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> int:
    """Prints the table and says whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=10)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_CORES])
    logits_NK, labels_N = draw_rows(arguments.rows, arguments.labels)
    stages: list[dict[str, Any]] = []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started, started_cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
        stages.append({"stage": name, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gib": peak_gib()})
        print(f"{name:28}{seconds:8.1f} s{cpu_seconds:8.1f} s{peak_gib():8.2f} GiB", flush=True)
        return result

    print(f"{arguments.rows:,} rows x {arguments.labels} labels on {len(os.sched_getaffinity(0))} cores")
    print(f"{'':28}{'took':>10}{'processor':>10}{'peak':>9}")
    methods = ("temperature", "vector") if arguments.labels > 2 else ("temperature",)
    fitted = {}
    for method in methods:
        fitted[method], warnings = timed(
            f"fit {method}",
            lambda method=method: fit_calibrator(logits_NK, labels_N, method=method, max_temperature=MAX_TEMPERATURE),
        )
        print("".join(f"  warning: {warning}\n" for warning in warnings), end="")
    calibrator = fitted[methods[-1]]
    probabilities_NK = timed("apply", lambda: calibrator.apply(logits_NK))
    predicted_N = probabilities_NK.argmax(axis=1)
    metrics = timed(
        "probability_metrics", lambda: probability_metrics(probabilities_NK, labels_N, predicted_N, num_bins=NUM_BINS)
    )
    metrics |= timed("calibration_metrics", lambda: calibration_metrics(probabilities_NK, labels_N, num_bins=NUM_BINS))
    metrics |= timed("null_ece", lambda: null_ece(probabilities_NK, num_bins=NUM_BINS, seed=0))
    seconds = sum(stage["seconds"] for stage in stages)
    within = seconds <= MAX_SECONDS and peak_gib() <= MAX_GIB
    cpu_seconds = sum(stage["cpu_seconds"] for stage in stages)
    print(f"{'all':28}{seconds:8.1f} s{cpu_seconds:8.1f} s{peak_gib():8.2f} GiB", flush=True)
    print(f"{'within' if within else 'OVER'} {MAX_SECONDS:.0f} s and {MAX_GIB:.0f} GiB")
    result = {
        "num_rows": arguments.rows,
        "num_labels": arguments.labels,
        "num_cores": len(os.sched_getaffinity(0)),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_gib": peak_gib(),
        "within": within,
        "stages": stages,
        "calibrators": {method: calibrator.to_json() for method, calibrator in fitted.items()},
        "metrics": metrics,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
