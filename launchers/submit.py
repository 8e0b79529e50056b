"""Hands a run in to a Ray cluster as a job, after a look at its configuration and at what would be uploaded:

python launchers/submit.py --address http://HEAD:8265 --config FILE.yaml [--section.key VALUE ...]
    [--launcher ray_train|compare|explain] [--max-upload-mib 20] [--env NAME,NAME]

The checkout is uploaded without what .gitignore and .rayignore name. Of the environment only named variables go along,
and no secrets: those belong to the nodes. Follows the job, and ends with exit code 0 when it succeeded. docs/ray.md
has the cluster.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from clsgen_dist import launch

CHECKOUT = Path(__file__).resolve().parent.parent


def run(words: list[str]) -> None:
    from clsgen_dist.submit import job_command, submit_request

    request = submit_request(words, CHECKOUT)
    command = job_command(request, CHECKOUT, dict(os.environ))
    print(f"{request.upload.num_bytes / 2**20:.1f} MiB in {len(request.upload.files)} files: {CHECKOUT}", flush=True)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
    sys.exit(subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode)


if __name__ == "__main__":
    launch.main(__doc__, run)
