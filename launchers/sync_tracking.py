"""Sends to MLflow what a run could not send while the server was away:

python launchers/sync_tracking.py --run runs/demo [--tracking.uri http://HOST:5000]

The run must have ended. What is there already is not sent again, so the command can be repeated; another address gets
everything. For a comparison, --run is OUTPUT_DIR/NAME/compare.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    folder, uri = launch.sync_request(words)
    from clsgen_dist.claim import claimed

    with claimed(folder):
        from clsgen_dist.tracking.sync import sync_tracking

        print(sync_tracking(folder, uri))


if __name__ == "__main__":
    launch.main(__doc__, run, has_settings=False)
