"""A real PostgreSQL on loopback with a database and a password of its own; from Debian, started without rights."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

#: Stands in no address and no command line; a test looks for it there.
PASSWORD = "pg-secret-5d1f"
_PLACES = "/usr/lib/postgresql"


@dataclass(frozen=True)
class Database:
    """Attributes: port at 127.0.0.1, address without password."""

    port: int

    @property
    def address(self) -> str:
        return f"postgresql://mlflow@127.0.0.1:{self.port}/mlflow"


def programs() -> Path:
    """Folder of initdb and pg_ctl; skips the test where there is none."""
    found = sorted(Path(_PLACES).glob("*/bin/initdb"), key=lambda path: int(path.parents[1].name))
    if not found:
        pytest.skip("needs PostgreSQL (apt-get install postgresql)")
    return found[-1].parent


@contextmanager
def postgres() -> Iterator[Database]:
    """Makes a cluster in a folder of its own and ends it; skips the test where there is no PostgreSQL."""
    place, folder = programs(), Path(tempfile.mkdtemp(prefix="clsgen-postgres-"))
    user = _unprivileged()
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    if user is not None:
        for path in (folder, secret):
            os.chown(path, user.pw_uid, user.pw_gid)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *words: str) -> None:
        rights = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        log = folder / "commands.log"
        with log.open("ab") as file:
            done = subprocess.run(
                [str(place / program), *words], cwd=folder, stdout=file, stderr=file, check=False, timeout=120, **rights
            )
        assert done.returncode == 0, log.read_text(errors="replace")

    data = folder / "data"
    try:
        words = ("--username=mlflow", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync")
        call("initdb", f"--pgdata={data}", "--locale=C.UTF-8", *words)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "start", "-w", f"--pgdata={data}", f"--log={folder}/server.log", "-o", options)
        try:
            environment = os.environ | {"PGPASSWORD": PASSWORD}
            connect = ("-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow")
            subprocess.run([str(place / "createdb"), *connect], env=environment, check=True, timeout=60)
            yield Database(port)
        finally:
            call("pg_ctl", "stop", "-m", "immediate", "-w", f"--pgdata={data}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses root, and there is no other user")
