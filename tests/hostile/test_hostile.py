"""Every bad input of the corpus through the entry that a user's input takes, and the message that it gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.hostile.corpus import Case, read_corpus
from tests.hostile.doors import DOORS, Doors
from tests.hostile.run_doors import RUN_DOORS

CASES = read_corpus()

#: Characters of a message that a person can read; one that is longer quotes its input.
LONGEST_MESSAGE = 4000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_bad_input_gets_the_message_that_was_written_for_it(case: Case, doors: Doors, tmp_path: Path) -> None:
    error, message = {**DOORS, **RUN_DOORS}[case.door](doors, case, tmp_path)
    assert error == case.error, message
    for part in case.expected:
        assert part.replace("$HERE", str(tmp_path)) in message
    assert len(message) <= LONGEST_MESSAGE
    assert all(letter.isprintable() or letter == "\n" for letter in message), ascii(message)


def test_the_corpus_is_large_and_names_each_input_once() -> None:
    twice = [name for name, number in Counter(case.id for case in CASES).items() if number > 1]
    assert not twice
    assert len(CASES) >= 500


def test_nothing_in_a_pickle_runs(doors: Doors, tmp_path: Path) -> None:
    """The pickles of the corpus make a folder where they are loaded; here is the proof that they would."""
    import pickle

    from tests.hostile.makers import pickle_for_head

    (tmp_path / "bundle").mkdir()
    pickle_for_head(tmp_path / "bundle")
    pickle.loads((tmp_path / "bundle" / "head.safetensors").read_bytes())
    assert (tmp_path / "taken").is_dir()
    cases = [case for case in CASES if case.make in ("pickle_for_head", "pickle_for_adapter", "pickle_for_model")]
    assert len(cases) == 3
    for number, case in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        DOORS[case.door](doors, case, place)
        assert not (place / "taken").exists()
