"""The scaling model against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clsgen_dist.scaling import (
    INTERCONNECTS,
    SIZES,
    Interconnect,
    Load,
    communication_seconds,
    efficiency,
    gathered_and_reduced_bytes,
    operations,
    render_scaling,
    tokens_to_hide,
)

LORA = Load(num_parameters=1000, num_trainable=10, num_tokens=50, bytes_a_number=2, recomputed_share=0.0)
FULL = Load(num_parameters=1000, num_trainable=1000, num_tokens=50, bytes_a_number=2, recomputed_share=0.0)
SAVING = Load(num_parameters=1000, num_trainable=10, num_tokens=50, bytes_a_number=2, recomputed_share=1.0)
LINKS = Interconnect("made up", 8, 100.0, 400.0)


def test_full_training_takes_six_operations_a_parameter_and_a_frozen_backbone_four() -> None:
    assert operations(FULL) == 50 * 6 * 1000
    assert operations(LORA) == 50 * (4 * 1000 + 2 * 10)
    assert operations(SAVING) == 50 * (6 * 1000 + 2 * 10)
    assert operations(replace(SAVING, recomputed_share=0.5)) == 50 * (5 * 1000 + 2 * 10)


@pytest.mark.parametrize(
    ("load", "stage", "expected"),
    [
        (FULL, 3, 2 * 3 * 1000),
        (FULL, 2, 2 * 2 * 1000),
        (LORA, 3, 2 * (2 * 1000 + 10)),
        (LORA, 2, 2 * 20),
        (SAVING, 3, 2 * (3 * 1000 + 10)),
    ],
)
def test_bytes_of_the_stages(load: Load, stage: int, expected: float) -> None:
    assert gathered_and_reduced_bytes(load, stage) == expected


def test_the_slowest_link_counts() -> None:
    assert communication_seconds(FULL, 3, 1, LINKS) == 0
    assert communication_seconds(FULL, 3, 8, LINKS) == pytest.approx(6000 * 7 / 8 / 100)
    thin = Interconnect("thin", 8, 100.0, 10.0)
    assert communication_seconds(FULL, 3, 16, thin) == pytest.approx(6000 / 2 / 10)


def test_efficiency_is_one_alone_and_falls_with_what_is_moved() -> None:
    assert efficiency(FULL, 3, 1, LINKS, 1e4) == (1.0, 1.0)
    compute, moved = 50 * 6 * 1000 / 1e4, 6000 * 7 / 8 / 100
    assert efficiency(FULL, 3, 8, LINKS, 1e4) == pytest.approx((compute / (compute + moved), compute / moved))
    assert efficiency(LORA, 2, 64, LINKS, 1e4)[0] > efficiency(LORA, 3, 64, LINKS, 1e4)[0]


@pytest.mark.parametrize("links", INTERCONNECTS, ids=lambda links: links.name)
def test_enough_tokens_hide_all_communication(links: Interconnect) -> None:
    tokens = tokens_to_hide(LORA, 64, links, 1e12)
    assert efficiency(replace(LORA, num_tokens=int(tokens * 2) + 1), 3, 64, links, 1e12)[1] == 1.0
    assert efficiency(replace(LORA, num_tokens=1), 3, 64, links, 1e12)[1] == pytest.approx(min(1.0, 1 / tokens))


def test_a_plan_says_how_a_run_would_grow() -> None:
    lines = render_scaling(LORA, 3)
    assert "ZeRO-3, 50 tokens" in lines[0]
    assert [line.split("  ")[1] for line in lines[2:]] == [links.name for links in INTERCONNECTS]
    assert all(line.count("%") == len(SIZES) for line in lines[2:])
