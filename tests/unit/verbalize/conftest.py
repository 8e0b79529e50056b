"""Simulated answers: what an overconfident and biased model would say, on a grid of 5 %, of rows with drawn labels."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from clsgen_dist.calibrate.simplex import softmax
from clsgen_dist.verbalize.answers import Answers, name_groups
from clsgen_dist.verbalize.parsing import Said
from clsgen_dist.verbalize.study import Study, study

CUES = ("The patient denies pain.", "It may be possible.", "All is quite clear.", "Nothing was found without imaging.")

#: How every study of the tests is made, unless it is about one of these.
SETTINGS: Mapping[str, object] = {
    "floor": None,
    "constant": "centred",
    "max_temperature": 20.0,
    "num_bins": 10,
    "num_bootstrap": 40,
    "seed": 0,
}


def simulate_answers(
    num_rows: int,
    labels: tuple[str, ...] = ("no", "yes"),
    *,
    name: str = "a",
    seed: int = 0,
    sharpness: float = 2.0,
    bias: float = 0.8,
    failing: float = 0.1,
    texts: bool = False,
    tokens: bool = False,
) -> Answers:
    """Rows in groups of two. Labels are drawn from softmax(z); said is softmax(sharpness z + bias), rounded to 5 %."""
    generator = np.random.default_rng([seed, *name.encode()])
    num_labels = len(labels)
    honest_NK = 1.2 * generator.normal(size=(num_rows, num_labels))
    true_NK = softmax(honest_NK)
    labels_N = (generator.random((num_rows, 1)) > true_NK.cumsum(axis=1)).sum(axis=1).clip(max=num_labels - 1)
    push_K = np.where(np.arange(num_labels) == num_labels - 1, bias, 0.0)
    grid_NK = np.round(20 * softmax(sharpness * honest_NK + push_K))
    grid_NK[:, 0] = np.maximum(grid_NK[:, 0] + 20 - grid_NK.sum(axis=1), 0)
    said = [
        Said(None, None, "refusal" if generator.random() < 0.7 else "bad_sum", None)
        if generator.random() < failing
        else Said(tuple((row_K / row_K.sum()).tolist()), 1.0, None, "lines")
        for row_K in grid_NK
    ]
    ids = tuple(f"{name}{i}" for i in range(num_rows))
    words = [" ".join(CUES[j] for j in generator.integers(0, 4, size=generator.integers(1, 6))) for _ in ids]
    return Answers(
        source=f"{name}.jsonl",
        labels=labels,
        ids=ids,
        said=tuple(said),
        labels_N=labels_N.astype(np.int64),
        groups_N=name_groups(ids, [f"{name}{i // 2}" for i in range(num_rows)]),
        texts=tuple(f"{text} Case {id}." for text, id in zip(words, ids, strict=True)) if texts else None,
        token_probabilities={"label_tokens": softmax(1.5 * honest_NK)} if tokens else {},
    )


@pytest.fixture(scope="session")
def make_answers() -> Callable[..., Answers]:
    return simulate_answers


@pytest.fixture(scope="session")
def run_study() -> Callable[..., Study]:
    def run(fit: Answers, test: Answers, **changes: object) -> Study:
        return study(fit, test, **{**SETTINGS, **changes})  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def two_labels(run_study: Callable[..., Study]) -> Study:
    fit, test = (simulate_answers(n, name=name, texts=True) for n, name in ((300, "a"), (400, "b")))
    return run_study(fit, test)


@pytest.fixture(scope="session")
def three_labels(run_study: Callable[..., Study]) -> Study:
    labels = ("anger", "fear $x$", "<b>joy</b>")
    return run_study(*(simulate_answers(300, labels, name=name, failing=0.0) for name in ("a", "b")))


@pytest.fixture(scope="session")
def mostly_silent(run_study: Callable[..., Study]) -> Study:
    """Three answers in a hundred hold a distribution; the tokens of the labels speak for all."""
    return run_study(*(simulate_answers(300, name=name, failing=0.97, tokens=True) for name in ("a", "b")))
