"""Probability of each label and an explanation for new rows, from a finished bundle:

python launchers/predict.py --bundle runs/demo/bundle --input rows.jsonl --output predictions.jsonl
python launchers/predict.py --config run.yaml --input rows.jsonl --output predictions.jsonl

--bundle takes the columns from the bundle, --config the bundle and the columns of that run; --data.text_column and its
neighbours rename them. --explain none leaves explanations out; --explain uncertain --predict.uncertain_margin 0.1
writes them for rows near the operating threshold only. --base FOLDER says where the base model is now.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    request = launch.predict_request(words)
    from clsgen_dist.predict.files import predict_file
    from clsgen_dist.progress import ProgressBar

    with ProgressBar() as bar:
        num_rows = predict_file(request, bar)
    print(f"{num_rows:,} predictions: {request.output}")


if __name__ == "__main__":
    launch.main(__doc__, run)
