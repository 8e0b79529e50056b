"""Every bad input of the corpus through the entry that a user's input takes, and the message that it gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.hostile.corpus import Case, read_corpus
from tests.hostile.doors import DOORS, Doors

CASES = read_corpus()

#: Characters of a message that a person can read; one that is longer quotes its input.
LONGEST_MESSAGE = 4000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_bad_input_gets_the_message_that_was_written_for_it(case: Case, doors: Doors, tmp_path: Path) -> None:
    error, message = DOORS[case.door](doors, case, tmp_path)
    assert error == case.error, message
    for part in case.expected:
        assert part.replace("$HERE", str(tmp_path)) in message
    assert len(message) <= LONGEST_MESSAGE
    assert all(letter.isprintable() or letter == "\n" for letter in message), ascii(message)


def test_the_corpus_is_large_and_names_each_input_once() -> None:
    twice = [name for name, number in Counter(case.id for case in CASES).items() if number > 1]
    assert not twice
    assert len(CASES) >= 350
