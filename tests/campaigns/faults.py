"""Kills, stops, damages and starves small runs, and counts what was survived: `make campaign-faults`.

    python tests/campaigns/faults.py --only kill-ranks,kill-ray --kills 20 --rounds 3 --seed 0 [--add]

Rows can be run one by one: benchmarks/out/faults.json keeps what was found, and docs/faults.md shows all of it. Whether
a run was right in the end is said in `fault_runs.wrongs_of`. The exit code is 1 where a fault was not survived.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DS_ACCELERATOR", "cpu")
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.campaigns.fault_report import PAGE, Record, conditions
from tests.campaigns.fault_rows import ROWS, Asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"rows, with commas between: {', '.join(ROWS)}")
    parser.add_argument("--kills", type=int, default=20, help="of ranks, and of workers under Ray")
    parser.add_argument("--rounds", type=int, default=3, help="of each other fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="keep earlier cases of these rows")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else list(ROWS)
    if unknown := set(names) - set(ROWS):
        parser.error(f"--only {', '.join(sorted(unknown))}: rows are {', '.join(ROWS)}")
    record, all_survived = Record(), True
    for name in names:
        fault, function = ROWS[name]
        record.begin(
            name, fault, conditions(f"python tests/campaigns/faults.py {' '.join(sys.argv[1:])}"), adds=given.add
        )
        with tempfile.TemporaryDirectory(prefix="clsgen-faults-") as folder:
            asked = Asked(Path(folder), given.kills, given.rounds, random.Random(f"{given.seed} {name}"))
            for case in function(asked):
                print(
                    f"{name}: {case.survived} of {case.tried}, {[round(s, 1) for s in case.seconds]} s; {case.told}",
                    flush=True,
                )
                all_survived &= case.survived == case.tried
                record.add(name, case)
                PAGE.write_text(record.page(ROWS), encoding="utf-8")
    sys.exit(0 if all_survived else 1)


if __name__ == "__main__":
    main()
