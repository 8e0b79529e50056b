"""Near-duplicates of reasons, counted by fingerprint."""

import random
import sqlite3
import string
import subprocess
import sys

import pytest

from clsgen_dist.explain.duplicates import BandCounts, bands

REASON = (
    "The patient has had chest pain for 2 hours and a blood pressure of 90 over 60, and this speaks for an urgent look."
)


def some_words(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(count)]


def test_case_marks_and_numbers_do_not_count() -> None:
    other = REASON.upper().replace(",", " -").replace("2", "13").replace("90", "85").replace("60", "7")
    assert bands(other) == bands(REASON)
    assert len(set(bands(REASON))) == 4
    assert all(-(2**63) <= band < 2**63 for band in bands(REASON))


def test_other_reasons_of_the_same_topic_share_nothing() -> None:
    others = (
        "Chest pain for 2 hours with a blood pressure of 90 over 60 is a sign of shock.",
        "The patient has had a cold for 2 days and a blood pressure of 120 over 80, and nothing speaks for haste.",
        "An urgent look is needed: pain in the chest, low pressure.",
        "The patient has had chest pain before, and an old record explains it.",
    )
    assert not any(set(bands(REASON)) & set(bands(other)) for other in others)


@pytest.mark.parametrize("reason", ["", "...", "Yes.", "是", "高烧四十度", "Two words"])
def test_short_reasons_have_fingerprints_too(reason: str) -> None:
    assert len(set(bands(reason))) == 4
    assert bands(reason) == bands(f" {reason}\n")


def test_similarity_decides_how_often_two_reasons_meet() -> None:
    """One word of thirty differs: similarity 25/31, which meets with probability 0.54."""
    rng = random.Random(0)
    num_pairs, num_met = 400, 0
    for _ in range(num_pairs):
        words = some_words(rng, 30)
        other = [*words[:15], "different", *words[16:]]
        num_met += bool(set(bands(" ".join(words))) & set(bands(" ".join(other))))
    similarity = 25 / 31
    expected = 1 - (1 - similarity**8) ** 4
    assert abs(num_met / num_pairs - expected) < 0.1


def test_half_of_the_words_in_common_seldom_meet() -> None:
    rng = random.Random(1)
    met = 0
    for _ in range(200):
        words = some_words(rng, 30)
        met += bool(set(bands(" ".join(words))) & set(bands(" ".join([*words[:20], *some_words(rng, 10)]))))
    assert met <= 12  # similarity 18/38: 1 % expected


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = f"from clsgen_dist.explain.duplicates import bands; print(bands({REASON!r}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(bands(REASON))


def test_counts_grow_with_each_nearly_equal_reason() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    counts = BandCounts(connection)
    assert counts.largest(REASON) == 0
    for number in range(5):
        counts.add(REASON.replace("2 hours", f"{number} hours"))
    counts.add("The dog is asleep on a sofa in the sun.")
    assert counts.largest(REASON) == 5
    assert counts.largest("The dog is asleep on a sofa, in the SUN") == 1
    assert counts.largest("A cat runs over a street at night.") == 0
    assert BandCounts(connection).largest(REASON) == 0
    connection.close()


def test_counts_leave_nothing_in_the_file(tmp_path) -> None:
    connection = sqlite3.connect(tmp_path / "memory.sqlite", isolation_level=None)
    BandCounts(connection).add(REASON)
    connection.close()
    connection = sqlite3.connect(tmp_path / "memory.sqlite")
    assert connection.execute("select count(*) from sqlite_master").fetchone() == (0,)
    connection.close()
