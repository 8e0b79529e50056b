"""The pictures of docs/calibration.md: one head, calibrated on 50, 500 and 5,000 rows, where the truth is known.

    python benchmarks/calibration_pictures.py

Writes docs/pictures/calibration_rows.png and prints the table beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from calibrator_selection import expected_nll, load_splits, logits_of  # noqa: E402

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator  # noqa: E402
from clsgen_dist.calibrate.selection import select_calibrator  # noqa: E402
from clsgen_dist.evaluate.metrics import calibration_bins, calibration_error  # noqa: E402

HEAD = "asymmetric"
ROWS = (50, 500, 5000)
TEST_ROWS = 20_000
PLACE = ROOT / "docs" / "pictures" / "calibration_rows.png"


def main() -> None:
    """Draws and prints."""
    calibration, test = load_splits(max(ROWS), TEST_ROWS, seed=3)
    logits_N2 = logits_of(test.log_odds[HEAD])
    found: list[tuple[str, Calibrator]] = [("not calibrated", IDENTITY)]
    for num_rows in ROWS:
        selection = select_calibrator(
            logits_of(calibration.log_odds[HEAD][:num_rows]),
            calibration.labels_N[:num_rows],
            max_temperature=100.0,
            seed=0,
        )
        found.append((f"{num_rows:,} rows", selection.calibrator))
    figure = Figure(figsize=(11.2, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), sharey=True)
    print("| calibration rows | calibrator | NLL | ECE | mean abs(p - true p) |\n|---|---|--:|--:|--:|")
    for axes, (name, calibrator) in zip(panels, found, strict=True):
        p_N2 = calibrator.apply(logits_N2)
        bins = calibration_bins(p_N2[:, 1], test.labels_N, num_bins=15)
        filled_B = bins.num_rows_B > 0
        axes.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(bins.mean_probability_B[filled_B], bins.frequency_B[filled_B], "o-", color="#0072B2", markersize=4)
        axes.set(title=name, xlabel="predicted probability", xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ece = calibration_error(p_N2[:, 1], test.labels_N, 15)
        error = float(np.abs(p_N2[:, 1] - test.truth_N).mean())
        print(f"| {name} | {calibrator.method} | {expected_nll(p_N2, test.truth_N):.4f} | {ece:.4f} | {error:.4f} |")
    panels[0].set_ylabel("share of rows with the label")
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLACE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
