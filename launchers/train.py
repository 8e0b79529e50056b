"""Trains under the deepspeed launcher, on one node or by a hostfile on many:

deepspeed --num_gpus 8 launchers/train.py --config examples/demo.yaml [--section.key VALUE ...]

On CPUs set DS_ACCELERATOR=cpu. Without a launcher it runs as one process.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    config = launch.config_of(words)
    from clsgen_dist.pipeline import run_launched
    from clsgen_dist.progress import ProgressBar, silent
    from clsgen_dist.summary import summary

    leads = launch.leads()
    with ProgressBar() as bar:
        run_launched(config, bar if leads else silent)
    if leads:
        print(summary(config))


if __name__ == "__main__":
    launch.main(__doc__, run)
