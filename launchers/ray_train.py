"""Trains on a Ray cluster, one ZeRO worker a GPU or CPU slot, by itself or as a job:

python launchers/ray_train.py --config examples/demo.yaml [--section.key VALUE ...]
ray job submit --address http://HEAD:8265 --working-dir . -- python launchers/ray_train.py --config ...
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    config = launch.config_of(words)
    from clsgen_dist.pipeline import run_with_ray
    from clsgen_dist.progress import ProgressBar
    from clsgen_dist.summary import summary

    with ProgressBar() as bar:
        run_with_ray(config, bar)
    print(summary(config))


if __name__ == "__main__":
    launch.main(__doc__, run)
