"""Predicts rows with a finished bundle and measures what it says: probabilities, decisions, explanations, language.

python launchers/evaluate.py --bundle runs/demo/bundle --data test.jsonl [--output FOLDER]
    [--evaluate.max_explained_rows 400] [--data.subgroup_columns "[site]"]

Writes metrics.json, predictions.jsonl, report.html and pictures into FOLDER; by default evaluation/NAME of the run that
the bundle stands in, NAME being that of the file. Rows without labels are predicted only. The rows must be others than
those that the model was trained on. --explanations FILE.parquet names the explained rows of the training where the
bundle was moved away from them. --base FOLDER says where the base model is now. Of the settings below, those of
evaluate, predict, data and run.seed count.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    request = launch.evaluate_request(words)
    from clsgen_dist.assess import evaluate_bundle
    from clsgen_dist.progress import ProgressBar
    from clsgen_dist.summary import evaluated_summary

    with ProgressBar() as bar:
        metrics = evaluate_bundle(request, bar)
    print(evaluated_summary(request, metrics))


if __name__ == "__main__":
    launch.main(__doc__, run)
