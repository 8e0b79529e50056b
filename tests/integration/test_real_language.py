"""Gemma 3 270M reads the general text and people's own reasons: numbers of the kind that a language model gives."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import pytest
import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY
from clsgen_dist.config.sections import Data, Lora, Model, Task
from clsgen_dist.data.rows import read_rows
from clsgen_dist.data.tokens import RowTokenizer, load_tokenizer
from clsgen_dist.evaluate.general_text import general_passages
from clsgen_dist.evaluate.language import language_kept
from clsgen_dist.model.build import add_new_adapter, load_backbone
from clsgen_dist.model.dual_head import DualHead
from clsgen_dist.model.heads import ClassificationHead
from clsgen_dist.predict.probing import score_language
from clsgen_dist.predict.scoring import Continuation, Scorer
from tests.support.tiny import ROOT

pytestmark = [pytest.mark.real_data, pytest.mark.slow]

BACKBONE = ROOT / "models" / "gemma3-270m"
ROWS = ROOT.parent / "shared" / "data" / "esnli_binary_test.jsonl"
CPU = torch.device("cpu")


def gemma(*, lora: bool) -> DualHead:
    """The backbone as it is, or with an adapter whose weights are drawn so that it changes something."""
    backbone = load_backbone(Model(name_or_path=str(BACKBONE)), str(BACKBONE), dtype=torch.bfloat16)
    if lora:
        backbone = add_new_adapter(backbone, Lora(rank=8, alpha=16.0), seed=0)
        with torch.no_grad():
            for number, (name, parameter) in enumerate(backbone.named_parameters()):
                if "lora_B" in name:
                    drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                    parameter.copy_(drawn * 0.02)
    head = ClassificationHead(backbone.config.get_text_config().hidden_size, 2, seed=0).to(torch.bfloat16)
    return DualHead(backbone, head).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    if not (BACKBONE / "config.json").is_file():
        pytest.skip("no Gemma 3 270M: `make backbone` puts it into models/gemma3-270m")
    task = Task(
        question="Does the premise entail the hypothesis, or contradict it?", labels=["contradiction", "entailment"]
    )
    tokenizer = RowTokenizer(
        load_tokenizer(Model(name_or_path=str(BACKBONE)), str(BACKBONE)),
        task,
        max_prompt_tokens=192,
        max_explanation_tokens=96,
    )
    return Bundle(Path(), {}, task, gemma(lora=True), tokenizer, IDENTITY, 0.5)


def test_with_the_adapter_off_the_numbers_are_exactly_the_backbones(bundle: Bundle) -> None:
    plain = [Continuation(i[:1], i[1:]) for i in bundle.tokenizer.encode_plain([t for _, t in general_passages()[:4]])]
    off = Scorer(bundle.model, 1024, CPU).score(plain, base=True)
    alone = Scorer(gemma(lora=False), 1024, CPU)
    assert alone.no_base is not None
    assert off == alone.score(plain)
    assert off != Scorer(bundle.model, 1024, CPU).score(plain)


def test_the_base_finds_general_prose_as_likely_as_a_language_model_should(bundle: Bundle) -> None:
    if not ROWS.is_file():
        pytest.skip(f"no e-SNLI rows: {ROWS} is missing")
    columns = Data(text_template="Premise: {premise}\nHypothesis: {hypothesis}", train=str(ROWS))
    rows = [row for _, row in islice(read_rows(str(ROWS), columns, bundle.task.labels), 12)]
    scores = score_language(bundle, [], [], general_passages(), references=rows, token_budget=2048, device=CPU)
    found = language_kept(scores, free_rep_4=None, num_bootstrap=100, seed=0)
    print(found)
    assert 2.5 < found["general_text_nll_base"] < 3.2
    assert found["general_text_nll"] > found["general_text_nll_base"]
    assert found["general_text_kl"] > 0
    assert found["num_general_tokens"] > 5000
    assert found["num_reference_rows"] == 12
    assert 1 < found["reference_explanation_nll_base"] < math.log(bundle.model.causal_lm.config.vocab_size) / 2
