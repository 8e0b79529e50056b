"""The joint loss against plain torch and numbers made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from clsgen_dist import objective
from clsgen_dist.objective import Denominators, LossSums, Weights, class_weights, joint_loss, loss_sums
from clsgen_dist.records import UNLABELLED

EVEN = Weights(w_cls=1.0, w_gen=1.0, kl_weight=0.0, label_smoothing=0.0, class_weights=(1.0, 1.0, 1.0))
NUM_ROWS, NUM_LABELS, NUM_SCORED, VOCABULARY = 12, 3, 30, 11


def weights(**changes: object) -> Weights:
    return Weights(**(vars(EVEN) | changes))  # type: ignore[arg-type]


class Step:
    """An optimizer step of 12 rows, of which some lack a label and some any scored token."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.cls = torch.randn(NUM_ROWS, NUM_LABELS, generator=draw, requires_grad=True)
        self.lm = torch.randn(NUM_SCORED, VOCABULARY, generator=draw, requires_grad=True)
        self.base = torch.randn(NUM_SCORED, VOCABULARY, generator=draw)
        self.labels = torch.tensor([0, 1, 2, UNLABELLED, 0, 0, 1, UNLABELLED, 2, 0, 1, 1])
        self.owners = torch.sort(torch.randint(0, 9, (NUM_SCORED,), generator=draw))[0]  # the last three rows have none
        self.targets = torch.randint(0, VOCABULARY, (NUM_SCORED,), generator=draw)

    def counts(self, with_weights: Weights) -> Denominators:
        scored = np.bincount(self.owners.numpy(), minlength=NUM_ROWS)
        return Denominators.count(self.labels.numpy(), scored, with_weights.class_weights)

    def sums(self, with_weights: Weights, rows: list[int] | None = None, *, base: bool = False) -> LossSums:
        rows = list(range(NUM_ROWS)) if rows is None else rows
        mine = torch.tensor([int(owner) in rows for owner in self.owners], dtype=torch.bool)
        base_logits = self.base[mine] if base else None
        owners = torch.tensor([rows.index(int(owner)) for owner in self.owners[mine]], dtype=torch.long)
        return loss_sums(
            self.cls[rows], self.labels[rows], self.lm[mine], self.targets[mine], owners, base_logits, with_weights
        )

    def gradients(self) -> list[torch.Tensor]:
        found = [tensor.grad.clone() for tensor in (self.cls, self.lm)]  # type: ignore[union-attr]
        self.cls.grad = self.lm.grad = None
        return found


def test_both_terms_are_means_over_labelled_rows_and_scored_tokens() -> None:
    step = Step()
    loss = joint_loss(step.sums(EVEN), step.counts(EVEN), EVEN)
    labelled = step.labels != UNLABELLED
    expected = functional.cross_entropy(step.cls[labelled], step.labels[labelled]) + functional.cross_entropy(
        step.lm, step.targets
    )
    torch.testing.assert_close(loss, expected)


def test_numbers_made_by_hand() -> None:
    cls = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0], [9.0, -9.0]])
    lm = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(2.0), 0.0, 0.0, 0.0]])
    chosen = Weights(w_cls=2.0, w_gen=0.5, kl_weight=0.0, label_smoothing=0.0, class_weights=(1.0, 3.0))
    labels = torch.tensor([0, 1, UNLABELLED])
    sums = loss_sums(cls, labels, lm, torch.tensor([3, 0]), torch.tensor([0, 2]), None, chosen)
    assert float(sums.cls) == pytest.approx(math.log(4 / 3) + 3 * math.log(2))
    assert float(sums.lm) == pytest.approx(math.log(4) + math.log(5 / 2))
    assert sums.cls_by_row_E.tolist() == pytest.approx([math.log(4 / 3), 3 * math.log(2), 0.0])
    assert sums.lm_by_token_N.tolist() == pytest.approx([math.log(4), math.log(2.5)])
    assert sums.lm_rows_N.tolist() == [0, 2]
    counts = Denominators.count(labels.numpy(), np.array([1, 0, 1]), chosen.class_weights)
    assert counts == Denominators(cls_weight=4.0, lm_tokens=2.0)
    expected = 2.0 * (math.log(4 / 3) + 3 * math.log(2)) / 4 + 0.5 * (math.log(4) + math.log(2.5)) / 2
    assert float(joint_loss(sums, counts, chosen)) == pytest.approx(expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kl_weight", [0.0, 0.7])
def test_micro_batches_add_up_to_the_step(smoothing: float, kl_weight: float) -> None:
    step = Step()
    chosen = weights(
        w_cls=0.6, w_gen=1.7, label_smoothing=smoothing, kl_weight=kl_weight, class_weights=(0.5, 1.0, 3.0)
    )
    whole = joint_loss(step.sums(chosen, base=kl_weight > 0), step.counts(chosen), chosen)
    whole.backward()
    expected = step.gradients()
    parts = [[5], [], [0, 1, 2, 3], [11, 10, 9], [4, 6, 7, 8]]
    losses = [joint_loss(step.sums(chosen, part, base=kl_weight > 0), step.counts(chosen), chosen) for part in parts]
    for loss in losses:
        loss.backward()
    assert torch.stack(losses).sum().item() == pytest.approx(whole.item(), abs=1e-6)
    for found, gradient in zip(step.gradients(), expected, strict=True):
        torch.testing.assert_close(found, gradient, atol=1e-6, rtol=1e-6)


def test_an_unlabelled_row_trains_the_language_model_alone() -> None:
    step = Step()
    joint_loss(step.sums(EVEN), step.counts(EVEN), EVEN).backward()
    cls, lm = step.gradients()
    unlabelled = step.labels == UNLABELLED
    assert not cls[unlabelled].any()
    assert cls[~unlabelled].any(dim=1).all()
    assert lm.any(dim=1).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_bad_logit_of_an_unlabelled_row_reaches_nothing(smoothing: float) -> None:
    step = Step()
    with torch.no_grad():
        step.cls[3] = math.inf
    sums = step.sums(weights(label_smoothing=smoothing))
    assert torch.isfinite(sums.cls)


def test_label_smoothing_and_class_weights_are_those_of_torch() -> None:
    step = Step()
    chosen = weights(w_gen=0.0, label_smoothing=0.1, class_weights=(0.5, 1.0, 3.0))
    labelled = step.labels != UNLABELLED
    expected = functional.cross_entropy(
        step.cls[labelled], step.labels[labelled], weight=torch.tensor([0.5, 1.0, 3.0]), label_smoothing=0.1
    )
    torch.testing.assert_close(joint_loss(step.sums(chosen), step.counts(chosen), chosen), expected)


def test_class_weights_of_a_setting() -> None:
    assert class_weights(None, [5, 1]) == (1.0, 1.0)
    assert class_weights([2, 0.5], [5, 1]) == (2.0, 0.5)
    balanced = class_weights("balanced", [6, 3, 1])
    assert balanced == pytest.approx((10 / 18, 10 / 9, 10 / 3))
    assert np.dot(balanced, [6, 3, 1]) == pytest.approx(10), "rows weigh one on average"
    assert [weight * count for weight, count in zip(balanced, [6, 3, 1], strict=True)] == pytest.approx([10 / 3] * 3)


def test_the_divergence_is_zero_at_the_base_and_positive_elsewhere() -> None:
    step = Step()
    chosen = weights(kl_weight=1.0)
    step.base = step.lm.detach().clone()
    sums = step.sums(chosen, base=True)
    assert sums.kl.item() == pytest.approx(0, abs=1e-6)
    sums.kl.backward()
    assert step.lm.grad is not None
    assert step.lm.grad.abs().max() < 1e-6
    step.base = step.base + torch.randn(step.base.shape, generator=torch.Generator().manual_seed(4))
    sums = step.sums(chosen, base=True)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=step.base), torch.distributions.Categorical(logits=step.lm)
    ).sum()
    assert sums.kl.item() > 0.1
    torch.testing.assert_close(sums.kl, expected)


def test_the_divergence_weighs_as_a_mean_over_tokens() -> None:
    step = Step()
    with_it, without = weights(kl_weight=0.5), weights()
    one, two = step.sums(with_it, base=True), step.sums(without)
    counts = step.counts(with_it)
    difference = joint_loss(one, counts, with_it) - joint_loss(two, counts, without)
    torch.testing.assert_close(difference, 0.5 * one.kl / NUM_SCORED)
    assert two.kl.item() == 0


@pytest.mark.parametrize("with_base", [False, True])
def test_empty_parts_are_zero_with_a_gradient_of_zero(with_base: bool) -> None:
    cls = torch.zeros(4, 3, requires_grad=True)
    lm = torch.zeros(4, 11, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    chosen = weights(kl_weight=1.0, label_smoothing=0.1)
    sums = loss_sums(cls[:0], none, lm[:0], none, none, lm[:0].detach() if with_base else None, chosen)
    counts = Denominators.count(np.array([UNLABELLED]), np.array([0]), chosen.class_weights)
    loss = joint_loss(sums, counts, chosen)
    assert loss.item() == 0
    loss.backward()
    for tensor in (cls, lm):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad, torch.zeros_like(tensor))


def test_rows_without_any_label_are_zero() -> None:
    cls = torch.randn(2, 3, requires_grad=True)
    lm = torch.randn(1, 11, requires_grad=True)
    labels = torch.full((2,), UNLABELLED)
    sums = loss_sums(cls, labels, lm, torch.tensor([1]), torch.tensor([0]), None, EVEN)
    counts = Denominators.count(labels.numpy(), np.array([1, 0]), EVEN.class_weights)
    loss = joint_loss(sums, counts, EVEN)
    loss.backward()
    torch.testing.assert_close(loss, functional.cross_entropy(lm, torch.tensor([1])))
    assert cls.grad is not None
    assert not cls.grad.any()


def test_sums_are_taken_in_fp32() -> None:
    lm = torch.randn(500, 11, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    none = torch.zeros(0, dtype=torch.long)
    targets = torch.zeros(500, dtype=torch.long)
    sums = loss_sums(torch.zeros(0, 3), none, lm, targets, targets, lm, EVEN)
    assert {sums.cls.dtype, sums.lm.dtype, sums.kl.dtype} == {torch.float32}
    torch.testing.assert_close(sums.lm, functional.cross_entropy(lm.float(), targets, reduction="sum"))


def test_a_bad_number_is_found_in_its_row() -> None:
    step = Step()
    with torch.no_grad():
        step.cls[4] = math.nan
        step.lm[7] = math.nan
    sums = step.sums(EVEN)
    assert (~torch.isfinite(sums.cls_by_row_E)).nonzero().flatten().tolist() == [4]
    assert (~torch.isfinite(sums.lm_by_token_N)).nonzero().flatten().tolist() == [7]
    assert not sums.cls_by_row_E.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_logits", [1, 3 * VOCABULARY, 2**21])
def test_token_losses_are_cross_entropy(dtype: torch.dtype, chunk_logits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One position at a time, three at a time with one left over, or all at once; each with a weight of its own."""
    monkeypatch.setitem(objective._CHUNK_LOGITS, "cpu", chunk_logits)
    draw = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(10, VOCABULARY, generator=draw)).to(dtype)
    targets = torch.randint(0, VOCABULARY, (10,), generator=draw)
    weight = torch.rand(10, generator=draw)
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()

    losses = objective.token_losses(mine, targets)
    expected = functional.cross_entropy(theirs.float(), targets, reduction="none")
    (losses * weight).sum().backward()
    (expected * weight).sum().backward()

    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-6)
    tolerance = 1e-6 if dtype == torch.float32 else 2**-7  # bf16 keeps eight bits, and is rounded to twice
    torch.testing.assert_close(mine.grad, theirs.grad, atol=tolerance, rtol=tolerance)
    assert torch.equal(mine.detach(), logits), "the logits are still there for the divergence"


def test_the_gradient_of_token_losses_is_given_once() -> None:
    """It is scaled where it lies: a second time would scale it twice, in silence."""
    logits = torch.randn(3, VOCABULARY, requires_grad=True)
    losses = objective.token_losses(logits, torch.tensor([1, 2, 3])).sum()
    losses.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.backward()


def test_rounding_twice_shifts_no_gradient() -> None:
    """Errors of bf16 average out over a vocabulary."""
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(64, 4096, generator=draw).bfloat16().requires_grad_()
    targets = torch.randint(0, 4096, (64,), generator=draw)
    (objective.token_losses(logits, targets) / 291).sum().backward()
    assert logits.grad is not None
    exact = functional.softmax(logits.detach().double(), dim=1) - functional.one_hot(targets, 4096)
    ratio = (logits.grad.double() * exact).sum() / (exact**2).sum() * 291
    assert ratio.item() == pytest.approx(1.0, abs=1e-3)


def test_token_losses_of_nothing_have_a_gradient_of_nothing() -> None:
    logits = torch.zeros(0, VOCABULARY, requires_grad=True)
    objective.token_losses(logits, torch.zeros(0, dtype=torch.long)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.shape == (0, VOCABULARY)


def test_token_loss_that_is_no_number_stays_with_its_token() -> None:
    logits = torch.zeros(3, VOCABULARY)
    logits[1, 4] = float("nan")
    assert objective.token_losses(logits, torch.tensor([0, 1, 2])).isfinite().tolist() == [True, False, True]
