"""Asks a language model for probabilities in words, and calibrates what it says:

python launchers/verbalize.py --config run.yaml [--verbalize.source endpoint ...]
python launchers/verbalize.py --config run.yaml --answers answers.jsonl [--calibration-answers others.jsonl]
python launchers/verbalize.py --labels no,yes --answers answers.jsonl --output FOLDER

With --answers no model is asked: each line has id, label (a name, a number or null) and answer, the model's words;
perhaps group and text. Without --calibration-answers one half of them is fitted on and the other one measured. Results
stand in OUTPUT_DIR/RUN_NAME/verbalized/, or in FOLDER. Stopped at any point, the same command goes on where it was.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    request = launch.answers_request(words)
    config = None if request else launch.config_of(words)
    from clsgen_dist.progress import ProgressBar
    from clsgen_dist.summary import verbalized_summary
    from clsgen_dist.verbalize.stage import calibrate_answers, verbalize_run

    if request is not None:
        folder = calibrate_answers(request)
    else:
        with ProgressBar() as bar:
            folder = verbalize_run(config, bar)
    print(verbalized_summary(folder))


if __name__ == "__main__":
    launch.main(__doc__, run)
