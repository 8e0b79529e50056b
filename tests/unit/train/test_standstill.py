"""Who is behind where a group stands still."""

from __future__ import annotations

from clsgen_dist.train.standstill import Mark, Standstill, words_of

PLACES = {rank: f"process {rank + 100} on node" for rank in range(4)}


def test_a_mark_that_does_not_move_in_a_step_is_told_once() -> None:
    mark = Mark()
    standstill = Standstill(mark, 10.0, now=0.0)
    assert not standstill.look(100.0), "between steps"
    mark.begin_micro_batch()
    assert not standstill.look(101.0)
    assert not standstill.look(111.0)
    assert standstill.look(111.5)
    assert not standstill.look(200.0), "it was told"
    mark.begin_micro_batch()
    assert not standstill.look(201.0)
    assert standstill.look(212.0), "another one"
    mark.end_step()
    assert not standstill.look(400.0), "a checkpoint, a look at validation"


def test_the_rank_that_has_begun_fewer_is_named_by_one_that_waits() -> None:
    speaker, words = words_of({0: 7, 1: 8, 2: 8, 3: 8}, PLACES, 300.0)
    assert speaker == 1
    assert words == (
        "no micro-batch for 300 s (train.stall_seconds): rank 0 (process 100 on node) has begun 7, others 8 and wait "
        "for it"
    )
    speaker, words = words_of({0: 8, 1: 7, 2: 8, 3: 7}, PLACES, 300.0)
    assert speaker == 0
    assert "rank 1 (process 101 on node), rank 3 (process 103 on node) has begun 7" in words


def test_nobody_is_named_where_all_stand_in_the_same_one() -> None:
    speaker, words = words_of({0: 7, 1: 7}, PLACES, 300.0)
    assert speaker == 0
    assert "none can be named" in words
    assert "rank" not in words.replace("all ranks", "")
