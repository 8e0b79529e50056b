"""How many reasons are nearly the same words, over a stream and without holding the reasons."""

from __future__ import annotations

import functools
import hashlib
import re
import sqlite3

from datasketch import MinHash

from clsgen_dist.explain.checks import words_of

_SHINGLE_WORDS = 3
_NUM_BANDS = 4
_ROWS_A_BAND = 8
#: Draws the permutations once; copies share them.
_EMPTY = MinHash(num_perm=_NUM_BANDS * _ROWS_A_BAND, seed=1, scheme="affine32")


@functools.lru_cache(maxsize=4)  # a reason is looked up, then counted
def bands(reason: str) -> tuple[int, ...]:
    """Fingerprints of a reason, four signed 64-bit numbers; reasons of nearly the same words share one or more.

    Each is a MinHash over 8 of 32 permutations of the runs of three words; case and marks do not count, and any number
    stands for any other. Two reasons that have the share s of their runs in common (Jaccard similarity) have a
    fingerprint in common with probability 1 - (1 - s^8)^4: always at s = 1, 99 % at 0.95, 89 % at 0.9, 52 % at 0.8,
    2 % at 0.5, less than 0.1 % at 0.3. One word that differs in the middle of thirty makes s = 0.81.
    """
    words = [re.sub(r"\d+", "0", word) for word in words_of(reason)]
    num_runs = max(1, len(words) - _SHINGLE_WORDS + 1)
    sketch = _EMPTY.copy()
    sketch.update_batch([" ".join(words[start : start + _SHINGLE_WORDS]).encode() for start in range(num_runs)])
    values = sketch.hashvalues.reshape(_NUM_BANDS, _ROWS_A_BAND)
    return tuple(_number(band, row.astype("<u4").tobytes()) for band, row in enumerate(values))


def _number(band: int, values: bytes) -> int:
    digest = hashlib.blake2b(values, digest_size=8, salt=bytes([band])).digest()
    return int.from_bytes(digest, "little", signed=True)


class BandCounts:
    """Counts reasons by fingerprint in a temporary table of an SQLite connection, which SQLite keeps on disk."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Begins at nothing; of one connection only the latest counts are good."""
        self._connection = connection
        connection.execute("drop table if exists temp.band_counts")
        connection.execute("create temp table band_counts (band integer primary key, num_reasons integer not null)")

    def add(self, reason: str) -> None:
        """Counts a reason."""
        self._connection.executemany(
            "insert into temp.band_counts values (?, 1) on conflict (band) do update set num_reasons = num_reasons + 1",
            [(band,) for band in bands(reason)],
        )

    def largest(self, reason: str) -> int:
        """How many of the reasons that were added are nearly the same words: the largest count of a fingerprint."""
        (largest,) = self._connection.execute(
            f"select max(num_reasons) from temp.band_counts where band in ({', '.join('?' * _NUM_BANDS)})",  # noqa: S608
            bands(reason),
        ).fetchone()
        return int(largest or 0)
