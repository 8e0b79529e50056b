"""What the training benchmark makes of what it measured."""

from __future__ import annotations

import pytest

from benchmarks.training import Measured, ratios, summary
from benchmarks.training_techniques import table, without
from clsgen_dist.data.batch import collate
from clsgen_dist.objective import Weights, loss_sums
from tests.support.tiny import tiny_dual, tiny_tokenized


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


@pytest.mark.parametrize("technique", ["lines", "chunks", "positions"])
def test_a_technique_that_is_switched_off_changes_no_loss(technique: str) -> None:
    model, rows = tiny_dual("llama", lora=True), tiny_tokenized([(5, 4), (20, 9), (3, 1), (14, 6), (7, 6)])

    def losses() -> tuple[float, float, int]:
        batch = collate(rows)
        output = model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
        logits = (output.cls_logits_EK, batch.labels, output.lm_logits_NV, batch.lm_targets, batch.lm_rows)
        num_labels = output.cls_logits_EK.shape[1]
        sums = loss_sums(*logits, None, Weights(1.0, 1.0, 0.0, 0.0, (1.0,) * num_labels))
        (sums.cls + sums.lm).backward()
        gradient = sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None)
        model.zero_grad()
        return (sums.cls + sums.lm).item(), gradient, len(batch.input_ids)

    with_it = losses()
    with without(technique):
        off = losses()
    assert off[:2] == pytest.approx(with_it[:2], rel=1e-5)
    assert with_it[1] > 0
    assert (off[2] == len(rows)) == (technique == "lines")
    assert losses() == pytest.approx(with_it)


def test_what_a_technique_brings_is_told_as_a_share_of_ours() -> None:
    assert table({"ours": measured(300.0, 4), "lines": measured(200.0, 6)}).splitlines()[2:] == [
        "| ours | 1.00 | 300 (300 to 300) | 1.00 |",
        "| lines | 1.50 | 200 (200 to 200) | 1.50 |",
    ]
