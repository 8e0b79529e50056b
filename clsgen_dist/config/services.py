"""The sections of the services that a run uses: MLflow and Ray."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clsgen_dist.config.sections import Section


class Tracking(Section):
    uri: str | None = Field(None, description="MLflow server or database; null: OUTPUT_DIR/mlflow.db")
    experiment: str = Field("clsgen_dist", description="MLflow experiment", min_length=1)
    parent_run_id: str | None = Field(None, description="MLflow run that this one is shown under; null: none")


class Ray(Section):
    address: str | None = Field(None, description="Ray cluster; null: RAY_ADDRESS, else a cluster on this machine")
    cpus_per_worker: Annotated[float, Field(gt=0)] = Field(1.0, description="CPUs that a worker reserves")
    max_failures: int = Field(3, ge=0, description="restarts of the worker group after a failure")
