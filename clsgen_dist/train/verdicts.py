"""A look at validation rows where the model's own words, not a head, give the probability of a label.

Shape letters: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from clsgen_dist.data.batch import collate
from clsgen_dist.data.plan import plan_all
from clsgen_dist.data.tokens import TokenizedRow, TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.records import UNLABELLED
from clsgen_dist.train.step import Validation


def read_verdicts(
    engine: Engine,
    ranks: Ranks,
    split: TokenizedSplit,
    verdicts: Sequence[Sequence[int]],
    validation: Validation,
    *,
    token_budget: int,
    one_line: bool,
) -> Validation:
    """Puts the log-likelihoods of the verdicts in the place of a head's logits. All ranks call it.

    Args:
        engine: the model, in evaluation mode as `validate` leaves it.
        ranks: this process among its group.
        split: the rows that were looked at, from the first.
        verdicts: ids of the verdict of each of K labels.
        validation: the look; its loss stays, so the best step is that of the words.
        token_budget, one_line: as in `validate`.

    Returns:
        The look with `logits_NK`, nats, and `loss_cls`, the mean negative logarithm of the label's probability among
        the verdicts, nats a row.
    """
    num_rows, num_labels = validation.logits_NK.shape
    asked = [_with_verdict(split[row].prompt, verdict) for row in range(num_rows) for verdict in verdicts]
    lengths = np.array([len(row.prompt) + len(row.completion) - 1 for row in asked])
    mine: list[tuple[list[int], list[float]]] = []
    with torch.no_grad():
        for members in plan_all(lengths, world_size=ranks.world_size, token_budget=token_budget)[ranks.rank]:
            batch = collate([asked[n] for n in members], one_line=one_line).to(ranks.device)
            output = engine.forward(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
            token_N = -torch.nn.functional.cross_entropy(
                output.lm_logits_NV.float(), batch.lm_targets, reduction="none"
            )
            sums = torch.zeros(len(members), device=token_N.device).index_add_(0, batch.lm_rows, token_N)
            mine.append((members, sums.tolist()))
    whole = np.zeros(num_rows * num_labels, dtype=np.float32)
    for rows, values in (pair for part in ranks.gather(mine) for pair in part):
        whole[rows] = values
    logits_NK = whole.reshape(num_rows, num_labels)
    return replace(validation, loss_cls=_loss(logits_NK, split.labels[:num_rows]), logits_NK=logits_NK)


def _with_verdict(prompt: np.ndarray, verdict: Sequence[int]) -> TokenizedRow:
    return TokenizedRow(prompt, np.array(verdict, dtype=np.int64), UNLABELLED, 0)


def _loss(logits_NK: np.ndarray, labels_N: np.ndarray) -> float:
    known_N = labels_N != UNLABELLED
    wide_NK = logits_NK[known_N].astype(np.float64)
    return float(np.mean(np.logaddexp.reduce(wide_NK, axis=1) - wide_NK[np.arange(len(wide_NK)), labels_N[known_N]]))
