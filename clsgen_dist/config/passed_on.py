"""Environment variables that go along with a job and on to its workers: by name, and nothing else.

No secrets are among them: what is sent to a cluster can be read in its dashboard, so the nodes have their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clsgen_dist.errors import ConfigError

#: Reach a job from the machine that hands it in, where that machine has them. Folders, network and accelerator are the
#: matter of the cluster's nodes.
TO_JOBS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_OFFLINE", "NCCL_DEBUG", "PYTHONWARNINGS", "TOKENIZERS_PARALLELISM")

#: Reach the workers of a cluster that was there before, from the driver.
TO_WORKERS = (
    *TO_JOBS,
    *("DS_ACCELERATOR", "HF_HOME", "MLFLOW_TRACKING_USERNAME", "NCCL_SOCKET_IFNAME", "TRANSFORMERS_VERBOSITY"),
)

#: Beginnings of the names that reach the processes of a cluster which a run starts for itself, on its own machine: what
#: programs, numerics, networks and the stores of models and artifacts need. Nothing else does, but the key of a judge.
TO_OWN_CLUSTER = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_", "TZ", "TMPDIR", "TERM", "XDG_", "LD_"),
    *("PYTHON", "VIRTUAL_ENV", "CONDA_", "RAY_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "OMP_", "MKL_", "KMP_"),
    *("OPENBLAS_", "TORCH", "PYTORCH_", "TRITON_", "DS_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "TOKENIZERS_"),
    *("MLFLOW_", "MPL", "AWS_", "GOOGLE_", "AZURE_", "SSL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "COLUMNS", "NO_COLOR"),
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


def kept_by_own_cluster(environment: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, str]:
    """Variables that a cluster which a run starts for itself is given.

    Args:
        environment: of the process that starts it.
        settings: the configuration by dotted name. Workers ask a judge, so where there is one they have its key.
    """
    judges = "judge" in (settings.get("evaluate.readers") or ())
    named = {settings.get("evaluate.judge.api_key_env")} if judges else set()
    return {name: value for name, value in environment.items() if name.startswith(TO_OWN_CLUSTER) or name in named}
