"""The sections of the services that a run uses: MLflow and Ray."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from clsgen_dist.config.sections import Count, Section

#: A password in an address, as of http://user:password@host or postgresql://host/name?password=...
_SECRET = re.compile(r"://[^/@]*:[^/]*@|[?&](password|token|api_key)=", re.IGNORECASE)


def without_secret(uri: str) -> str:
    """Returns an address that holds no password. Raises ValueError for one that does.

    A configuration is copied into run folder and MLflow, and an address stands in messages.
    """
    if _SECRET.search(uri):
        raise ValueError(
            "holds a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD or "
            "~/.pgpass for PostgreSQL"
        )
    return uri


class Tracking(Section):
    uri: str | None = Field(None, description="MLflow server or database; null: OUTPUT_DIR/mlflow.db")
    experiment: str = Field("clsgen_dist", description="MLflow experiment", min_length=1)
    parent_run_id: str | None = Field(None, description="MLflow run that this one is shown under; null: none")

    @field_validator("uri")
    @classmethod
    def _no_secret_in_the_address(cls, uri: str | None) -> str | None:
        return None if uri is None else without_secret(uri)


class Ray(Section):
    address: str | None = Field(None, description="Ray cluster; null: RAY_ADDRESS, else a cluster on this machine")
    cpus_per_worker: Annotated[float, Field(gt=0)] = Field(1.0, description="CPUs that a worker reserves")
    max_failures: int = Field(3, ge=0, description="restarts of the worker group after a failure")
    min_workers: Count | None = Field(
        None,
        description="workers to go on with where the cluster has no room for train.num_workers, as after the loss of a "
        "node; null: wait for room",
    )
