"""A command whose processes are looked at while it runs: their command lines, and what their environment holds."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.tracking.journal import journal_path, read_entries
from tests.support.tiny import ROOT

#: Longest wait for a command or for anything that it does, seconds.
LONGEST_SECONDS = 300

_NAMES = ("OPENAI_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "SOME_PRIVATE_NOTE")
#: What an environment may hold that nobody else may read.
SECRETS = {name: f"planted-{name.lower()}-0123456789" for name in _NAMES}


@dataclass
class Watched:
    """A command that runs, or has run.

    Attributes:
        process: the command itself.
        lines: command lines of all its processes, as seen so far.
        given: names of the variables that processes of Ray have.
        workers: ids of the processes of Ray Train that train.
    """

    process: subprocess.Popen[bytes]
    lines: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    workers: set[int] = field(default_factory=set)

    def look(self) -> list[psutil.Process]:
        """Notes what its processes show; returns them."""
        try:
            whole = psutil.Process(self.process.pid)
            found = [whole, *whole.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        for one in found:
            try:
                line = " ".join(one.cmdline())
                self.lines.add(line)
                if "RayTrainWorker" in line and one.ppid() not in self.workers:  # a fork is called like its parent
                    self.workers.add(one.pid)
                if line.startswith("ray::") or "raylet" in line or "gcs_server" in line:
                    self.given |= set(one.environ())
            except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
                continue
        return found

    def until(self, condition: Callable[[], bool], log: Path) -> None:
        """Looks at it until something is so. Raises AssertionError with the end of its log where it ends before."""
        end = time.monotonic() + LONGEST_SECONDS
        while not condition():
            assert self.process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < end, log.read_text(errors="replace")[-3000:]
            self.look()
            time.sleep(0.05)

    def ended(self) -> int:
        """Looks at it until it ends, or time is over; returns its exit code."""
        end = time.monotonic() + LONGEST_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            self.look()
            time.sleep(0.2)
        return self.end()

    def end(self) -> int:
        """Kills what is left of it; returns its exit code."""
        left = self.look()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        kill(left)
        return self.process.returncode


def kill(processes: Sequence[psutil.Process]) -> None:
    """kill -9, and waits until they are gone."""
    for one in processes:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)


def watched(command: Sequence[str], environment: Mapping[str, str], log: Path, errors: Path | None = None) -> Watched:
    """Starts a command in the project's folder; what it says is added to `log`, on stderr to `errors`, if given."""
    with log.open("ab") as out, (errors or log).open("ab") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, cwd=ROOT, env=dict(environment), start_new_session=True
        )
    return Watched(process)


def telling_secrets(lines: set[str], *folders: Path) -> list[str]:
    """Command lines and files with a secret in them, and which."""
    shown = [f"{line[:80]}: {name}" for line in lines for name, secret in SECRETS.items() if secret in line]
    return shown + [
        f"{path}: {name}"
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]


def told_steps(config: RunConfig) -> list[tuple[int, float]]:
    """Steps that the run has told, each once, and when, in seconds of the wall clock."""
    path = journal_path(RunFolder(config.folder).path)
    if not path.exists():
        return []
    entries = [entry.content for entry in read_entries(path) if entry.kind == "metrics"]
    return [(entry["step"], entry["time"] / 1000) for entry in entries if "train/loss" in entry["metrics"]]


def last_step(config: RunConfig) -> int:
    """The last step that the run has told; 0 before the first one."""
    return max((step for step, _ in told_steps(config)), default=0)
