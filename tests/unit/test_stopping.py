"""Signals as processes get them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from clsgen_dist.errors import Interrupted
from clsgen_dist.stopping import StopRequest, heeding_signals, heeding_sigterm_in_any_thread
from tests.support.tiny import ROOT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_error_outside_of_steps_and_a_note_inside(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with heeding_signals(60) as stop:
        with stop.held():
            os.kill(os.getpid(), number)
            assert stop.signal_number == number
        with pytest.raises(Interrupted) as caught:
            stop.check()
        assert caught.value.exit_code == 128 + number
        with pytest.raises(Interrupted, match="the same command goes on"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(number) is before


def test_no_signal_no_stop() -> None:
    with heeding_signals(60) as stop:
        stop.check()
    found = []
    thread = threading.Thread(target=lambda: found.append(heeding_signals(60).__enter__()))
    thread.start()
    thread.join()
    found[0].check()


@pytest.mark.parametrize(
    ("signals", "grace", "code"), [((15,), 0.2, 143), ((2, 2), 60, 130)], ids=["grace_is_over", "second_interrupt"]
)
def test_a_process_that_stands_in_foreign_code_is_ended(signals: tuple[int, ...], grace: float, code: int) -> None:
    """The main thread waits in C and never comes back to take the signal."""
    program = (
        "import ctypes\n"
        "from clsgen_dist.stopping import heeding_signals\n"
        "libc = ctypes.CDLL(None)\n"
        f"with heeding_signals({grace}) as stop, stop.held():\n"
        "    print('ready', flush=True)\n"
        "    [libc.sleep(30) for _ in range(9)]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for number in signals:
            process.send_signal(number)
            threading.Event().wait(0.3)  # two alike at once are one
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == code
    assert b"the last checkpoint is whole" in told


@pytest.mark.parametrize(
    ("grace", "body", "code", "words"),
    [
        (
            60,
            "with stop.held():\n   ready()\n   while stop.signal_number is None: time.sleep(0.02)\n",
            0,
            b"a step's end\n",
        ),
        (60, "ready()\n  time.sleep(30)\n", 143, b""),
        (0.2, "with stop.held():\n   ready()\n   time.sleep(30)\n", 143, b""),
    ],
    ids=["noted_in_a_step", "nothing_is_held", "grace_is_over"],
)
def test_sigterm_where_the_work_is_not_in_the_main_thread(grace: float, body: str, code: int, words: bytes) -> None:
    """As in a worker of Ray, whose main thread ends the process on SIGTERM unless the signal is taken."""
    program = (
        "import threading, time\n"
        "from clsgen_dist.stopping import StopRequest, heeding_sigterm_in_any_thread\n"
        "def ready(): print('ready', flush=True)\n"
        "def work():\n"
        " stop = StopRequest()\n"
        f" with heeding_sigterm_in_any_thread(stop, {grace}):\n"
        f"  {body}"
        ' print("a step\'s end", flush=True)\n'
        "thread = threading.Thread(target=work)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, said) == (code, words)


def test_sigterm_is_what_it_was_afterwards() -> None:
    with heeding_sigterm_in_any_thread(StopRequest(), 60):
        pass
    with pytest.raises(Interrupted), heeding_signals(60):
        os.kill(os.getpid(), signal.SIGTERM)
