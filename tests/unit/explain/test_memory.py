"""Answers and outcomes outlive the process, and begin anew only where the settings changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clsgen_dist.chat.interface import Completion
from clsgen_dist.errors import TeacherError
from clsgen_dist.explain.memory import FAILED, KEPT, UNLABELLED_ROW, ClassCount, Outcome, TeacherMemory

ANSWER = Completion(text="Because of it.", prompt_tokens=11, completion_tokens=4)
FAULT = Completion(text="", prompt_tokens=7, completion_tokens=0, fault="empty")
OUTCOMES = (
    Outcome(number=0, label=1, status=KEPT, reason="a", attempts=1, blind=1, asked_blind=True),
    Outcome(number=1, label=1, status=FAILED, cause="told", attempts=2, asked_blind=True, refused=("empty", "told")),
    Outcome(number=2, label=0, status=KEPT, reason="b", attempts=5, rescue=True),
    Outcome(number=3, label=-1, status=UNLABELLED_ROW),
)


def test_answers_are_recalled_and_counted_once(tmp_path: Path) -> None:
    memory = TeacherMemory(tmp_path / "m.sqlite")
    assert memory.recall("k") is None
    for key, answer in (("k", ANSWER), ("k", ANSWER), ("f", FAULT)):
        memory.remember(key, answer)
    assert (memory.recall("k"), memory.recall("f")) == (ANSWER, FAULT)
    assert (memory.num_answers, memory.usage.prompt_tokens, memory.usage.completion_tokens) == (2, 18, 4)
    memory.close()
    again = TeacherMemory(tmp_path / "m.sqlite")
    assert (again.num_answers, again.usage.prompt_tokens, again.usage.completion_tokens) == (2, 18, 4)
    again.close()


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    memory = TeacherMemory(tmp_path / "m.sqlite")
    for outcome in reversed(OUTCOMES):
        memory.keep_outcome("train", outcome)
    assert list(memory.outcomes("train")) == list(OUTCOMES)
    assert memory.outcome("train", 1) == OUTCOMES[1]
    assert memory.outcome("validation", 1) is None
    assert memory.class_counts("train") == {
        -1: ClassCount(1, 0, 0, 0),
        0: ClassCount(1, 1, 1, 0),
        1: ClassCount(2, 1, 0, 1),
    }
    assert memory.num_tried_again("train") == 1
    memory.close()


def test_many_outcomes_are_read_in_pages_while_some_change(tmp_path: Path) -> None:
    memory = TeacherMemory(tmp_path / "m.sqlite")
    for number in range(2500):
        memory.keep_outcome("train", Outcome(number=number, label=0, status=KEPT, reason=str(number)))
    seen = []
    for outcome in memory.outcomes("train"):
        seen.append(outcome.number)
        memory.keep_outcome("train", Outcome(number=outcome.number, label=0, status=FAILED))
    assert seen == list(range(2500))
    memory.close()


def test_other_settings_begin_outcomes_anew_and_keep_answers(tmp_path: Path) -> None:
    memory = TeacherMemory(tmp_path / "m.sqlite")
    memory.start("one")
    memory.remember("k", ANSWER)
    memory.keep_outcome("train", OUTCOMES[0])
    memory.keep_fact("first_counts", "{}")
    memory.start("one")
    assert memory.outcome("train", 0) == OUTCOMES[0]
    assert memory.fact("first_counts") == "{}"
    memory.start("two")
    assert memory.outcome("train", 0) is None
    assert memory.fact("first_counts") is None
    assert memory.recall("k") == ANSWER
    memory.close()


def test_what_was_kept_survives_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from clsgen_dist.explain.memory import TeacherMemory\n"
        "from clsgen_dist.chat.interface import Completion\n"
        "memory = TeacherMemory(Path(sys.argv[1]))\n"
        "for n in range(100):\n"
        "    memory.remember(str(n), Completion(text='x', prompt_tokens=1, completion_tokens=1))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "m.sqlite"
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(TeacherError, match="another process may be writing"):
        TeacherMemory(path, patience_seconds=0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    memory = TeacherMemory(path)
    assert (memory.num_answers, memory.usage.tokens) == (100, 200)
    memory.close()


def test_a_file_that_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "m.sqlite").write_bytes(b"thesis" * 1000)
    with pytest.raises(TeacherError, match="cannot be used"):
        TeacherMemory(tmp_path / "m.sqlite")
    assert (tmp_path / "m.sqlite").read_bytes() == b"thesis" * 1000
