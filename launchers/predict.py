"""Probability of each label and an explanation for new rows, from a finished bundle:

python launchers/predict.py --bundle runs/demo/bundle --input rows.jsonl --output predictions.jsonl
python launchers/predict.py --config run.yaml --input rows.jsonl --output predictions.jsonl

--bundle takes the columns from the bundle, --config the bundle and the columns of that run; --data.text_column and its
neighbours rename them. --explain none leaves explanations out; --explain uncertain --predict.uncertain_margin 0.1
writes them for rows near the operating threshold only. --predict.num_workers 8 has 8 actors of a Ray cluster predict,
one a GPU. --base FOLDER says where the base model is now. Stopped, the same command goes on where it was.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    request = launch.predict_request(words)
    from clsgen_dist.predict.files import hire_here, predict_file
    from clsgen_dist.progress import ProgressBar

    def hire(config, job):  # type: ignore[no-untyped-def]
        if config.predict.num_workers is None:
            return hire_here(config, job)
        from clsgen_dist.orchestrate.ray_predict import hire_on_ray

        return hire_on_ray(config, job)

    with ProgressBar() as bar:
        num_rows = predict_file(request, bar, hire=hire)
    print(f"{num_rows:,} predictions: {request.output}")


if __name__ == "__main__":
    launch.main(__doc__, run)
