"""Where a bundle is registered, and what is said of it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.errors import ConfigError
from clsgen_dist.integrity import write_json
from clsgen_dist.sealed import Decision, read_manifest, set_decision
from clsgen_dist.serve.registry import bundle_tags
from clsgen_dist.serve.running import register_request
from clsgen_dist.tracking.journal import Record, record_path
from tests.support.bundles import write_tiny_bundle

WARMER = Calibrator("temperature", {"temperature": (2.0,)}, 100)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    record_path(folder).parent.mkdir(parents=True, exist_ok=True)
    Record("http://mlflow:5000", run_id="r1").save(record_path(folder))
    return write_tiny_bundle(folder)


def test_the_run_knows_where(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:5000")
    found = {"bundle": str(bundle), "name": "tickets"}
    assert register_request(found, []).uri == "http://mlflow:5000"
    assert register_request(found | {"tracking.uri": "http://said:5000"}, []).uri == "http://said:5000"
    alone = found | {"bundle": str(tmp_path / "bundle")}
    assert register_request(alone, []).uri == "http://environment:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="uri is missing"):
        register_request(alone, [])


@pytest.mark.parametrize(
    ("decision", "measured", "is_told"),
    [
        (Decision(WARMER, 0.4), {"threshold": 0.4, "is_calibrated": True}, True),
        (Decision(WARMER, 0.4), {"threshold": 0.4, "is_calibrated": False}, False),
        (Decision(WARMER, 0.4), {"threshold": 0.5, "is_calibrated": True}, False),
        (Decision(IDENTITY, None), {"threshold": None, "is_calibrated": False}, True),
        (Decision(IDENTITY, None), None, False),
    ],
)
def test_figures_are_told_of_the_decision_that_they_are_of(
    bundle: Path, decision: Decision, measured: dict[str, Any] | None, is_told: bool
) -> None:
    set_decision(bundle, decision)
    path = bundle.parent / "evaluation" / "test" / "metrics.json"
    path.unlink(missing_ok=True)
    if measured is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, measured | {"calibrated": {"auroc": 0.91, "ece": 0.03}})
    tags = bundle_tags(bundle, read_manifest(bundle), 2)
    assert tags["calibrated"] == str(decision.calibrator is WARMER).lower()
    assert tags["run_id"] == "r1"
    assert ((tags.get("auroc"), tags.get("ece")) == ("0.91", "0.03")) is is_told
    assert ("auroc" in tags) is is_told
