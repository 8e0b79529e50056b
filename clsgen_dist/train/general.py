"""General text beside the rows: where the tuned model is held to its base, so that it keeps its language.

Passages come from a file, or from the base model itself, which then needs no data at all: a model's own samples are
where its language is, and KL(base || tuned) on them is what a change of it costs.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clsgen_dist.config.run import RunConfig
from clsgen_dist.data.general import read_passages
from clsgen_dist.data.plan import plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedRow, TokenizedSplit, TokenizerLike, load_tokenizer, write_tokenized
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.errors import DataError
from clsgen_dist.model.build import DTYPES, load_backbone
from clsgen_dist.predict.passages import write_passages
from clsgen_dist.records import UNLABELLED

#: Passages that the base model writes; a long training meets each several times.
NUM_WRITTEN = 512

#: Tokens below which a passage says nothing.
_FEWEST_TOKENS = 4


@dataclass(frozen=True)
class GeneralText:
    """Passages to hold the tuned model to its base on.

    Attributes:
        split: the passages; a passage is its first token as prompt, the others as completion.
        weight: of KL(base || tuned), nats a token.
        num_passages: passages an optimizer step, over all ranks.
    """

    split: TokenizedSplit
    weight: float
    num_passages: int

    def plan(self, seed: int, step: int, ranks: Ranks, token_budget: int) -> tuple[list[list[int]], int]:
        """Passages of a step: those of this rank by micro-batch, and the scored tokens of all ranks."""
        rows = rows_of_step(seed, step, len(self.split), self.num_passages)
        plan = plan_step(rows, self.split.lengths, world_size=ranks.world_size, token_budget=token_budget)
        return plan[ranks.rank], int(self.split.num_scored[rows].sum())


def open_general_text(config: RunConfig, place: Path, base: str, ranks: Ranks) -> GeneralText | None:
    """The general text of a run, made where it is absent; None where none is looked at. All ranks call it.

    Raises:
        DataError: the file cannot be read or holds no passage; on all ranks.
    """
    settings = config.objective
    if settings.general_weight == 0:
        return None
    if not ranks.from_leader(place.exists()):
        failure = _make(config, place, base, ranks)
        failure = ranks.from_leader(failure)
        if failure is not None:
            raise failure
    return GeneralText(TokenizedSplit(place), settings.general_weight, settings.general_passages)


def _make(config: RunConfig, place: Path, base: str, ranks: Ranks) -> DataError | None:
    """Writes the passages as tokens; rank 0 says what was wrong with them."""
    tokenizer = load_tokenizer(config.model, base)
    if config.data.general_text is None:
        passages: Iterable[list[int]] = _self_written(config, base, tokenizer, ranks)
    elif ranks.leads:
        try:
            passages = _of_file(config, tokenizer)
        except DataError as error:
            return error
    if not ranks.leads:
        return None
    rows = [_row(ids) for ids in passages if len(ids) >= _FEWEST_TOKENS]
    if not rows:
        return DataError(
            f"data.general_text: no passage of {_FEWEST_TOKENS} tokens or more in {config.data.general_text or base}"
        )
    staging = place.with_suffix(".partial")
    write_tokenized(staging, [rows])
    staging.replace(place)
    return None


def _self_written(config: RunConfig, base: str, tokenizer: TokenizerLike, ranks: Ranks) -> list[list[int]]:
    """Passages of the base model, each rank its share; rank 0 gets all of them in order."""
    model = load_backbone(config.model, base, dtype=DTYPES[config.train.precision]).to(ranks.device).eval()
    assert tokenizer.eos_token_id is not None  # load_tokenizer refuses a tokenizer without
    mine = write_passages(
        model,
        list(range(ranks.rank, NUM_WRITTEN, ranks.world_size)),
        start=_opening(tokenizer),
        end=tokenizer.eos_token_id,
        num_tokens=config.objective.general_tokens,
        seed=config.run.seed,
    )
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    everyone = ranks.gather(mine)
    return [everyone[n % ranks.world_size][n // ranks.world_size] for n in range(NUM_WRITTEN)]


def _of_file(config: RunConfig, tokenizer: TokenizerLike) -> list[list[int]]:
    """Passages of a file, each cut into pieces of at most `general_tokens`."""
    size = config.objective.general_tokens - 1
    passages = []
    for text in read_passages(Path(str(config.data.general_text))):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        passages += [[_opening(tokenizer), *ids[at : at + size]] for at in range(0, len(ids), size)]
    return passages


def _opening(tokenizer: TokenizerLike) -> int:
    """Id that opens a text: BOS, or what stands between documents where a tokenizer has none."""
    found = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert found is not None
    return found


def _row(ids: list[int]) -> TokenizedRow:
    return TokenizedRow(np.array(ids[:1]), np.array(ids[1:], dtype=np.int64), UNLABELLED, 0)
