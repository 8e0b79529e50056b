"""Layers that are computed again: the same gradients, and what is kept, where."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import nn

from clsgen_dist.data.batch import collate
from clsgen_dist.errors import ConfigError
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.recomputation import recomputable_layers, recompute_layers
from tests.support.tiny import tiny_dual, tiny_tokenized

ROWS = tiny_tokenized([(5, 4), (20, 9), (1, 0), (3, 1), (14, 0), (7, 6)])


def model_with(policy: str, *, lora: bool = True, inputs_on_host: bool = False) -> DualHead:
    """Three layers, dropout at work where there is an adapter."""
    model = tiny_dual("gemma3", lora=lora).train()
    for module in model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = nn.Dropout(0.3)
    recompute_layers(model.backbone, policy, inputs_on_host=inputs_on_host)
    return model


def loss_of(model: DualHead) -> torch.Tensor:
    batch = collate(ROWS)
    torch.manual_seed(5)
    output = model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
    return torch.as_tensor(output.cls_logits_EK.logsumexp(-1).sum() + output.lm_logits_NV.logsumexp(-1).sum())


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
@pytest.mark.parametrize("policy", ["selective", "full"])
@pytest.mark.parametrize("inputs_on_host", [False, True], ids=["device", "host"])
def test_no_gradient_changes(policy: str, lora: bool, inputs_on_host: bool) -> None:
    gradients = []
    for model in (model_with("none", lora=lora), model_with(policy, lora=lora, inputs_on_host=inputs_on_host)):
        loss_of(model).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert gradient is not None
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(recomputed[name], gradient, atol=0, rtol=0)


@pytest.mark.parametrize(("policy", "expected"), [("none", [1, 1, 1]), ("selective", [2, 1, 2]), ("full", [2, 2, 2])])
def test_every_second_layer_or_all_are_computed_twice(policy: str, expected: list[int]) -> None:
    model = model_with(policy)
    counts = [0, 0, 0]

    def count(number: int) -> Any:
        def hook(*_: Any) -> None:
            counts[number] += 1

        return hook

    layers = recomputable_layers(model.backbone)
    for number, layer in enumerate(layers):
        layer.self_attn.register_forward_hook(count(number))
    loss_of(model).backward()
    assert counts == expected


@pytest.mark.parametrize("inputs_on_host", [False, True], ids=["device", "host"])
def test_inputs_of_recomputed_layers_move_away_and_nothing_else_does(inputs_on_host: bool) -> None:
    """Between the passes nobody but the checkpoint holds what came into a layer; a copy elsewhere sets it free."""
    model = model_with("full", inputs_on_host=inputs_on_host)
    came_in: list[weakref.ref[torch.Tensor]] = []
    moved: list[torch.Size] = []
    cpu = torch.Tensor.cpu

    def noted(tensor: torch.Tensor, *words: Any, **options: Any) -> torch.Tensor:
        moved.append(tensor.shape)
        return cpu(tensor, *words, **options).clone()

    for layer in recomputable_layers(model.backbone)[1:]:
        layer.register_forward_pre_hook(lambda _, inputs: came_in.append(weakref.ref(inputs[0])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", noted)
        loss = loss_of(model)
    alive = [one() is not None for one in came_in]
    assert alive == [not inputs_on_host] * 2
    assert len(moved) == (3 if inputs_on_host else 0), "the input of each of three layers; no weight, nothing within"
    assert len(set(moved)) <= 1
    loss.backward()


def test_a_family_that_cannot_is_refused() -> None:
    model = tiny_dual("llama")
    model.backbone.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"model.gradient_checkpointing: this family"):
        recompute_layers(model.backbone, "full")
