"""Environment variables that go along with a job and on to its workers: by name, and nothing else.

No secrets are among them: what is sent to a cluster can be read in its dashboard, so the nodes have their own.
"""

from __future__ import annotations

import re

from clsgen_dist.errors import ConfigError

#: Reach a job from the machine that hands it in, where that machine has them. Folders, network and accelerator are the
#: matter of the cluster's nodes.
TO_JOBS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_OFFLINE", "NCCL_DEBUG", "PYTHONWARNINGS", "TOKENIZERS_PARALLELISM")

#: Reach the workers of a cluster that was there before, from the driver. A cluster that a run starts for itself has the
#: run's whole environment.
TO_WORKERS = (
    *TO_JOBS,
    *("DS_ACCELERATOR", "HF_HOME", "MLFLOW_TRACKING_USERNAME", "NCCL_SOCKET_IFNAME", "TRANSFORMERS_VERBOSITY"),
)

_SECRET = re.compile(r"(^|_)(KEY|TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIALS?)(_|$)", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Whether a variable's name says that it holds a secret."""
    return _SECRET.search(name) is not None


def job_environment(environment: dict[str, str], asked: tuple[str, ...] = ()) -> dict[str, str]:
    """Variables that are sent along with a job.

    Args:
        environment: of the machine that hands it in.
        asked: further names that the user wants sent.

    Raises:
        ConfigError: a name holds a secret, which every reader of the Ray dashboard would see; or it is not set.
    """
    for name in asked:
        if is_secret(name):
            raise ConfigError(
                f"--env {name}: what is sent with a job stands in the Ray dashboard for all who read it; set it on the "
                "nodes, where ray start is run"
            )
        if name not in environment:
            raise ConfigError(f"--env {name}: there is no such variable here")
    return {name: environment[name] for name in (*TO_JOBS, *asked) if name in environment}
