"""Environment variables that go along with a job: by name, and nothing else."""

from __future__ import annotations

import re

from clsgen_dist.errors import ConfigError

#: Reach a job from the machine that hands it in, where that machine has them. Folders, network and accelerator are the
#: matter of the cluster's nodes.
TO_JOBS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_OFFLINE", "NCCL_DEBUG", "PYTHONWARNINGS", "TOKENIZERS_PARALLELISM")

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
