"""One optimizer step, and one look at validation: where plan, model, objective and engine meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from clsgen_dist.data.batch import Batch, collate
from clsgen_dist.data.plan import MicroBatch, plan_all, plan_step, rows_of_step
from clsgen_dist.data.tokens import TokenizedSplit
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import Engine
from clsgen_dist.errors import NumericsError
from clsgen_dist.objective import Denominators, LossSums, Weights, joint_loss, kl_to_base, loss_sums
from clsgen_dist.records import UNLABELLED
from clsgen_dist.train.general import GeneralText
from clsgen_dist.train.loader import Loader
from clsgen_dist.train.standstill import MARK


@dataclass(frozen=True)
class StepMetrics:
    """What one optimizer step did; all over the whole step, not over one rank.

    Attributes:
        loss, loss_cls, loss_gen, kl: nats; means over rows, tokens and tokens.
        general_kl: KL(base || tuned) on general text, nats a token; None where there is none.
        grad_norm: before clipping.
        num_tokens: tokens read.
        tokens_per_second: over all ranks.
        skipped: why nothing was updated, with step, ranks and rows; None where the weights were updated.
    """

    loss: float
    loss_cls: float
    loss_gen: float
    kl: float
    general_kl: float | None
    grad_norm: float
    num_tokens: int
    tokens_per_second: float
    skipped: str | None = None


@dataclass(frozen=True)
class Validation:
    """A look at validation rows.

    Attributes:
        loss: weighted sum of the losses, nats, which chooses the best step.
        loss_cls, loss_gen: means over rows and tokens, nats.
        logits_NK: head logits of the rows, in their order, fp32.
    """

    loss: float
    loss_cls: float
    loss_gen: float
    logits_NK: np.ndarray


class Stepper:
    """Takes optimizer steps over one training split."""

    def __init__(
        self,
        engine: Engine,
        ranks: Ranks,
        split: TokenizedSplit,
        weights: Weights,
        general: GeneralText | None = None,
        *,
        seed: int,
        global_batch: int,
        token_budget: int,
        one_line: bool,
        factors: Callable[[int], dict[str, float]],
        name_rows: Callable[[list[int]], list[str]],
        num_skips_left: int = 0,
    ) -> None:
        """`one_line` as in `collate`; `factors`: learning rates of a step, of their peaks; `name_rows`: ids of rows.

        `num_skips_left`: steps that may be passed over where a loss or gradient is not finite.
        """
        self._num_skips_left = num_skips_left
        self._engine, self._ranks, self._split, self._weights = engine, ranks, split, weights
        self._general = general
        self._seed, self._global_batch, self._token_budget = seed, global_batch, token_budget
        self._one_line, self._factors, self._name_rows = one_line, factors, name_rows
        ahead = ranks.device.type == "cuda"
        self._loader = Loader(split, self._plan, ranks.device, one_line=one_line, ahead=ahead)

    def run(self, step: int) -> StepMetrics:
        """Takes step number `step`.

        Raises:
            NumericsError: a loss or gradient is not finite, and no step may be skipped (any more); the weights are as
                before the step.
        """
        started = time.perf_counter()
        rows = self._rows(step)
        plan, batches = self._loader.open(step)
        denominators = Denominators.count(
            self._split.labels[rows], self._split.num_scored[rows], self._weights.class_weights
        )
        # Dropout is a function of step and rank, so a resumed run draws what the uninterrupted one drew.
        torch.manual_seed(int(np.random.SeedSequence([self._seed, step, self._ranks.rank]).generate_state(1)[0]))
        self._engine.module.train()
        terms = []
        for number, batch in enumerate(batches):
            MARK.begin_micro_batch()
            sums = forward_sums(self._engine, batch, self._weights)
            last = self._general is None and number == len(plan) - 1
            self._engine.backward(joint_loss(sums, denominators, self._weights), last=last)
            terms.append(sums)
        general_kl = None if self._general is None else self._hold_to_base(self._general, step)
        # What follows is decided on numbers that all ranks share, so all of them go the same way.
        totals, grad_norm, skipped = self._totals(terms), float("nan"), None
        if not torch.isfinite(totals).all():
            skipped = self._skip(step, "loss", plan, terms)
        elif general_kl is not None and not np.isfinite(general_kl):
            skipped = self._skip(step, "divergence on general text", [], None)
        else:
            report = self._engine.step(self._factors(step))
            grad_norm = report.grad_norm
            if report.applied and not np.isfinite(grad_norm):
                self._num_skips_left = 0  # the weights are no longer those before the step
            if not report.applied or not np.isfinite(grad_norm):
                skipped = self._skip(step, "gradient", plan, None)
        MARK.end_step()
        seconds = time.perf_counter() - started
        return replace(self._metrics(totals, denominators, general_kl, grad_norm, rows, seconds), skipped=skipped)

    def _rows(self, step: int) -> np.ndarray:
        return rows_of_step(self._seed, step, len(self._split), self._global_batch)

    def _plan(self, step: int) -> list[MicroBatch]:
        """Rows of this rank's micro-batches."""
        sizes = {"world_size": self._ranks.world_size, "token_budget": self._token_budget}
        return plan_step(self._rows(step), self._split.lengths, **sizes)[self._ranks.rank]

    def _hold_to_base(self, general: GeneralText, step: int) -> float:
        """Adds the gradient of the divergence on general text; returns it, nats a token of the whole step."""
        plan, num_tokens = general.plan(self._seed, step, self._ranks, self._token_budget)
        total = torch.zeros((), dtype=torch.float64)
        for number, members in enumerate(plan):
            batch = collate([general.split[row] for row in members], one_line=self._one_line).to(self._ranks.device)
            MARK.begin_micro_batch()
            output = self._engine.forward(
                batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index, with_base=True
            )
            assert output.base_lm_logits_NV is not None
            kl = kl_to_base(output.lm_logits_NV, output.base_lm_logits_NV)
            # The head has no part in it, but a gradient of 0: ranks must meet it equally often.
            loss = general.weight * kl / num_tokens + 0.0 * output.cls_logits_EK.sum()
            self._engine.backward(loss, last=number == len(plan) - 1)
            total += kl.detach().double().cpu()
        return float(self._ranks.sum(total)) / num_tokens

    def _totals(self, terms: list[LossSums]) -> torch.Tensor:
        """Sums over micro-batches and ranks: cls, lm, kl; fp64."""
        mine = torch.stack([torch.stack([t.cls.detach(), t.lm.detach(), t.kl.detach()]) for t in terms])
        return self._ranks.sum(mine.double().sum(dim=0))

    def _metrics(
        self,
        totals: torch.Tensor,
        counts: Denominators,
        general_kl: float | None,
        grad_norm: float,
        rows: np.ndarray,
        seconds: float,
    ) -> StepMetrics:
        cls, lm, kl = totals.tolist()
        loss_cls, loss_gen, divergence = cls / counts.cls_weight, lm / counts.lm_tokens, kl / counts.lm_tokens
        w = self._weights
        num_tokens = int(self._split.lengths[rows].sum())
        held = 0.0 if self._general is None else self._general.weight * (general_kl or 0.0)
        return StepMetrics(
            loss=w.w_cls * loss_cls + w.w_gen * loss_gen + w.kl_weight * divergence + held,
            loss_cls=loss_cls,
            loss_gen=loss_gen,
            kl=divergence,
            general_kl=general_kl,
            grad_norm=grad_norm,
            num_tokens=num_tokens,
            tokens_per_second=num_tokens / seconds,
        )

    def _skip(self, step: int, what: str, plan: list[list[int]], terms: list[LossSums] | None) -> str:
        """Forgets the step's gradient, on all ranks; raises where no step may be skipped.

        Returns:
            What was skipped, with step, ranks and rows.
        """
        self._engine.drop_gradient()
        suspects = [row for members in plan for row in members]
        if terms is not None:
            suspects = [row for members, term in zip(plan, terms, strict=True) for row in _broken(members, term)]
        by_rank = self._ranks.gather(self._name_rows(suspects))
        places = "; ".join(
            f"rank {rank}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
            for rank, names in enumerate(by_rank)
            if names
        )
        found = (
            f"step {step + 1}: the {what} is not a finite number{f' (rows at {places})' if places else ''}; the "
            "weights were not updated"
        )
        if self._num_skips_left == 0:
            raise NumericsError(
                f"{found}. Lower train.learning_rate{', or look at these rows' if places else ''}; the last checkpoint "
                "is whole"
            )
        self._num_skips_left -= 1
        return found


def _broken(members: list[int], terms: LossSums) -> list[int]:
    """Rows of a micro-batch whose loss is not finite."""
    broken = {int(e) for e in (~torch.isfinite(terms.cls_by_row_E)).nonzero().flatten()}
    broken |= {int(e) for e in terms.lm_rows_N[~torch.isfinite(terms.lm_by_token_N)]}
    if not torch.isfinite(terms.kl.detach()):
        broken |= set(range(len(members)))
    return [members[e] for e in sorted(broken)]


def forward_sums(engine: Engine, batch: Batch, weights: Weights) -> LossSums:
    """Forward pass and loss terms of one micro-batch."""
    output = engine.forward(
        batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index, with_base=weights.kl_weight > 0
    )
    return loss_sums(
        output.cls_logits_EK,
        batch.labels,
        output.lm_logits_NV,
        batch.lm_targets,
        batch.lm_rows,
        output.base_lm_logits_NV,
        weights,
    )


def validate(
    engine: Engine,
    ranks: Ranks,
    split: TokenizedSplit,
    weights: Weights,
    *,
    max_rows: int,
    token_budget: int,
    one_line: bool,
) -> Validation:
    """Looks at the first `max_rows` rows of a split with the weights as they are. All ranks call it."""
    lengths = split.lengths[:max_rows]
    plan = plan_all(lengths, world_size=ranks.world_size, token_budget=token_budget)[ranks.rank]
    totals = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    logits: list[tuple[list[int], np.ndarray]] = []
    engine.module.eval()
    with torch.no_grad():
        for members in plan:
            batch = collate([split[row] for row in members], one_line=one_line).to(ranks.device)
            output = engine.forward(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index)
            sums = loss_sums(
                output.cls_logits_EK, batch.labels, output.lm_logits_NV, batch.lm_targets, batch.lm_rows, None, weights
            )
            totals += torch.stack([sums.cls, sums.lm]).double()
            logits.append((members, output.cls_logits_EK.float().cpu().numpy()))
    labels = split.labels[: len(lengths)]
    counts = Denominators.count(labels, split.num_scored[: len(lengths)], weights.class_weights)
    cls, lm = ranks.sum(totals).tolist()
    loss_cls, loss_gen = cls / counts.cls_weight, lm / counts.lm_tokens
    whole = np.zeros((len(lengths), len(weights.class_weights)), dtype=np.float32)
    for rows, values in (pair for part in ranks.gather(logits) for pair in part):
        whole[rows] = values
    loss = weights.w_cls * loss_cls + weights.w_gen * loss_gen
    if not np.isfinite(loss) or not (labels != UNLABELLED).any():
        raise NumericsError(f"the validation loss is {loss}; lower train.learning_rate")
    return Validation(loss, loss_cls, loss_gen, whole)
