"""Files of ZeRO settings hold ZeRO settings only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.config.run import RunConfig, settings
from clsgen_dist.config.zero import ALLOWED, OWNED, offloads, read_zero, zero_stage
from clsgen_dist.errors import ConfigError

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "ds_configs").glob("*.json"))


def write(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "zero.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def refused(path: str) -> str:
    with pytest.raises(ConfigError) as error:
        read_zero(path)
    return str(error.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_read(path: Path) -> None:
    settings_of_zero = read_zero(str(path))
    assert zero_stage(settings_of_zero) == (2 if path.name.startswith("zero2") else 3)
    assert offloads(settings_of_zero, "optimizer") == offloads(settings_of_zero, "param") == ("offload" in path.name)


def test_four_files_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} >= {"zero3_bf16", "zero3_offload", "zero2_bf16", "zero3_cpu"}


@pytest.mark.parametrize("key", sorted(OWNED))
def test_a_setting_of_the_run_configuration_is_refused_and_its_owner_named(tmp_path: Path, key: str) -> None:
    message = refused(write(tmp_path, {"zero_optimization": {"stage": 3}, key: 1}))
    assert f"{key} belongs to {OWNED[key]} in the run configuration; remove it here" in message


@pytest.mark.parametrize("owner", sorted(set(OWNED.values())))
def test_owners_are_settings(owner: str) -> None:
    known = {name for name, _ in settings()}
    assert set(owner.removesuffix(" and its neighbours").split(" and ")) <= known
    assert set(RunConfig.model_fields) & {name.split(".")[0] for name in owner.split(" and ")}


def test_owned_and_allowed_are_disjoint() -> None:
    assert not OWNED.keys() & ALLOWED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ([], "expected an object with zero_optimization"),
        ({}, "expected an object with zero_optimization"),
        ({"zero_optimization": 3}, "expected an object with zero_optimization"),
        ({"zero_optimization": {}}, "stage is None, expected 2 or 3"),
        ({"zero_optimization": {"stage": 1}}, "stage is 1, expected 2 or 3"),
        ({"zero_optimization": {"stage": "3"}}, "stage is '3', expected 2 or 3"),
        ({"zero_optimization": {"stage": 3}, "zero_optimisation": {}}, "unknown setting zero_optimisation"),
        ({"zero_optimization": {"stage": 2, "offload_param": {}}}, "offload_param needs stage 3, found stage 2"),
        ({"zero_optimization": {"stage": 3, "offload_param": "cpu"}}, "offload_param is not an object"),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": None}}, "offload_optimizer is not an object"),
    ],
)
def test_what_cannot_work_is_refused_with_the_file(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, content)
    found = refused(path)
    assert message in found
    assert path in found


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(str(tmp_path / "absent.json"))


def test_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in refused(str(tmp_path))


def test_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_bytes(b'{"\xe9": 1}')
    assert "is not JSON" in refused(str(tmp_path / "zero.json"))


@pytest.mark.parametrize(
    ("place", "expected"), [(None, False), ({}, False), ({"device": "none"}, False), ({"device": "cpu"}, True)]
)
def test_offloads(place: dict[str, str] | None, expected: bool) -> None:
    zero = {"stage": 3} | ({} if place is None else {"offload_param": place})
    assert offloads({"zero_optimization": zero}, "param") is expected
