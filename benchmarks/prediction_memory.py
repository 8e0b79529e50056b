"""Peak memory of a prediction by its number of rows; a model so small that rows would show if they were held."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NUM_ROWS = (1_000, 10_000, 100_000)


def measure_memory() -> dict[str, Any]:
    """Peak resident MiB of a process that predicts so many rows of about 400 characters."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder]
        subprocess.run([*command, "bundle"], check=True, cwd=ROOT)
        peaks = {
            str(number): float(subprocess.check_output([*command, str(number)], cwd=ROOT, text=True).split()[-1])
            for number in NUM_ROWS
        }
    return {"peak_mib_by_rows": peaks, "characters_a_row": 400}


def _run(folder: Path, what: str) -> None:
    sys.path.insert(0, str(ROOT))
    from clsgen_dist.predict.files import predict_file
    from clsgen_dist.progress import silent
    from clsgen_dist.records import PredictRequest
    from tests.support.bundles import write_tiny_bundle

    if what == "bundle":
        write_tiny_bundle(folder)
        # The backbone of a tiny bundle ends with the process that made it.
        import shutil

        from tests.support.tiny import shared_backbone

        shutil.copytree(shared_backbone(), folder / "base")
        return
    source = folder / f"rows-{what}.jsonl"
    with source.open("w", encoding="utf-8") as file:
        for number in range(int(what)):
            file.write(json.dumps({"id": f"row-{number}", "text": f"fever {number} " + "word " * 80}) + "\n")
    settings = ("--predict.explain=none", "--predict.token_budget=8192")
    output = folder / f"out-{what}.jsonl"
    predict_file(PredictRequest(folder / "bundle", str(source), output, str(folder / "base"), (), settings), silent)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2])
