"""Nodes that share no folder: each has its own, and the run stands in a bucket of a real S3 server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from clsgen_dist.bundle import load_bundle
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.engine.collectives import current_ranks
from clsgen_dist.engine.deepspeed import start_distributed
from clsgen_dist.errors import ConfigError
from clsgen_dist.objects import Objects
from clsgen_dist.predict.files import predict_file
from clsgen_dist.progress import silent
from clsgen_dist.records import PredictRequest
from tests.support.object_store import Bucket, s3_bucket
from tests.support.ranks import RankPool, RanksFailed
from tests.support.runs import TIMEOUT_SECONDS, assert_same_weights, compared_config, flow_on_rank, long_rows
from tests.support.tiny import write_jsonl
from tests.support.tracking_server import mlflow_server

NUM_STEPS, KILLED_AFTER, DAMAGED, LAST_WHOLE = 6, 5, 4, 2


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with s3_bucket() as made:
        yield made


def config_of(folder: Path, name: str, **settings: Any) -> RunConfig:
    every = {"train.epochs": 2, "train.checkpoint_steps": 2, "train.eval_steps": 2}
    return compared_config(folder, name, long_rows(22), **{**every, **settings})


def flow_on_node(
    config: RunConfig, nodes: list[str], bucket: Bucket, die_at: int | None = None
) -> list[tuple[str, int]]:
    """The whole flow on a rank whose node has that folder."""
    os.environ.update(bucket.environment)
    start_distributed(TIMEOUT_SECONDS)
    run = config.run.model_copy(update={"output_dir": nodes[current_ranks().rank]})
    return flow_on_rank(config.model_copy(update={"run": run}), die_at)


def refusal_on_node(config: RunConfig, nodes: list[str], bucket: Bucket) -> str | None:
    try:
        flow_on_node(config, nodes, bucket)
    except ConfigError as error:
        return str(error)
    return None


def weights(folder: RunFolder) -> dict[str, Any]:
    return {f"{p.name}/{k}": v for p in sorted(folder.bundle.rglob("*.safetensors")) for k, v in load_file(p).items()}


def test_nodes_are_lost_and_others_go_on_with_the_same_run(
    two_ranks: RankPool, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the checkpoints that they left, the newest is damaged in the store too."""

    def nodes(*names: str) -> list[str]:
        return [str(tmp_path / name) for name in names]

    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    whole = config_of(tmp_path, "whole")
    two_ranks.run(flow_on_rank, whole)
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server") as address:
        config = config_of(tmp_path, "spread", **{"run.storage": f"{bucket.uri}/all", "tracking.uri": address})
        with pytest.raises(RanksFailed):
            two_ranks.run(flow_on_node, config, nodes("a", "b"), bucket, KILLED_AFTER)
        flip(Objects(f"{bucket.uri}/all/spread/checkpoints/step_{DAMAGED:08d}"), "rank_00001.safetensors")

        resumed = two_ranks.run(flow_on_node, config, nodes("c", "d"), bucket)[0]
        again = two_ranks.run(flow_on_node, config, nodes("e", "f"), bucket)[0]

        client = MlflowClient(address)
        (run,) = client.search_runs([client.get_experiment_by_name(config.tracking.experiment).experiment_id])
        steps = {metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")}

    assert [done for stage, done in resumed if stage == "train"] == list(range(LAST_WHOLE + 1, NUM_STEPS + 1))
    assert not [done for stage, done in again if stage == "train"], "it was trained to its end"
    assert (run.info.status, steps) == ("FINISHED", set(range(1, NUM_STEPS + 1)))
    assert run.data.tags["run_folder"] == f"{bucket.uri}/all/spread"
    expected = weights(RunFolder(whole.folder))
    for name in "cdef":
        folder = RunFolder(tmp_path / name / "spread")
        assert_same_weights(weights(folder), expected, atol=0)
        load_bundle(folder.bundle, device=torch.device("cpu"))
        assert not list(folder.checkpoints.glob(".*")), "what was on its way is gone"
    assert (tmp_path / "e" / "spread" / "evaluation" / "test" / "report.html").is_file()
    new = [{"id": "a", "text": "pain and fever"}, {"id": "b", "text": "calm and fine"}]
    request = PredictRequest(
        tmp_path / "g" / "spread" / "bundle",
        str(write_jsonl(tmp_path / "new.jsonl", new)),
        tmp_path / "predictions.jsonl",
        base=None,
        columns=(),
        settings=("--predict.max_new_tokens=4",),
        storage=config.stored_at,
    )
    assert predict_file(request, silent) == 2, "a node that never had the bundle"
    left = {name.partition("/")[0] for name in Objects(f"{bucket.uri}/all/spread/checkpoints").listing()}
    assert {name for name in left if not name.startswith("best_")} == {"step_00000004", "step_00000006"}
    assert 1 <= len(left) - 2 <= 2, "of the best steps those that a checkpoint knows"


def flip(objects: Objects, name: str) -> None:
    content = bytearray(objects.read(name))
    content[-1] ^= 1
    objects.write(name, bytes(content))


def test_a_bucket_that_is_not_there_is_told_by_all_ranks_before_anything_is_done(
    two_ranks: RankPool, bucket: Bucket, tmp_path: Path
) -> None:
    config = config_of(
        tmp_path, "nowhere", **{"run.storage": "s3://no-such-bucket/x", "tracking.uri": "http://127.0.0.1:9"}
    )
    for told in two_ranks.run(refusal_on_node, config, [str(tmp_path / "a"), str(tmp_path / "b")], bucket):
        assert told.startswith("run.storage s3://no-such-bucket/x/nowhere: not all nodes can use it (rank 0 on ")
        assert "; rank 1 on " in told
        assert bucket.environment["AWS_SECRET_ACCESS_KEY"] not in told
    assert not (tmp_path / "a" / "nowhere").exists()
