"""One optimizer step on one process, with plain torch in the engine's place: losses, gradients, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from clsgen_dist.config.sections import Task
from clsgen_dist.data.plan import rows_of_step
from clsgen_dist.data.tokens import RowTokenizer, TokenizedRow, TokenizedSplit, write_tokenized, write_tokens
from clsgen_dist.engine.collectives import Ranks
from clsgen_dist.engine.deepspeed import StepReport
from clsgen_dist.errors import NumericsError
from clsgen_dist.model.dual_head import DualHeadOutput
from clsgen_dist.objective import Weights
from clsgen_dist.records import UNLABELLED, Row
from clsgen_dist.train.general import GeneralText
from clsgen_dist.train.step import Stepper, Validation, validate
from tests.support.tiny import tiny_dual, tiny_rows, tiny_tokenizer

ALONE = Ranks(0, 1, torch.device("cpu"))
EVEN = Weights(w_cls=1.0, w_gen=0.5, kl_weight=0.0, label_smoothing=0.0, class_weights=(1.0, 1.0))
NUM_ROWS, GLOBAL_BATCH = 21, 8


class PlainEngine:
    """The engine's contract in plain torch."""

    def __init__(self, module: Any, *, learning_rate: float = 0.05) -> None:
        self.module = module
        self.optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate)
        self.learning_rate = learning_rate
        self.num_backward = 0
        self.lasts: list[bool] = []

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.module(*inputs, **options)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.lasts.append(last)
        loss.backward()

    def step(self, factors: Mapping[str, float]) -> StepReport:
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.module.parameters() if p.grad is not None])
        if not torch.isfinite(norm):
            return StepReport(float("inf"), False)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * factors["head"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepReport(float(norm), True)

    def drop_gradient(self) -> None:
        self.optimizer.zero_grad()


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> TokenizedSplit:
    path = tmp_path_factory.mktemp("tokens") / "train.arrow"
    task = Task(question="?", labels=["no", "yes"], prompt_template="{text}\nUrgent?")
    tokenizer = RowTokenizer(tiny_tokenizer(), task, max_prompt_tokens=64, max_explanation_tokens=32)
    rows = [Row(**record | ({"label": None} if n % 6 == 5 else {})) for n, record in enumerate(tiny_rows(NUM_ROWS))]
    write_tokens(path, rows, tokenizer)
    return TokenizedSplit(path)


def stepper(
    engine: PlainEngine,
    split: TokenizedSplit,
    *,
    budget: int = 128,
    weights: Weights = EVEN,
    general: GeneralText | None = None,
    one_line: bool = False,
    num_skips_left: int = 0,
) -> Stepper:
    return Stepper(
        engine,  # type: ignore[arg-type]
        ALONE,
        split,
        weights,
        general,
        seed=3,
        global_batch=GLOBAL_BATCH,
        token_budget=budget,
        one_line=one_line,
        factors=lambda step: {"head": 1.0, "backbone": 1.0},
        name_rows=lambda rows: [f"id-{row}" for row in rows],
        num_skips_left=num_skips_left,
    )


def expected_losses(model: Any, split: TokenizedSplit, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean losses of some rows, one row at a time."""
    cls, lm = [], []
    for row in (split[int(number)] for number in rows):
        whole = torch.tensor([*row.prompt, *row.completion], dtype=torch.long)
        output = model.causal_lm(input_ids=whole[None], output_hidden_states=True, use_cache=False)
        if row.label != UNLABELLED:
            logits = model.head(output.hidden_states[-1][:, len(row.prompt) - 1])
            cls.append(functional.cross_entropy(logits, torch.tensor([row.label])))
        first = len(row.prompt) + row.num_unscored
        lm += [functional.cross_entropy(output.logits[0, t - 1], whole[t]) for t in range(first, len(whole))]
    return torch.stack(cls).mean(), torch.stack(lm).mean()


@pytest.mark.parametrize("one_line", [False, True])
@pytest.mark.parametrize("budget", [80, 4096])
def test_a_step_is_one_update_with_the_gradient_of_the_whole_step(
    split: TokenizedSplit, budget: int, one_line: bool
) -> None:
    model, plain = tiny_dual(), tiny_dual()
    engine = PlainEngine(model)
    for step in range(3):  # the third one is partial
        rows = rows_of_step(3, step, len(split), GLOBAL_BATCH)
        loss_cls, loss_gen = expected_losses(plain, split, rows)
        metrics = stepper(engine, split, budget=budget, one_line=one_line).run(step)
        assert metrics.loss_cls == pytest.approx(loss_cls.item(), abs=1e-5)
        assert metrics.loss_gen == pytest.approx(loss_gen.item(), abs=1e-5)
        assert metrics.loss == pytest.approx(loss_cls.item() + 0.5 * loss_gen.item(), abs=1e-5)
        assert metrics.num_tokens == split.lengths[rows].sum()
        assert metrics.kl == 0
        (loss_cls + 0.5 * loss_gen).backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
        assert metrics.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        torch.optim.SGD(plain.parameters(), lr=0.05).step()
        plain.zero_grad()
    for (name, one), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert (len(engine.lasts) > 3) == (budget == 80), "several micro-batches a step"
    assert sum(engine.lasts) == 3
    assert engine.lasts[-1]


def test_the_divergence_from_the_base_is_reported(split: TokenizedSplit) -> None:
    weights = Weights(**vars(EVEN) | {"kl_weight": 0.3})
    metrics = stepper(PlainEngine(tiny_dual(lora=True)), split, weights=weights).run(0)
    assert metrics.kl > 0.01
    assert metrics.loss == pytest.approx(metrics.loss_cls + 0.5 * metrics.loss_gen + 0.3 * metrics.kl, rel=1e-6)


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> GeneralText:
    path = tmp_path_factory.mktemp("general") / "general.arrow"
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 300, size=size) for size in (9, 30, 17, 24, 12, 21)]
    write_tokenized(path, [[TokenizedRow(row[:1], row[1:], UNLABELLED, 0) for row in ids]])
    return GeneralText(TokenizedSplit(path), weight=0.7, num_passages=4)


def divergence(model: Any, general: GeneralText, step: int) -> torch.Tensor:
    """Mean over tokens, one passage at a time."""
    parts = []
    for number in rows_of_step(3, step, len(general.split), 4):
        row = general.split[int(number)]
        whole = torch.tensor([*row.prompt, *row.completion], dtype=torch.long)[None]
        tuned = model.causal_lm(input_ids=whole, use_cache=False).logits[0, :-1].log_softmax(-1)
        with torch.no_grad(), model.adapter_off():
            base = model.causal_lm(input_ids=whole, use_cache=False).logits[0, :-1].log_softmax(-1)
        parts.append((base.exp() * (base - tuned)).sum(-1))
    return torch.cat(parts).mean()


@pytest.mark.parametrize("budget", [80, 4096])
def test_general_text_adds_its_divergence_and_nothing_else(
    split: TokenizedSplit, general: GeneralText, budget: int
) -> None:
    model, plain = tiny_dual(lora=True), tiny_dual(lora=True)
    engine = PlainEngine(model)
    metrics = stepper(engine, split, budget=budget, general=general).run(1)
    expected = divergence(plain, general, 1)
    assert metrics.general_kl == pytest.approx(expected.item(), rel=1e-4)
    assert metrics.general_kl > 0.01
    assert metrics.loss == pytest.approx(metrics.loss_cls + 0.5 * metrics.loss_gen + 0.7 * metrics.general_kl, rel=1e-6)
    loss_cls, loss_gen = expected_losses(plain, split, rows_of_step(3, 1, len(split), GLOBAL_BATCH))
    (loss_cls + 0.5 * loss_gen + 0.7 * expected).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    assert metrics.grad_norm == pytest.approx(norm.item(), rel=1e-4)
    assert sum(engine.lasts) == 1
    assert engine.lasts[-1]


def test_general_text_holds_the_tuned_model_to_its_base(split: TokenizedSplit, general: GeneralText) -> None:
    found = {}
    for held in (None, replace(general, weight=5.0)):
        model = tiny_dual(lora=True)
        taken = stepper(PlainEngine(model), split, general=held)
        for step in range(12):
            taken.run(step)
        found[held is None] = divergence(model, general, 0).item()
    assert found[False] < 0.5 * found[True]


def test_without_an_adapter_change_there_is_no_divergence(split: TokenizedSplit, general: GeneralText) -> None:
    model = tiny_dual(lora=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert stepper(PlainEngine(model), split, general=general).run(0).general_kl == pytest.approx(0, abs=1e-6)
    assert stepper(PlainEngine(tiny_dual()), split).run(0).general_kl is None


def test_dropout_depends_on_seed_and_step_alone(split: TokenizedSplit) -> None:
    losses = []
    for number in (1, 2):
        torch.manual_seed(number)
        model = tiny_dual(attention_dropout=0.5)
        losses.append([stepper(PlainEngine(model, learning_rate=1e-9), split).run(step).loss for step in (0, 1, 0)])
    assert losses[0] == losses[1]
    assert losses[0][0] == pytest.approx(losses[0][2], abs=1e-6)
    undropped = stepper(PlainEngine(tiny_dual()), split).run(0).loss
    assert abs(losses[0][0] - undropped) > 1e-3, "training mode is on"


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_a_loss_that_is_no_number_names_step_rank_and_row_and_updates_nothing(split: TokenizedSplit) -> None:
    rows = [int(row) for row in rows_of_step(3, 1, len(split), GLOBAL_BATCH)]
    bad = next(row for row in rows if split.labels[row] != UNLABELLED)
    first_tokens = torch.tensor(split[bad].prompt).long()

    def break_row(module: Any, inputs: Any, output: DualHeadOutput) -> DualHeadOutput:
        ids, _, cls_index, _ = inputs
        starts = cls_index - len(first_tokens) + 1
        hit = [bool((ids.flatten()[s : s + len(first_tokens)] == first_tokens).all()) for s in starts.clamp(min=0)]
        return output._replace(cls_logits_EK=output.cls_logits_EK.masked_fill(torch.tensor(hit)[:, None], float("nan")))

    model = tiny_dual()
    model.register_forward_hook(break_row)
    before = weights_of(model)
    with pytest.raises(NumericsError) as error:
        stepper(PlainEngine(model), split).run(1)
    assert str(error.value).startswith(
        f"step 2: the loss is not a finite number (rows at rank 0: id-{bad}); the weights"
    )
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_divergence_that_is_no_number_blames_no_row(split: TokenizedSplit, general: GeneralText) -> None:
    def break_base(module: Any, inputs: Any, output: DualHeadOutput) -> DualHeadOutput:
        base_NV = output.base_lm_logits_NV
        return output if base_NV is None else output._replace(base_lm_logits_NV=base_NV * float("nan"))

    model = tiny_dual(lora=True)
    model.register_forward_hook(break_base)
    before = weights_of(model)
    with pytest.raises(NumericsError) as error:
        stepper(PlainEngine(model), split, general=general).run(0)
    assert str(error.value) == (
        "step 1: the divergence on general text is not a finite number; the weights were not updated. "
        "Lower train.learning_rate; the last checkpoint is whole"
    )
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_gradient_that_is_no_number_updates_nothing(split: TokenizedSplit) -> None:
    model = tiny_dual()
    model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = weights_of(model)
    with pytest.raises(NumericsError, match=r"^step 1: the gradient is not a finite number \(rows at rank 0: id-\d+, "):
        stepper(PlainEngine(model), split).run(0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_may_be_skipped_updates_nothing_and_says_so(split: TokenizedSplit, what: str) -> None:
    model = tiny_dual()
    broken = model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    if what == "loss":
        broken.remove()
        broken = model.head.register_forward_hook(lambda head, given, logits: logits * float("nan"))
    before = weights_of(model)
    steps = stepper(PlainEngine(model), split, num_skips_left=2)
    for step in range(2):
        metrics = steps.run(step)
        assert metrics.skipped is not None
        assert metrics.skipped.startswith(f"step {step + 1}: the {what} is not a finite number (rows at rank 0: id-")
        assert metrics.skipped.endswith("; the weights were not updated")
    with pytest.raises(NumericsError, match=rf"^step 3: the {what} is not a finite number"):
        steps.run(2)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    broken.remove()
    assert steps.run(2).skipped is None


def look(model: Any, split: TokenizedSplit, max_rows: int) -> Validation:
    engine: Any = PlainEngine(model)
    return validate(engine, ALONE, split, EVEN, max_rows=max_rows, token_budget=64, one_line=False)


@pytest.mark.parametrize("max_rows", [9, 1000])
def test_validation_looks_at_the_first_rows_without_touching_weights(split: TokenizedSplit, max_rows: int) -> None:
    model = tiny_dual(attention_dropout=0.5).train()
    before, rows = weights_of(model), np.arange(min(max_rows, len(split)))
    found = look(model, split, max_rows)
    loss_cls, loss_gen = expected_losses(tiny_dual(), split, rows)
    assert found.loss_cls == pytest.approx(loss_cls.item(), abs=1e-5)
    assert found.loss_gen == pytest.approx(loss_gen.item(), abs=1e-5)
    assert found.loss == pytest.approx(found.loss_cls + 0.5 * found.loss_gen)
    assert found.logits_NK.shape == (len(rows), 2)
    with torch.no_grad():
        hidden = model.causal_lm.model(input_ids=torch.tensor(split[4].prompt)[None].long()).last_hidden_state
        assert found.logits_NK[4] == pytest.approx(model.head(hidden[0, -1]).numpy(), abs=1e-5)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_validation_loss_that_is_no_number(split: TokenizedSplit) -> None:
    model = tiny_dual()
    with torch.no_grad():
        model.head.bias += float("nan")
    with pytest.raises(NumericsError, match="validation loss is nan"):
        look(model, split, 9)
