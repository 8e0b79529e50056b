"""A backbone that is made on the spot loads like any pretrained one."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from clsgen_dist.config.sections import FromScratch, Model
from clsgen_dist.data.tokens import load_tokenizer
from clsgen_dist.model import backbone
from clsgen_dist.model.backbone import make_small_backbone

SHAPE = FromScratch(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2, vocab_size=300)


def make(folder: Path, *, seed: int = 1) -> Path:
    make_small_backbone(folder, SHAPE, ["pain in the arm", "fever"] * 9, max_tokens=40, seed=seed)
    return folder


def test_it_loads_and_its_tokenizer_writes_back_any_text(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    config = AutoModelForCausalLM.from_pretrained(folder).config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (16, 1, 300)
    assert config.max_position_embeddings == 40
    tokenizer = load_tokenizer(Model(), str(folder))
    text = "Ärger: 39 °C, \tfever\n漢"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert max(tokenizer(text)["input_ids"]) < 300
    assert (config.eos_token_id, config.bos_token_id) == (tokenizer.eos_token_id, tokenizer.bos_token_id)


def test_its_words_come_from_the_beginning_of_many_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory must not grow with the number of rows."""
    monkeypatch.setattr(backbone, "_MOST_TEXTS", 5)
    texts = iter(["pain"] * 5 + ["zebra"] * 50)
    make_small_backbone(tmp_path / "b", SHAPE, texts, max_tokens=40, seed=1)
    assert len(list(texts)) == 50
    tokenizer = load_tokenizer(Model(), str(tmp_path / "b"))
    assert len(tokenizer("pain")["input_ids"]) < len(tokenizer("zebra")["input_ids"])


def test_the_seed_draws_the_weights(tmp_path: Path) -> None:
    files = [
        (make(tmp_path / f"{n}", seed=seed) / "model.safetensors").read_bytes() for n, seed in enumerate((1, 1, 2))
    ]
    assert files[0] == files[1] != files[2]
