"""What is built from a configuration, what is refused, and what the parts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from clsgen_dist.config.sections import Lora, Model
from clsgen_dist.data.batch import collate
from clsgen_dist.errors import ConfigError
from clsgen_dist.model.build import build_model, build_skeleton, check_causal, parameter_groups, read_backbone_config
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.heads import ClassificationHead
from tests.support.tiny import FAMILIES, shared_backbone, tiny_dual, tiny_model, tiny_tokenized

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.15,
}


def build(family: str = "llama", *, dtype: torch.dtype = torch.float32, seed: int = 1, **settings: Any) -> DualHead:
    folder = shared_backbone(family)
    settings = {"lora": Lora(rank=4, alpha=8.0), **settings}
    return build_model(Model(name_or_path=folder, **settings), folder, 3, dtype=dtype, seed=seed)


def foreign(name: str, **shape: Any) -> DualHead:
    """A DualHead on a family that is not among the tested ones."""
    config = getattr(transformers, name)(**SIZES | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0} | shape)
    return DualHead(AutoModelForCausalLM.from_config(config).eval(), ClassificationHead(32, 2, seed=0))


def refused(place: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        build_skeleton(Model(name_or_path=str(place), **settings), str(place), 2)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("T5Config", {"d_model": 32, "num_layers": 2, "num_heads": 4}, "t5"),
        ("BertConfig", {"hidden_size": 32, "architectures": ["BertForMaskedLM"]}, "bert"),
        ("BartConfig", {"d_model": 32}, "bart"),
        ("ViTConfig", {"hidden_size": 32}, "vit"),
    ],
)
def test_a_backbone_that_is_no_causal_language_model(tmp_path: Path, name: str, shape: Any, kind: str) -> None:
    getattr(transformers, name)(**shape).save_pretrained(tmp_path)
    message = refused(tmp_path)
    assert message.startswith(f"model.name_or_path: {tmp_path} is a {kind} model (")
    assert "expected a decoder-only causal language model (Llama, Qwen, Gemma, Mistral, ...)" in message


def test_a_folder_without_a_backbone(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(f"model.name_or_path: no backbone at {tmp_path} (")
    (tmp_path / "config.json").write_text('{"model_type": "nonesuch"}', encoding="utf-8")
    assert refused(tmp_path).startswith(f"model.name_or_path: no backbone at {tmp_path} (")


@pytest.mark.parametrize("targets", ["attn_qkv", ["query", "value"], r".*\.attention\..*"])
def test_lora_targets_that_match_nothing(targets: str | list[str]) -> None:
    lora = Lora(target_modules=targets)
    message = refused(Path(shared_backbone()), lora=lora)
    assert message.startswith(f"model.lora.target_modules: {targets!r} matches no module of the backbone")
    assert "its linear layers are down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in message
    with pytest.raises(ConfigError, match="matches no module"):
        build(lora=lora)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [Lora(rank=4), None], ids=["lora", "full"])
def test_the_skeleton_counts_what_is_built(family: str, lora: Lora | None) -> None:
    folder = shared_backbone(family)
    skeleton = build_skeleton(Model(name_or_path=folder, lora=lora), folder, 3)
    real = build(family, lora=lora)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    counts = [{n: (p.shape, p.requires_grad) for n, p in model.named_parameters()} for model in (skeleton, real)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_pass_the_check(family: str) -> None:
    model = build(family).train()
    check_causal(model)
    assert model.training


def test_attention_that_is_not_causal_is_refused() -> None:
    with pytest.raises(ConfigError, match="a later token changes an earlier state: not a causal language model"):
        check_causal(tiny_dual("gemma3", use_bidirectional_attention=True))


def test_logits_that_change_after_the_output_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match="changes its logits after the output layer"):
        check_causal(foreign("GraniteConfig", intermediate_size=64, logits_scaling=8.0))
    check_causal(foreign("GraniteConfig", intermediate_size=64, logits_scaling=1.0))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("BloomConfig", {"n_layer": 2, "n_head": 4}),
        ("FalconConfig", {}),
        ("MambaConfig", {"state_size": 8}),
        ("OPTConfig", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    ],
)
def test_families_whose_packed_rows_read_each_other_are_refused(name: str, shape: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="lets packed rows read each other"):
        check_causal(foreign(name, **shape))


def test_logits_are_capped_as_gemma_2_wants_it() -> None:
    model = foreign(
        "Gemma2Config", intermediate_size=64, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.5
    )
    check_causal(model)
    batch = collate(tiny_tokenized([(4, 3)]))
    assert model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index).lm_logits_NV.abs().max() <= 0.5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [Lora(rank=4), None], ids=["lora", "full"])
def test_every_trainable_parameter_stands_in_one_group(family: str, lora: Lora | None) -> None:
    model = build(family, lora=lora)
    groups = parameter_groups(model, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.1)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert all(group["params"] for group in groups)
    rates = {(group["name"], group["weight_decay"]): group["lr"] for group in groups}
    assert len(rates) == len(groups)
    assert {name: rate for (name, _), rate in rates.items()} == {"backbone": 1e-4, "head": 1e-3}
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}
    head = {id(parameter) for parameter in model.head.parameters()}
    assert {id(p) for group in groups if group["name"] == "head" for p in group["params"]} == head


def test_no_decay_makes_one_group_a_part() -> None:
    groups = parameter_groups(build(), learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.0)
    assert sorted(group["name"] for group in groups) == ["backbone", "head"]


def test_only_adapter_and_head_are_trained() -> None:
    names = [name for name, parameter in build().named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name or name.startswith("head.") for name in names)
    assert sum(".lora_A." in name for name in names) == 2 * 7, "all linear layers of two layers, the output layer not"
    assert all(parameter.requires_grad for parameter in build(lora=None).parameters())


def test_lora_settings_are_those_of_the_configuration() -> None:
    lora = build(lora=Lora(rank=3, alpha=7.5, dropout=0.25, target_modules=["q_proj"])).backbone.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules) == (3, 7.5, 0.25, {"q_proj"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_weights_have_one_number_format(dtype: torch.dtype) -> None:
    assert {parameter.dtype for parameter in build(dtype=dtype).parameters()} == {dtype}


def test_the_same_seed_draws_the_same_adapter_and_head() -> None:
    torch.manual_seed(5)
    one = dict(build(seed=1).named_parameters())
    torch.manual_seed(6)
    two, other = dict(build(seed=1).named_parameters()), dict(build(seed=2).named_parameters())
    differ = {name for name, parameter in one.items() if not torch.equal(parameter, other[name])}
    assert all(torch.equal(parameter, two[name]) for name, parameter in one.items())
    assert "head.weight" in differ
    assert any("lora_A" in name for name in differ)


def test_building_leaves_the_random_numbers_as_they_were() -> None:
    build()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build()
    assert torch.equal(torch.rand(1), expected)


def test_the_head_answers_in_fp32_out_of_bf16() -> None:
    head = ClassificationHead(32, 3, seed=0).to(torch.bfloat16)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    logits = head(hidden)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, hidden.float() @ head.weight.float().T + head.bias.float())
    assert not torch.equal(logits, logits.to(torch.bfloat16).float()), "rounded"


def test_the_first_probabilities_are_near_even() -> None:
    logits = ClassificationHead(64, 4, seed=0)(torch.randn(100, 64))
    assert (logits.softmax(-1) - 0.25).abs().max() < 0.1
    assert logits.std() > 0


def test_a_fresh_adapter_changes_nothing() -> None:
    batch = collate(tiny_tokenized([(4, 3)]))
    outputs = [
        model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
        for model in (build(), build(lora=None))
    ]
    assert torch.allclose(outputs[0].lm_logits_NV, outputs[1].lm_logits_NV, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_adapter_off_it_is_the_base_model(family: str) -> None:
    batch = collate(tiny_tokenized([(4, 3), (6, 2)]))
    inputs = (batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
    tuned, base = tiny_dual(family, lora=True), tiny_dual(family)
    output = tuned(*inputs, with_base=True)
    assert torch.allclose(output.base_lm_logits_NV, base(*inputs).lm_logits_NV, atol=1e-5)
    assert not output.base_lm_logits_NV.requires_grad
    assert not torch.allclose(output.lm_logits_NV, output.base_lm_logits_NV, atol=1e-2)
    again = tuned(*inputs)
    assert again.base_lm_logits_NV is None
    assert torch.equal(again.lm_logits_NV, output.lm_logits_NV), "the adapter is on again"
    trained = {name for name, parameter in tuned.backbone.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)


def test_the_head_learns_nothing_of_the_language_model_loss() -> None:
    model, batch = tiny_dual(), collate(tiny_tokenized([(4, 3)]))
    model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index).lm_logits_NV.sum().backward()
    assert model.head.weight.grad is None


def test_a_config_is_read_without_weights(tmp_path: Path) -> None:
    tiny_model().config.save_pretrained(tmp_path)
    assert read_backbone_config(Model(), str(tmp_path)).hidden_size == 32
