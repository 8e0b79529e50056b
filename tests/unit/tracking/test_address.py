"""Addresses of MLflow that can never work, and those that must not be written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from clsgen_dist.config.services import Tracking, without_secret
from clsgen_dist.errors import ConfigError, TrackingError
from clsgen_dist.tracking.address import check_address, is_local


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("htp://mlflow:5000", "unknown kind 'htp'"),
        ("s3://bucket", "unknown kind 's3'"),
        ("http://", "found no host"),
        ("http:mlflow", "found no host"),
        ("http://ml flow:5000", "found no host"),
        ("http://mlflow:port", "is no address"),
        ("http://mlflow:99999", "is no address"),
        ("http://[::1", "is no address"),
        ("sqlite://", "found no file"),
    ],
)
def test_an_address_that_is_none_is_refused(uri: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri") as refused:
        check_address(uri)
    assert expected in str(refused.value)


@pytest.mark.parametrize("uri", ["http://mlflow:5000", "https://h/path", "postgresql+psycopg2://u@h/name"])
def test_an_address_of_a_server_is_not_asked(uri: str) -> None:
    check_address(uri)
    assert not is_local(uri)


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, " * 100)
    for place in (tmp_path / "text.db", tmp_path, tmp_path / "text.db" / "below.db"):
        with pytest.raises(TrackingError, match="cannot be used"):
            check_address(f"sqlite:///{place}")
    check_address(f"sqlite:///{tmp_path}/new/mlflow.db")


@pytest.mark.parametrize(
    "uri",
    ["http://user:secret@h:5000", "postgresql://u:secret@h/n", "postgresql://h/n?sslmode=require&password=secret"],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ValueError, match="holds a password") as refused:
        without_secret(uri)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="holds a password"):
        Tracking(uri=uri)


def test_a_user_without_a_password_is_none() -> None:
    assert without_secret("postgresql://mlflow@postgres:5432/mlflow") == "postgresql://mlflow@postgres:5432/mlflow"
