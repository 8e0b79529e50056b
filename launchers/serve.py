"""Answers requests with a finished bundle, from MLflow's registry or from a folder:

python launchers/serve.py --model models:/demo@champion [--tracking.uri sqlite:///runs/mlflow.db] [--port 5001]
python launchers/serve.py --bundle runs/demo/bundle [--host 127.0.0.1] [--max-bytes 1048576]
    [--queue-size 64] [--timeout-s 60]
curl -H 'Content-Type: application/json' http://127.0.0.1:5001/invocations
    -d '{"dataframe_records": [{"text": "..."}], "params": {"explain": true}}'

--base FOLDER says where the base model is now. It asks nobody for a password: put it behind what does. docs/serving.md
has requests, limits and errors.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch


def run(words: list[str]) -> None:
    options = ("model", "bundle", "tracking.uri", "base", "host", "port", "max_bytes")
    options += ("queue_size", "timeout_s")
    found, rest = launch.parse_words(words, options)
    from clsgen_dist.serve.running import serve, serve_request

    serve(serve_request(found, rest))


if __name__ == "__main__":
    launch.main(__doc__, run, has_settings=False)
