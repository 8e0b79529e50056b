"""Says what a run would take, without loading weights: rows, tokens, steps, parameters, bytes a GPU.

python launchers/plan.py --config examples/demo.yaml [--train.num_workers 8 ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    config = launch.config_of(words)
    from clsgen_dist.planning import make_plan, render_plan

    print(render_plan(make_plan(config), config))


if __name__ == "__main__":
    launch.main(__doc__, run)
