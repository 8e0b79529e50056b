"""Fits calibrator and operating threshold of a finished bundle on labelled rows, and stores both in it:

python launchers/calibrate.py --bundle runs/demo/bundle --data calibration.jsonl [--test test.jsonl]
    [--calibrate.method auto] [--calibrate.threshold recall --calibrate.threshold_value 0.9]

The rows must be others than those that the model was trained on. Columns are those of the bundle's run;
--data.text_column and its neighbours rename them. --base FOLDER says where the base model is now. Of the settings
below, those of calibrate, evaluate.num_bins, evaluate.num_bootstrap and run.seed count.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    request = launch.calibrate_request(words)
    from clsgen_dist.progress import ProgressBar
    from clsgen_dist.recalibrate import recalibrate
    from clsgen_dist.summary import calibrated_summary

    with ProgressBar() as bar:
        found = recalibrate(request, bar)
    print(calibrated_summary(request.bundle, found.decision, found.warnings, found.metrics))


if __name__ == "__main__":
    launch.main(__doc__, run)
