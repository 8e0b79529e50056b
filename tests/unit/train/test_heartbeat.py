"""Signs of life between processes: one that is stopped is named and ended, one that ends in order is not missed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from clsgen_dist.train.heartbeat import HUNG, Sign, Watch
from tests.support.tiny import ROOT

PROGRAM = """
import sys, time
from pathlib import Path
from clsgen_dist.train.heartbeat import heartbeat

rank, seconds = int(sys.argv[2]), float(sys.argv[3])
with heartbeat(Path(sys.argv[1]), rank, range(2), 1.5, lambda message: print(message, flush=True)):
    print("ready", flush=True)
    time.sleep(seconds)
"""


def start(folder: Path, rank: int, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(folder), str(rank), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_stopped_process_is_named_and_killed(tmp_path: Path) -> None:
    one, other = start(tmp_path / "signs", 0, 60), start(tmp_path / "signs", 1, 60)
    try:
        while not (tmp_path / "signs" / "1").exists():
            time.sleep(0.05)
        time.sleep(1.0)
        other.send_signal(signal.SIGSTOP)
        told, _ = one.communicate(timeout=30)
        assert one.returncode == HUNG
        assert told.startswith(f"rank 1 (process {other.pid} on ")
        assert "has given no sign of life for 1.5 s (train.hang_seconds)" in told
        assert other.wait(timeout=10) == -signal.SIGKILL
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


def test_a_process_that_ends_earlier_is_not_missed(tmp_path: Path) -> None:
    one, other = start(tmp_path / "signs", 0, 5), start(tmp_path / "signs", 1, 1)
    assert one.communicate(timeout=30)[0] == ""
    assert other.communicate(timeout=30)[0] == ""
    assert (one.returncode, other.returncode) == (0, 0)
    assert not (tmp_path / "signs").exists()


def test_when_a_sign_is_too_old(tmp_path: Path) -> None:
    path, watch = tmp_path / "0", Watch(tmp_path / "0", 10.0)
    now = time.monotonic()
    assert watch.look(now + 100) is None, "a rank that has not begun"
    sign = Sign(1, 5, "node", 7)
    path.write_text(json.dumps(vars(sign)))
    assert watch.look(now + 101) is None
    assert watch.look(now + 111) is None
    assert watch.look(now + 111.5) == sign
    path.write_text(json.dumps(vars(sign) | {"count": 2}))
    assert watch.look(now + 112) is None, "it was late and lives"
    path.write_text("{")
    assert watch.look(now + 200) is None, "half a file is no hang"
    path.unlink()
    assert watch.look(now + 300) is None
    assert watch.look(now + 400) is None, "it has ended in order"
