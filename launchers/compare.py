"""Trains and evaluates several arms on the same rows, and compares them in one table:

python launchers/compare.py --config examples/compare_demo.yaml [--seeds 1] [--arms joint,discriminative]
    [--train.learning_rate 1e-4 ...]
ray job submit --address http://HEAD:8265 --working-dir . -- python launchers/compare.py --config ...

Stopped at any point, the same command goes on where it was: finished arms are not run again. --seeds and --arms stand
in for those of the file; other words change the base configuration. Results stand in OUTPUT_DIR/NAME/compare/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch
from clsgen_dist.config.compare import compare_help


def run(words: list[str]) -> None:
    from clsgen_dist.compare.arms import comparison_of

    comparison = comparison_of(words)
    from clsgen_dist.compare.report import console_table
    from clsgen_dist.compare.running import compare

    content = compare(comparison, lambda line: print(line, file=sys.stderr, flush=True))
    print(console_table(content, comparison.folder / "compare"))
    if content["failed"]:
        sys.exit(launch.FAILED)


if __name__ == "__main__":
    launch.main(f"{__doc__}\n{compare_help()}", run)
