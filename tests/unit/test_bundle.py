"""A finished model as a folder: written, verified, loaded, and refused when anything about it is not as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from clsgen_dist.bundle import Bundle, bundle_columns, load_bundle, read_task, trained_on, write_bundle
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.batch import collate
from clsgen_dist.errors import BundleError, ConfigError
from clsgen_dist.model.build import DTYPES, build_model
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.sealed import Decision, read_decision, read_manifest, seal, set_decision
from tests.support.tiny import FAMILIES, shared_backbone, tiny_backbone, tiny_config, tiny_tokenized

CPU = torch.device("cpu")

#: Hashes of texts that a model has seen.
SEEN = np.array([3, 2**63 + 5, 2**64 - 1], dtype=np.uint64)


def trained(config: RunConfig) -> DualHead:
    """A model as training would leave it: every trainable weight moved."""
    model = build_model(config.model, str(config.model.name_or_path), 2, dtype=DTYPES[config.train.precision], seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(p for p in model.parameters() if p.requires_grad):
            generator = torch.Generator().manual_seed(number)
            parameter += torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.05
    return model.eval()


def trainable(model: DualHead) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def write(folder: Path, config: RunConfig, model: DualHead) -> Path:
    write_bundle(folder, config, str(config.model.name_or_path), trainable(model), SEEN)
    return folder


def outputs(model: DualHead) -> tuple[torch.Tensor, torch.Tensor]:
    batch = collate(tiny_tokenized([(6, 4), (9, 2), (3, 5)]))
    with torch.no_grad():
        return model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)[:2]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA bundle; tests copy it."""
    tmp_path = tmp_path_factory.mktemp("bundle")
    config = tiny_config(tmp_path)
    return write(tmp_path / "bundle", config, trained(config))


@pytest.fixture
def bundle(ready: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ready, tmp_path / "bundle"))


def load(folder: Path, **options: Any) -> Bundle:
    return load_bundle(folder, device=CPU, **options)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(BundleError) as error:
        load(folder, **options)
    assert error.value.exit_code == 2
    return str(error.value)


def resealed(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The bundle with another manifest whose hashes are right: as a stranger could hand it over."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    seal(folder, manifest)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [{"rank": 4}, None], ids=["lora", "full"])
def test_what_is_loaded_is_what_was_trained(tmp_path: Path, family: str, precision: str, lora: Any) -> None:
    settings = {"model.lora": lora, "train.precision": precision, "model.name_or_path": shared_backbone(family)}
    config = tiny_config(tmp_path, **settings)
    model = trained(config)
    loaded = load(write(tmp_path / "bundle", config, model))
    assert all(torch.equal(one, other) for one, other in zip(outputs(model), outputs(loaded.model), strict=True))
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {DTYPES[precision]}
    before = outputs(build_model(config.model, shared_backbone(family), 2, dtype=DTYPES[precision], seed=1).eval())
    assert not torch.allclose(before[0], outputs(model)[0], atol=1e-3)
    assert not torch.allclose(before[1], outputs(model)[1], atol=1e-3)


def test_task_limits_and_calibrator_come_back(bundle: Path, tmp_path: Path) -> None:
    loaded, config = load(bundle), tiny_config(tmp_path)
    assert loaded.task == config.task == read_task(bundle)
    assert (loaded.calibrator, loaded.threshold) == (IDENTITY, None)
    limits = (loaded.tokenizer.max_prompt_tokens, loaded.tokenizer.max_explanation_tokens)
    assert limits == (config.data.max_prompt_tokens, config.data.max_explanation_tokens)
    assert loaded.manifest["predict"] == {"max_new_tokens": 12, "token_budget": 1024}
    assert loaded.manifest["base"]["name_or_path"] == shared_backbone()


def test_what_was_trained_with_flash_attention_is_used_where_there_is_none(bundle: Path) -> None:
    expected = outputs(load(bundle).model)
    found = load(resealed(bundle, lambda manifest: manifest.update(attention="flash_attention_2"))).model
    assert found.causal_lm.config._attn_implementation == "sdpa"
    assert all(torch.equal(one, other) for one, other in zip(expected, outputs(found), strict=True))


def test_files_hold_names_shapes_and_weights_that_are_not_zero(bundle: Path) -> None:
    head, adapter = load_file(bundle / "head.safetensors"), load_file(bundle / "adapter" / "adapter_model.safetensors")
    assert {name: tuple(weight.shape) for name, weight in head.items()} == {"weight": (2, 32), "bias": (2,)}
    assert len(adapter) == 2 * 2 * 7
    assert all(".default." not in name and name.startswith("base_model.model.") for name in adapter)
    assert all(float(weight.norm()) > 0 for weight in (*head.values(), *adapter.values()))
    assert {path.suffix for path in bundle.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".jinja"}


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_reads_the_adapter_by_itself(tmp_path: Path, family: str) -> None:
    config = tiny_config(tmp_path, **{"model.name_or_path": shared_backbone(family)})
    folder = write(tmp_path / "bundle", config, trained(config))
    base = AutoModelForCausalLM.from_pretrained(shared_backbone(family), dtype=torch.float32)
    alone = PeftModel.from_pretrained(base, str(folder / "adapter")).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        ours = load(folder).model.causal_lm(input_ids=ids).logits
        torch.testing.assert_close(alone(input_ids=ids).logits, ours, atol=1e-6, rtol=1e-6)
        with alone.disable_adapter():
            assert not torch.allclose(alone(input_ids=ids).logits, ours, atol=1e-3)


def test_full_weights_load_with_plain_transformers(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{"model.lora": None})
    folder = write(tmp_path / "bundle", config, trained(config))
    plain = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, load(folder).model.causal_lm(input_ids=ids).logits)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    base = tiny_backbone(tmp_path / "base", tie_word_embeddings=True)
    config = tiny_config(tmp_path, **{"model.lora": None, "model.name_or_path": base})
    model = trained(config)
    loaded = load(write(tmp_path / "bundle", config, model)).model
    assert all(torch.equal(one, other) for one, other in zip(outputs(model), outputs(loaded), strict=True))
    assert loaded.causal_lm.get_output_embeddings().weight is loaded.causal_lm.get_input_embeddings().weight


def test_a_bundle_replaces_the_one_that_stands(bundle: Path, tmp_path: Path) -> None:
    (bundle / "left.json").write_text("{}", encoding="utf-8")
    config = tiny_config(tmp_path)
    load(write(bundle, config, trained(config)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "rows.jsonl"], "nothing half-written is left"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: {n: v for n, v in w.items() if not n.startswith("head.")}, "no classification head among"),
        (
            lambda w: w | {next(n for n in w if "lora_A" in n): torch.zeros(0)},
            r"of shape \(0,\) is empty or not finite",
        ),
        (
            lambda w: w | {"head.weight": w["head.weight"] * float("nan")},
            "head.weight of shape .* is empty or not finite",
        ),
        (lambda w: {n: torch.zeros_like(v) for n, v in w.items()}, "weights of the head are zero"),
        (
            lambda w: {n: v if n.startswith("head.") else torch.zeros_like(v) for n, v in w.items()},
            "weights of the backbone are zero",
        ),
    ],
    ids=["headless", "empty", "nan", "all zero", "adapter zero"],
)
def test_weights_that_cannot_be_right_are_not_written(tmp_path: Path, spoil: Any, message: str) -> None:
    config = tiny_config(tmp_path)
    weights = spoil(trainable(trained(config)))
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "bundle", config, shared_backbone(), weights, SEEN)
    assert not list(tmp_path.glob("bundle*"))


FILES = (
    "task.json",
    "calibrator.json",
    "trained_on.safetensors",
    "head.safetensors",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
    "tokenizer/tokenizer.json",
)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert refused(bundle) == f"{bundle}: {name} is missing; copy the bundle whole"


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[-1] ^= 1
    (bundle / name).write_bytes(content)
    assert refused(bundle) == f"{bundle}: {name} was altered after the bundle was written (sha256 differs)"


@pytest.mark.parametrize(
    "name", ["extra.json", "adapter/adapter_model.bin", "tokenizer/tokenization.py", ".hidden", "__pycache__/x.pyc"]
)
def test_an_added_file(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("print('run')", encoding="utf-8")
    assert refused(bundle) == f"{bundle}: {name} does not belong to the bundle"


@pytest.mark.parametrize("name", ["model.bin", "modeling.py", "weights.pt", "data.pkl"])
def test_a_file_that_can_run_code_is_refused_though_the_manifest_names_it(bundle: Path, name: str) -> None:
    (bundle / name).write_text("print('run')", encoding="utf-8")
    assert refused(resealed(bundle, lambda manifest: None)) == f"{bundle}: {name} does not belong to the bundle"


def test_a_link(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.move(bundle / "head.safetensors", tmp_path / "head.safetensors")
    (bundle / "head.safetensors").symlink_to(moved)
    assert refused(bundle) == f"{bundle}: head.safetensors is a link; a bundle holds plain files"


def test_a_linked_folder(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.move(bundle / "tokenizer", tmp_path / "elsewhere")
    (bundle / "tokenizer").symlink_to(moved)
    assert refused(bundle) == f"{bundle}: tokenizer is a link; a bundle holds plain files"


@pytest.mark.parametrize("name", ["../outside.json", "/etc/hostname"])
def test_a_manifest_that_points_outside(bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside.json").write_text("{}", encoding="utf-8")
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert refused(bundle) == f"{bundle}: its manifest names {name!r}, which is no place in it"


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: no bundle here (manifest.json is missing)"
    assert refused(tmp_path / "absent") == f"{tmp_path / 'absent'}: no bundle here (manifest.json is missing)"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 9000])
def test_a_manifest_that_is_no_object(bundle: Path, content: str) -> None:
    (bundle / "manifest.json").write_text(content, encoding="utf-8")
    assert refused(bundle).startswith(f"{bundle / 'manifest.json'}: ")


def test_another_format(bundle: Path) -> None:
    resealed(bundle, lambda manifest: manifest.update(format=1))
    assert f"{bundle}: format 1, this program reads 2; train again" in refused(bundle)


@pytest.mark.parametrize("key", ["base", "lora", "precision", "attention", "max_prompt_tokens"])
def test_a_manifest_without_a_key(bundle: Path, key: str) -> None:
    resealed(bundle, lambda manifest: manifest.pop(key))
    assert "is not as this program writes" in refused(bundle)


def test_a_task_that_is_none(bundle: Path) -> None:
    (bundle / "task.json").write_text('{"question": "?", "labels": ["a"]}', encoding="utf-8")
    assert "task.json is not as this program writes it" in refused(resealed(bundle, lambda manifest: None))


def test_a_calibrator_that_is_none(bundle: Path) -> None:
    (bundle / "calibrator.json").write_text('{"method": "none", "temperature": 0, "num_rows": 0}', encoding="utf-8")
    assert "calibrator" in refused(resealed(bundle, lambda manifest: None))


def test_weights_of_other_shapes_or_names(bundle: Path) -> None:
    place = bundle / "adapter" / "adapter_model.safetensors"
    weights = load_file(place)
    narrow = {name: weight[:1].contiguous() for name, weight in weights.items()}  # torch would repeat them silently
    for others in (narrow, {name + "x": weight for name, weight in weights.items()}, {}):
        save_file(others, place)
        assert "the adapter's weights are not those of its configuration" in refused(resealed(bundle, lambda m: None))
    save_file(weights, place)
    save_file({"weight": torch.zeros(3, 32), "bias": torch.zeros(3)}, bundle / "head.safetensors")
    assert "weights do not load" in refused(resealed(bundle, lambda manifest: None))


def test_another_base_model(bundle: Path, tmp_path: Path) -> None:
    other = tiny_backbone(tmp_path / "other", seed=7)
    assert refused(bundle, base=other) == (
        f"{bundle}: {other} is not the base model that the adapter was trained on (fingerprint differs)"
    )


def test_a_base_model_that_moved(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(shared_backbone(), tmp_path / "moved")
    assert all(
        torch.equal(one, other)
        for one, other in zip(outputs(load(bundle).model), outputs(load(bundle, base=str(moved)).model), strict=True)
    )


def test_a_base_model_that_is_gone(bundle: Path, tmp_path: Path) -> None:
    resealed(bundle, lambda manifest: manifest["base"].update(name_or_path=str(tmp_path / "gone")))
    assert str(tmp_path / "gone") in refused(bundle)


def test_another_calibrator_keeps_the_bundle_valid(bundle: Path) -> None:
    before = read_manifest(bundle)
    calibrator = Calibrator("temperature", {"temperature": (1.7,)}, 60)
    set_decision(bundle, Decision(calibrator, 0.3, {"asked": "auto"}))
    loaded = load(bundle)
    assert (loaded.calibrator, loaded.threshold) == (calibrator, 0.3)
    assert read_decision(bundle, loaded.manifest, 2).facts == {"asked": "auto"}
    changed = {name for name in before["files"] if before["files"][name] != loaded.manifest["files"][name]}
    assert changed == {"calibrator.json"}


def test_a_calibrator_does_not_heal_an_altered_bundle(bundle: Path) -> None:
    (bundle / "task.json").write_text("{}", encoding="utf-8")
    set_decision(bundle, Decision(IDENTITY, 0.5))
    assert "task.json was altered" in refused(bundle)


def test_the_texts_that_the_model_has_seen_come_back(bundle: Path) -> None:
    assert trained_on(bundle).dtype == np.uint64
    assert trained_on(bundle).tolist() == SEEN.tolist()


def test_weights_of_another_model_refuse_the_calibrator(bundle: Path) -> None:
    set_decision(bundle, Decision(Calibrator("temperature", {"temperature": (1.7,)}, 60), 0.3))
    head = load_file(bundle / "head.safetensors")
    save_file({name: weight * 2 for name, weight in head.items()}, bundle / "head.safetensors")
    assert "fitted to another model, prompt or order of labels" in refused(resealed(bundle, lambda manifest: None))


def test_a_bundle_cannot_ask_for_code_to_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights whose configuration names code of its own, in a bundle whose hashes and manifest say that all is well."""
    config = tiny_config(tmp_path, **{"model.lora": None})
    folder = write(tmp_path / "bundle", config, trained(config))
    code = tmp_path / "evil"
    code.mkdir()
    (code / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: ...\n", encoding="utf-8")
    place = folder / "model" / "config.json"
    content = json.loads(place.read_text(encoding="utf-8"))
    names = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), f"{code}--modeling.Config")
    place.write_text(json.dumps(content | {"model_type": "evil", "auto_map": names}), encoding="utf-8")
    resealed(folder, lambda manifest: manifest.update(trust_remote_code=True, model={"trust_remote_code": True}))
    assert "trust_remote_code: Input should be False" in refused(folder)
    resealed(folder, lambda manifest: manifest.pop("trust_remote_code"))
    assert "the weights are not those of config.json" in refused(folder)
    assert not (tmp_path / "ran").exists()


def test_columns_are_those_of_the_training_unless_renamed(tmp_path: Path) -> None:
    rows = [{"note": f"fever {n}", "label": n % 2, "explanation": "x"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = tiny_config(tmp_path, **{"data.text_column": "note", "data.label_map": {"0": "no", "1": "yes"}})
    manifest = read_manifest(write(tmp_path / "bundle", config, trained(config)))
    columns = bundle_columns(manifest, [])
    assert (columns.text_column, columns.label_map) == ("note", {"0": "no", "1": "yes"})
    assert columns.explanation_column is None
    assert bundle_columns(manifest, ["--data.text_column", "memo"]).text_column == "memo"
    with pytest.raises(ConfigError, match="txt_column"):
        bundle_columns(manifest, ["--data.txt_column", "memo"])
    with pytest.raises(BundleError, match="columns are missing"):
        bundle_columns({}, [])
