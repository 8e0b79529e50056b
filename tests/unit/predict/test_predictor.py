"""The predictor: the probabilities of training, explanations that follow the decision, whatever the batches are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clsgen_dist.bundle import Bundle
from clsgen_dist.calibrate.scaling import IDENTITY, Calibrator
from clsgen_dist.config.sections import Task
from clsgen_dist.data.batch import collate
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.predict.predictor import Predictor, recalibrated
from clsgen_dist.records import Prediction, Row
from tests.support.tiny import FAMILIES, tiny_dual, tiny_rows, tiny_tokenizer

ROWS = [Row(id=r["id"], text=r["text"], label=r["label"] if n % 3 else None) for n, r in enumerate(tiny_rows(14))]


@cache
def bundle(family: str = "llama", labels: tuple[str, ...] = ("no", "yes")) -> Bundle:
    task = Task(question="Fever?", labels=list(labels), prompt_template="{text}\nUrgent?")
    tokenizer = RowTokenizer(tiny_tokenizer(), task, max_prompt_tokens=48, max_explanation_tokens=32)
    model = tiny_dual(family, num_labels=len(labels))
    return Bundle(Path(), {}, task, model, tokenizer, IDENTITY, 0.5 if len(labels) == 2 else None)


def predictor(of: Bundle, *, budget: int = 10_000, num_new: int = 10) -> Predictor:
    return Predictor(of, token_budget=budget, max_new_tokens=num_new, device=torch.device("cpu"))


def words(predictions: list[Prediction]) -> list[tuple[Any, ...]]:
    return [(p.id, p.label, p.predicted, p.explanation, p.free_verdict) for p in predictions]


def numbers(predictions: list[Prediction]) -> np.ndarray:
    return np.array([p.logits + list(p.probability.values()) + list(p.raw_probability.values()) for p in predictions])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_explained", [0, None])
def test_probabilities_are_those_of_the_training_forward(family: str, num_explained: int | None) -> None:
    made = bundle(family)
    batch = collate(made.tokenizer.encode_rows(ROWS))
    with torch.no_grad():
        packed = made.model(batch.input_ids, batch.position_ids, batch.cls_index, batch.lm_index).cls_logits_EK.numpy()
    found = predictor(made).predict(ROWS, num_explained=num_explained)
    assert np.array([p.logits for p in found]) == pytest.approx(packed, abs=1e-5)
    probabilities = np.array([[p.raw_probability["no"], p.raw_probability["yes"]] for p in found])
    assert probabilities == pytest.approx(IDENTITY.apply(packed), abs=1e-5)
    assert packed.std(axis=0).min() > 0.05
    assert [p.id for p in found] == [row.id for row in ROWS]
    assert [p.label for p in found] == [None if row.label is None else ("no", "yes")[row.label] for row in ROWS]


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_and_order_change_nothing(family: str) -> None:
    whole = predictor(bundle(family)).predict(ROWS, free=True)
    single = predictor(bundle(family), budget=1).predict(ROWS, free=True)
    small = predictor(bundle(family), budget=150).predict(ROWS[::-1], free=True)[::-1]
    assert words(single) == words(whole) == words(small)
    assert numbers(single) == pytest.approx(numbers(whole), abs=1e-5)
    assert numbers(small) == pytest.approx(numbers(whole), abs=1e-5)


def test_no_batch_is_over_the_budget_and_the_costliest_is_the_first() -> None:
    made, shapes = predictor(bundle(), budget=150), []
    lengths = [(n, len(p)) for n, p in enumerate(made.bundle.tokenizer.encode_prompts([row.text for row in ROWS]))]
    for num_new in (0, 10):
        batches = list(made._batches(lengths, num_new))
        assert sorted(n for batch in batches for n in batch) == list(range(len(ROWS)))
        shapes = [(max(dict(lengths)[n] for n in batch) + num_new) * len(batch) for batch in batches]
        assert max(shapes) <= 150
        longest = [max(dict(lengths)[n] for n in batch) for batch in batches]
        assert longest == sorted(longest, reverse=True)
        assert len(batches) > 1


def test_rows_of_unlike_length_stand_in_batches_of_their_own() -> None:
    made = predictor(bundle(), budget=1600)
    lengths = list(enumerate([10, 100, 90, 12, 81, 79, 170, 130]))
    assert list(made._batches(lengths, 0)) == [[6], [7], [1, 2, 4], [5, 3], [0]], "79 is not worth one"
    # Of 9 shared tokens each, 81 - 9 is less than 0.8 * (100 - 9); with 100 written after each, few lengths are unlike.
    assert list(made._batches(lengths, 0, 9)) == [[6], [7], [1, 2], [4, 5], [3, 0]]
    assert list(made._batches(lengths, 100)) == [[6, 7, 1, 2, 4], [5, 3, 0]]


def test_what_all_rows_open_with_is_run_once_for_all_batches() -> None:
    made, shapes = bundle(), []
    template = "Is there a fever in what the old man with pain says? {text}\nUrgent?"
    asked = made.task.model_copy(update={"prompt_template": template})
    tokenizer = RowTokenizer(tiny_tokenizer(), asked, max_prompt_tokens=100, max_explanation_tokens=32)
    other = replace(made, task=asked, tokenizer=tokenizer, model=tiny_dual())
    alone = predictor(other, budget=1).predict(ROWS[:1])
    other.model.causal_lm.get_decoder().register_forward_pre_hook(
        lambda m, a, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    found = predictor(other, budget=300).predict(ROWS, free=True)
    lengths = sorted(map(len, tokenizer.encode_prompts([row.text for row in ROWS])))
    num_opening = shapes[0][1]
    assert shapes[0][0] == 1
    assert 8 < num_opening < lengths[0]
    assert all(width <= lengths[-1] - num_opening for _, width in shapes[1:]), "one pass over the opening"
    assert len([shape for shape in shapes if shape[1] > 1]) > 3
    assert found[0].explanation == alone[0].explanation
    assert numbers(found[:1]) == pytest.approx(numbers(alone), abs=1e-5)


def test_the_text_after_the_verdict_is_the_explanation() -> None:
    made = bundle()
    for row, found in zip(ROWS, predictor(made).predict(ROWS), strict=True):
        prompt = made.tokenizer.encode_prompts([row.text])[0]
        opening = made.tokenizer.verdicts[("no", "yes").index(found.predicted)]
        ids = made.model.causal_lm.generate(
            torch.tensor([prompt + opening]),
            do_sample=False,
            max_new_tokens=10 - len(opening),
            eos_token_id=2,
            pad_token_id=0,
        )
        assert found.explanation == made.tokenizer.decode(ids[0, len(prompt) + len(opening) :].tolist()).strip()
        assert found.explanation
        assert found.free_verdict is found.free_explanation is None


def test_only_the_first_rows_are_explained_where_it_is_asked() -> None:
    found = predictor(bundle()).predict(ROWS, num_explained=3, free=True)
    assert [p.explanation is not None for p in found] == [n < 3 for n in range(len(ROWS))]
    assert {p.free_verdict for p in found[3:]} == {None}
    assert words(found[:3]) == words(predictor(bundle()).predict(ROWS, free=True)[:3])


def margin_of(of: Bundle, num_uncertain: int) -> float:
    """The margin within which so many of the rows lie."""
    ranked = sorted(distance(of, p) for p in predictor(of).predict(ROWS, num_explained=0))
    return (ranked[num_uncertain - 1] + ranked[num_uncertain]) / 2


def distance(of: Bundle, prediction: Prediction) -> float:
    first, second = sorted(prediction.probability.values(), reverse=True)[:2]
    return abs(prediction.probability["yes"] - 0.5) if of.threshold is not None else first - second


@pytest.mark.parametrize("labels", [("no", "yes"), ("low", "middle", "high")])
def test_uncertain_rows_alone_are_explained_after_all_probabilities(labels: tuple[str, ...]) -> None:
    made = bundle(labels=labels)
    margin = margin_of(made, 5)
    parts = list(predictor(made, budget=150).stream(ROWS, margin=margin))
    found = predictor(made, budget=150).predict(ROWS, margin=margin)
    assert [p.explanation is not None for p in found] == [distance(made, p) <= margin for p in found]
    assert sum(p.explanation is not None for p in found) == 5
    everything = predictor(made).predict(ROWS)
    assert [p.explanation for p in found if p.explanation is not None] == [
        everything[n].explanation for n, p in enumerate(found) if p.explanation is not None
    ]
    assert numbers(found).tolist() == numbers(predictor(made, budget=150).predict(ROWS, num_explained=0)).tolist()
    first = next(n for n, part in enumerate(parts) if any(p.explanation for p in part.found.values()))
    assert {n for part in parts[:first] for n in part.found} == set(range(len(ROWS))), "probabilities come first"
    assert {n for part in parts for n in part.waiting} == {n for part in parts[first:] for n in part.found}


def test_uncertain_rows_are_sought_among_the_first_ones() -> None:
    found = predictor(bundle()).predict(ROWS, num_explained=6, margin=1.0)
    assert [p.explanation is not None for p in found] == [n < 6 for n in range(len(ROWS))]


@pytest.mark.parametrize("margin", [None, 0.2])
def test_what_is_known_is_not_run_again_and_the_rest_comes_out_the_same(margin: float | None) -> None:
    made = predictor(bundle(), budget=150)
    parts = [part.found for part in made.stream(ROWS, num_explained=9, margin=margin)]
    assert len(parts) > 3
    for stopped in range(len(parts) + 1):
        known: dict[int, Prediction] = {}
        for part in parts[:stopped]:
            known |= part
        rest = [part.found for part in made.stream(ROWS, num_explained=9, margin=margin, known=known)]
        assert rest == parts[stopped:]


def taught(made: Bundle, opening: str) -> Bundle:
    """A bundle whose model writes `opening` by itself, whatever the prompt: only the position counts."""
    model = tiny_dual()
    ids = made.tokenizer.tokenizer(opening, add_special_tokens=False)["input_ids"]
    lm_head = torch.nn.Linear(32, 320, bias=True)
    with torch.no_grad():
        lm_head.weight.zero_()
        lm_head.bias.zero_()
    position = -1

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal position
        position += 1
        logits = torch.zeros(len(hidden), 320)
        logits[:, ids[position] if position < len(ids) else 2] = 1.0
        return logits

    def restart(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal position
        if kwargs["input_ids"].shape[1] > 1:
            position = -1

    lm_head.forward = forward  # type: ignore[method-assign]
    model.causal_lm.set_output_embeddings(lm_head)
    model.causal_lm.get_decoder().register_forward_pre_hook(restart, with_kwargs=True)
    return replace(made, model=model)


def test_the_free_verdict_is_what_the_model_writes_by_itself() -> None:
    conditioned = predictor(taught(bundle(), " yes. So.")).predict(ROWS, free=True)
    assert {p.predicted for p in conditioned} == {"no", "yes"}
    assert {p.free_verdict for p in conditioned} == {"yes"}
    assert {p.explanation for p in conditioned if p.predicted == "yes"} == {"So."}
    assert {p.free_explanation for p in conditioned} == {"So."}
    assert {(p.is_cut, p.is_free_cut) for p in conditioned} == {(False, False)}


def test_a_free_text_that_is_no_verdict_is_none() -> None:
    found = predictor(taught(bundle(), " well.")).predict(ROWS, free=True)
    assert {(p.free_verdict, p.free_explanation) for p in found} == {(None, "well.")}


def test_a_text_that_meets_the_limit_is_cut() -> None:
    long = predictor(taught(bundle(), " yes. So it is, so it was, so it will be.")).predict(ROWS, free=True)
    assert {(p.is_cut, p.is_free_cut) for p in long} == {(True, True)}
    assert {p.is_cut for p in predictor(bundle()).predict(ROWS, num_explained=0)} == {False}


def test_where_every_verdict_is_the_models_own_nothing_is_read_twice() -> None:
    made, widths = taught(bundle(), " yes. So."), []
    with torch.no_grad():
        made.model.head.bias += torch.tensor([-100.0, 100.0])
    decoder = made.model.causal_lm.get_decoder()
    decoder.register_forward_pre_hook(
        lambda m, a, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    lengths = [(n, len(p)) for n, p in enumerate(made.tokenizer.encode_prompts([row.text for row in ROWS]))]
    found = predictor(made).predict(ROWS, free=True)
    assert {(p.predicted, p.free_verdict) for p in found} == {("yes", "yes")}
    assert sum(width > 1 for width in widths) == len(list(predictor(made)._batches(lengths, 10)))


def test_calibrator_and_threshold_decide() -> None:
    raw = predictor(bundle()).predict(ROWS, num_explained=0)
    calibrated = recalibrated(bundle(), Calibrator("temperature", {"temperature": (2.0,)}, 50), 0.7)
    assert calibrated.model is bundle().model
    for one, other in zip(raw, predictor(calibrated).predict(ROWS, num_explained=0), strict=True):
        assert other.raw_probability == one.raw_probability == one.probability
        assert other.probability["yes"] == pytest.approx(1 / (1 + np.exp((one.logits[0] - one.logits[1]) / 2)))
        assert sum(other.probability.values()) == pytest.approx(1)
        assert other.predicted == ("yes" if other.probability["yes"] >= 0.7 else "no")


def test_more_labels_than_two() -> None:
    found = predictor(bundle(labels=("low", "middle", "high"))).predict(ROWS)
    assert all(list(p.probability) == ["low", "middle", "high"] for p in found)
    assert all(p.predicted == max(p.probability, key=p.probability.__getitem__) for p in found)


def test_progress_counts_every_row() -> None:
    heard: list[int] = []
    predictor(bundle(), budget=150).predict(ROWS, num_explained=4, on_progress=heard.append)
    assert sum(heard) == len(ROWS)
    assert len(heard) > 2


def test_no_rows() -> None:
    assert predictor(bundle()).predict([]) == []
