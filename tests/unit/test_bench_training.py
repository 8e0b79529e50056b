"""What the training benchmark makes of what it measured."""

from __future__ import annotations

from benchmarks.training import Measured, ratios, summary


def measured(rate: float, peak: int) -> Measured:
    """One turn of two steps of 100 and 200 tokens, the processor busy on both cores; odd peaks show in the spread."""
    one = Measured()
    one.add(
        {"wall": [100 / rate, 200 / rate], "cpu": [200 / rate, 400 / rate], "peak_bytes": peak, "losses": []},
        [100, 200],
    )
    return one


def test_speeds_are_over_the_peers_and_memory_is_a_share_of_theirs() -> None:
    found = ratios({"ours": measured(300.0, 3), "trl": measured(60.0, 4), "naive": measured(150.0, 6)})

    assert found == {
        "speed_vs_naive_joint": 2.0,
        "memory_vs_naive_joint": 0.5,
        "cpu_time_vs_naive_joint": 0.5,
        "speed_vs_trl_sft": 5.0,
        "memory_vs_trl_sft": 0.75,
        "cpu_time_vs_trl_sft": 0.2,
    }


def test_turns_add_up_and_show_their_spread() -> None:
    one = measured(100.0, 3)
    one.add({"wall": [2.0], "cpu": [2.0], "peak_bytes": 5, "losses": [1.5]}, [100])

    found = summary({"ours": one})["ours"]

    assert found["tokens_per_second"] == {"median": 100.0, "lowest": 50.0, "highest": 100.0}
    assert found["peak_bytes"] == {"median": 4.0, "lowest": 3, "highest": 5}
    assert found["last_losses"] == [1.5]
