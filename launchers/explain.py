"""Has a teacher write the reasons of the training and validation rows, and checks them:

python launchers/explain.py --config examples/demo.yaml [--explain.teacher evidence ...]

Stopped at any point, the same command goes on where it was; nothing is asked twice. The explained set, its manifest
and explain_report.html stand in OUTPUT_DIR/RUN_NAME/explained/, where training finds them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    config = launch.config_of(words)
    from clsgen_dist.explain.stage import explain_run
    from clsgen_dist.progress import ProgressBar
    from clsgen_dist.summary import explained_summary

    hire = None
    if config.explain.num_workers is not None:
        from clsgen_dist.orchestrate.ray_explain import hire_on_ray

        hire = hire_on_ray
    with ProgressBar() as bar:
        folder = explain_run(config, bar, hire)
    print(explained_summary(folder))


if __name__ == "__main__":
    launch.main(__doc__, run)
