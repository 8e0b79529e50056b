"""Registers a finished bundle as a version of a model in MLflow's registry:

python launchers/register.py --bundle runs/demo/bundle --name demo [--alias champion]
    [--tracking.uri sqlite:///runs/mlflow.db]

Without --tracking.uri it goes to the MLflow that the run told, else to MLFLOW_TRACKING_URI. --alias promotes the new
version: models:/demo@champion is this one then. Tags say whether it is calibrated, its threshold, and what its run
measured on test rows. docs/serving.md has more.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    found, rest = launch.parse_words(words, ("bundle", "name", "alias", "tracking.uri"))
    from clsgen_dist.serve.registry import register_bundle
    from clsgen_dist.serve.running import register_request

    request = register_request(found, rest)
    version = register_bundle(request)
    print(f"models:/{request.name}/{version}")
    if request.alias is not None:
        print(f"models:/{request.name}@{request.alias}")


if __name__ == "__main__":
    launch.main(__doc__, run, has_settings=False)
