"""What one rank holds of each trainable parameter: fp32 master weights and AdamW moments, as views by name.

ZeRO lays parameters end to end and cuts the whole into shares, so a rank holds a piece of some parameters, from an
offset on. Named and with its offset, a piece fits into any other cut: a checkpoint that is written by two ranks is read
by three. The views are DeepSpeed's own memory, so what is copied into them is what training goes on with.

Source: attributes of DeepSpeed 0.19.8, `runtime/zero/stage3.py` and `runtime/zero/stage_1_and_2.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

#: What is kept of each parameter. The names of the moments are those of torch.optim.AdamW.
MASTER = "master"
MOMENTS = ("exp_avg", "exp_avg_sq")
PARTS = (MASTER, *MOMENTS)


class Fragment(NamedTuple):
    """One rank's piece of a parameter.

    Attributes:
        name: of the parameter.
        start: offset of the piece in the flattened parameter, elements.
        parts: the piece of each of `PARTS`; fp32, shape (elements,), views.
    """

    name: str
    start: int
    parts: dict[str, torch.Tensor]


def fragments(zero: Any, trainable: Mapping[str, nn.Parameter], rank: int) -> Iterator[Fragment]:
    """The pieces that this rank holds. Where nothing was optimized yet, the moments are made, as zeros.

    Args:
        zero: DeepSpeed's optimizer of stage 2 or 3, whose inner optimizer is AdamW.
        trainable: parameters by name.
        rank: this one.
    """
    for name, parameter in trainable.items():
        found = _piece(zero, parameter, rank)
        if found is None:
            continue
        flat, offset, start, numel = found
        state = _state(zero, flat)
        whole = {MASTER: flat, **{moment: state[moment] for moment in MOMENTS}}
        yield Fragment(name, start, {part: tensor.detach().narrow(0, offset, numel) for part, tensor in whole.items()})


def _piece(zero: Any, parameter: Any, rank: int) -> tuple[torch.Tensor, int, int, int] | None:
    """Flat share, offset there, offset in the parameter, elements; None where this rank holds nothing of it."""
    if hasattr(parameter, "ds_id"):
        group, offset, share = zero.grad_position[zero.get_param_id(parameter)]
        start = rank * int(share)
        numel = min(int(share), int(parameter.ds_numel) - start)  # the last shares are padded
        flat = zero.fp32_partitioned_groups_flat[group]
    else:
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
        offset, start = mapping.hp_fragment_address.start, int(mapping.lp_fragment_address.start)
        numel = int(mapping.hp_fragment_address.numel)
    return (flat, int(offset), start, numel) if numel > 0 else None


def _state(zero: Any, flat: torch.Tensor) -> dict[str, Any]:
    """AdamW's state of a flat share; that of before the first update where there is none."""
    state: dict[str, Any] = zero.optimizer.state[flat]
    if not state:
        state |= {moment: torch.zeros_like(flat) for moment in MOMENTS} | {"step": _count(zero, flat, 0)}
    return state


def _count(zero: Any, flat: torch.Tensor, num_steps: int) -> torch.Tensor:
    """A count of updates; a tensor for each share, since one that they shared would be counted up by all of them."""
    fused = any(group.get("fused") for group in zero.optimizer.param_groups)
    return torch.tensor(float(num_steps), dtype=torch.float32, device=flat.device if fused else "cpu")


def optimizer_steps(zero: Any) -> int:
    """Updates that AdamW has counted, for the correction of its bias; 0 before the first."""
    counts = [int(_state(zero, flat)["step"]) for flat in _flat_shares(zero)]
    return max(counts, default=0)


def restore(zero: Any, num_steps: int) -> None:
    """Makes the weights in use those of the masters, and the count of updates `num_steps`. All ranks call it."""
    for flat in _flat_shares(zero):
        _state(zero, flat)["step"] = _count(zero, flat, num_steps)
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        zero.checkpoint_event_prologue()
        for group in range(len(zero.fp32_partitioned_groups_flat)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        zero.checkpoint_event_epilogue()
    else:
        zero.update_lp_params()


def _flat_shares(zero: Any) -> list[torch.Tensor]:
    if hasattr(zero, "fp32_partitioned_groups_flat"):
        return list(zero.fp32_partitioned_groups_flat)
    return list(zero.single_partition_of_fp32_groups)
