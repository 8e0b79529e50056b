"""Addresses of MLflow that can never work, told from servers that are only away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from clsgen_dist.errors import ConfigError, TrackingError

_SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_OTHERS = ("file", "databricks")


def check_address(uri: str) -> None:
    """Looks at an address without asking it anything; a database in a file is opened.

    Raises:
        ConfigError: it is none of MLflow's.
        TrackingError: its file cannot be used.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"tracking.uri {uri}: is no address ({error}); expected one as http://HOST:5000") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme and scheme not in (*_SERVERS, *_DATABASES, *_OTHERS):
        known = ", ".join((*_SERVERS, *_DATABASES, *_OTHERS))
        raise ConfigError(f"tracking.uri {uri}: unknown kind {scheme!r}, expected one of {known}")
    if scheme in _SERVERS and (not parts.hostname or any(sign.isspace() for sign in uri)):
        raise ConfigError(f"tracking.uri {uri}: found no host, expected an address as http://HOST:5000")
    if scheme == "sqlite":
        _check_database(uri, parts.path)


def is_local(uri: str) -> bool:
    """Whether an address is a file or folder of this machine, which is never away for a while."""
    return urlsplit(uri).scheme.partition("+")[0] in ("", "file", "sqlite")


def _check_database(uri: str, path: str) -> None:
    if len(path) < 2:
        raise ConfigError(f"tracking.uri {uri}: found no file, expected an address as sqlite:///FOLDER/mlflow.db")
    place = Path(path[1:])  # sqlite:///relative, sqlite:////absolute
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(place, timeout=10)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"tracking.uri {uri}: cannot be used ({error}); expected a database of MLflow, or a place for one"
        ) from None
