"""How a bundle decides: written into it, read back, and refused where it was fitted to something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.errors import BundleError
from clsgen_dist.sealed import Decision, model_hash, read_decision, read_manifest, seal, set_decision

TEMPERATURE = Calibrator("temperature", {"temperature": (1.7,)}, 60)
VECTOR = Calibrator("vector", {"scale": (1.0, 1.0, 1.0), "bias": (0.0, 0.1, 0.2)}, 60)

TASK = {"question": "Fever?", "labels": ["no", "yes"], "prompt_template": "{text}\nUrgent?"}
MANIFEST: dict[str, Any] = {
    "format": 2,
    "run": "demo",
    "base": {"name_or_path": "here/base", "revision": None, "fingerprint": "f" * 64},
    "lora": {"rank": 4},
    "precision": "fp32",
    "attention": "sdpa",
    "max_prompt_tokens": 64,
    "max_explanation_tokens": 32,
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Files as a bundle has them; nothing here loads a weight."""
    folder = tmp_path / "bundle"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "head.safetensors").write_bytes(b"weights")
    (folder / "task.json").write_text(json.dumps(TASK), encoding="utf-8")
    (folder / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf-8")
    seal(folder, json.loads(json.dumps(MANIFEST)))
    set_decision(folder, Decision(TEMPERATURE, 0.3, {"asked": "auto", "candidates": []}))
    return folder


def read(folder: Path, num_labels: int = 2) -> Decision:
    return read_decision(folder, read_manifest(folder), num_labels)


def refused(folder: Path, num_labels: int = 2) -> str:
    with pytest.raises(BundleError) as error:
        read(folder, num_labels)
    return str(error.value)


def resealed(folder: Path, **changes: Any) -> Path:
    """The bundle with hashes that are right and a manifest that says something else."""
    seal(folder, json.loads((folder / "manifest.json").read_text(encoding="utf-8")) | changes)
    return folder


def rewritten(folder: Path, **changes: Any) -> Path:
    """The bundle with another calibrator.json, sealed."""
    path = folder / "calibrator.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    return resealed(folder)


def test_a_decision_comes_back(bundle: Path) -> None:
    assert read(bundle) == Decision(TEMPERATURE, 0.3, {"asked": "auto", "candidates": []})
    set_decision(bundle, Decision(IDENTITY, None))
    assert read(bundle) == Decision(IDENTITY, None)


def test_another_decision_changes_one_hash_and_not_the_models(bundle: Path) -> None:
    before = read_manifest(bundle)
    set_decision(bundle, Decision(IDENTITY, 0.9))
    after = read_manifest(bundle)
    assert {name for name in before["files"] if before["files"][name] != after["files"][name]} == {"calibrator.json"}
    assert model_hash(before) == model_hash(after)
    assert sorted(path.name for path in bundle.iterdir()) == [
        *("calibrator.json", "head.safetensors", "manifest.json", "task.json", "tokenizer")
    ]


def _weights(folder: Path) -> None:
    (folder / "head.safetensors").write_bytes(b"weightz")


def _prompt(folder: Path) -> None:
    (folder / "task.json").write_text(json.dumps(TASK | {"prompt_template": "{text}\nSick?"}), encoding="utf-8")


def _order(folder: Path) -> None:
    (folder / "task.json").write_text(json.dumps(TASK | {"labels": ["yes", "no"]}), encoding="utf-8")


def _tokenizer(folder: Path) -> None:
    (folder / "tokenizer" / "tokenizer.json").write_text('{"a": 1}', encoding="utf-8")


@pytest.mark.parametrize("change", [_weights, _prompt, _order, _tokenizer])
def test_what_was_fitted_to_another_model_is_refused_though_all_hashes_are_right(
    bundle: Path, change: Callable[[Path], None]
) -> None:
    change(bundle)
    message = refused(resealed(bundle))
    assert "fitted to another model, prompt or order of labels" in message
    assert "launchers/calibrate.py" in message
    set_decision(bundle, Decision(TEMPERATURE, 0.3))
    assert read(bundle).threshold == 0.3, "calibrated again, it is right again"


@pytest.mark.parametrize(
    "change",
    [
        {"base": MANIFEST["base"] | {"fingerprint": "0" * 64}},
        {"base": MANIFEST["base"] | {"revision": "main"}},
        {"lora": {"rank": 8}},
        {"precision": "bf16"},
        {"max_prompt_tokens": 65},
    ],
)
def test_whatever_moves_the_logits_is_another_model(bundle: Path, change: dict[str, Any]) -> None:
    assert "fitted to another model" in refused(resealed(bundle, **change))


@pytest.mark.parametrize(
    "change",
    [{"base": MANIFEST["base"] | {"name_or_path": "moved/base"}}, {"run": "other"}],
)
def test_where_a_base_model_lies_and_what_a_run_is_called_do_not_matter(bundle: Path, change: dict[str, Any]) -> None:
    assert read(resealed(bundle, **change)).calibrator == TEMPERATURE


@pytest.mark.parametrize("threshold", [-0.01, 1.01, True, "0.5", [0.5]])
def test_a_threshold_that_is_none(bundle: Path, threshold: object) -> None:
    assert f"its threshold is {threshold!r}, expected" in refused(rewritten(bundle, threshold=threshold))


@pytest.mark.parametrize("threshold", [0, 0.0, 1, 1.0, None])
def test_a_threshold_at_the_ends(bundle: Path, threshold: float | None) -> None:
    assert read(rewritten(bundle, threshold=threshold)).threshold == threshold


def test_more_labels_have_no_threshold(bundle: Path) -> None:
    assert "or null with 3 labels" in refused(bundle, num_labels=3)
    assert read(rewritten(bundle, threshold=None), num_labels=3).calibrator == TEMPERATURE


def test_a_calibrator_of_another_number_of_labels(bundle: Path) -> None:
    set_decision(bundle, Decision(VECTOR, None))
    assert read(bundle, num_labels=3).calibrator == VECTOR
    assert "its calibrator is of 3 labels, its task of 2" in refused(bundle, num_labels=2)
    set_decision(bundle, Decision(Calibrator("none", {}, 0, (0.1, -0.1)), None))
    assert "its calibrator is of 2 labels, its task of 3" in refused(bundle, num_labels=3)


@pytest.mark.parametrize(
    "change",
    [
        {"facts": []},
        {"facts": None},
        {"extra": 1},
        {"calibrator": {"method": "temperature", "temperature": 1.7, "num_rows": 60}},
        {"calibrator": None},
        {"calibrator": TEMPERATURE.to_json() | {"parameters": {"temperature": [-1.0]}}},
        {"model_sha256": None},
    ],
)
def test_a_decision_that_is_malformed(bundle: Path, change: dict[str, Any]) -> None:
    assert "calibrat" in refused(rewritten(bundle, **change))


@pytest.mark.parametrize("missing", ["calibrator", "threshold", "model_sha256", "facts"])
def test_a_decision_without_a_key(bundle: Path, missing: str) -> None:
    path = bundle / "calibrator.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[missing]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "is not as this program writes it" in refused(resealed(bundle))


def test_an_altered_decision_is_found_by_its_hash(bundle: Path) -> None:
    path = bundle / "calibrator.json"
    path.write_text(path.read_text(encoding="utf-8").replace("0.3", "0.4"), encoding="utf-8")
    assert "calibrator.json was altered" in refused(bundle)


def test_a_new_decision_does_not_seal_what_was_altered(bundle: Path) -> None:
    _weights(bundle)
    set_decision(bundle, Decision(TEMPERATURE, 0.3))
    assert "head.safetensors was altered" in refused(bundle)
