"""Validation through the words: the likelihoods that the predictor will give, and the loss of their softmax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clsgen_dist.config.sections import Task
from clsgen_dist.data.tokens import RowTokenizer, TokenizedSplit, write_tokens
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.objective import Weights
from clsgen_dist.predict.decoding import prefill
from clsgen_dist.predict.verdicts import score_verdicts
from clsgen_dist.records import Row
from clsgen_dist.train.step import validate
from clsgen_dist.train.verdicts import read_verdicts
from tests.support.tiny import tiny_dual, tiny_rows, tiny_tokenizer
from tests.unit.train.test_step import PlainEngine

ALONE = Ranks(0, 1, torch.device("cpu"))
WORDS_ONLY = Weights(w_cls=0.0, w_gen=0.5, kl_weight=0.0, label_smoothing=0.0, class_weights=(1.0, 1.0))


@pytest.mark.parametrize("one_line", [False, True])
def test_logits_are_those_of_the_predictor_and_the_loss_that_chooses_is_of_the_words(
    tmp_path: Path, one_line: bool
) -> None:
    task = Task(question="Fever?", labels=["no", "yes"], prompt_template="{text}\nUrgent?")
    tokenizer = RowTokenizer(tiny_tokenizer(), task, max_prompt_tokens=48, max_explanation_tokens=32)
    rows = [Row(id=r["id"], text=r["text"], label=r["label"], explanation=r.get("explanation")) for r in tiny_rows(10)]
    rows[2] = Row(id="unlabelled", text=rows[2].text)
    write_tokens(tmp_path / "rows.arrow", rows, tokenizer)
    split, engine = TokenizedSplit(tmp_path / "rows.arrow"), PlainEngine(tiny_dual())
    limits = {"token_budget": 90, "one_line": one_line}
    look = validate(engine, ALONE, split, WORDS_ONLY, max_rows=8, **limits)  # type: ignore[arg-type]

    found = read_verdicts(engine, ALONE, split, tokenizer.verdicts, look, **limits)  # type: ignore[arg-type]

    prompts = tokenizer.encode_prompts([row.text for row in rows[:8]])
    start = prefill(engine.module, prompts, ALONE.device, with_cache=True)
    scores_NK = score_verdicts(engine.module, start, tokenizer.verdicts)
    assert found.logits_NK == pytest.approx(scores_NK, abs=1e-4)
    known = [n for n in range(8) if n != 2]
    shares = [np.exp(scores_NK[n, rows[n].label]) / np.exp(scores_NK[n]).sum() for n in known]
    assert found.loss_cls == pytest.approx(-np.mean(np.log(shares)), abs=1e-4)
    assert (found.loss, found.loss_gen) == (look.loss, look.loss_gen)
    assert found.loss == pytest.approx(0.5 * found.loss_gen)
