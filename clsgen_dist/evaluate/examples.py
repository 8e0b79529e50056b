"""Rows to read: which ones a report shows, and what it shows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from clsgen_dist.evaluate.excerpt import excerpt
from clsgen_dist.evaluate.highlight import Piece, shared_pieces
from clsgen_dist.records import Prediction, Row

#: Rows of all kinds together.
NUM_EXAMPLES = 12

#: Kinds in the order to show them.
RIGHT, WRONG, UNSURE, CONTRADICTORY = (
    "Surest right answers",
    "Surest wrong answers",
    "Nearest to the decision",
    "Left alone, the explanation argues for another label",
)


@dataclass(frozen=True)
class Example:
    """One row as the page shows it.

    Attributes:
        row, prediction: what it is made of.
        text: the row's text, cut where it is long; source 0 is shared with the explanation, 1 with the free one.
        explanation: the explanation that follows the decision; None where none was asked for.
        free_explanation: what the model writes when it is left alone; None where that is the same, or nobody asked.
        contradicts: whether the free explanation opens with another label than the decision.
    """

    row: Row
    prediction: Prediction
    text: list[Piece]
    explanation: list[Piece] | None
    free_explanation: list[Piece] | None
    contradicts: bool


def choose_examples(
    predictions: Sequence[Prediction], rows: Sequence[Row], threshold: float | None
) -> list[tuple[str, list[tuple[Prediction, Row]]]]:
    """Up to twelve rows to read: surest right and wrong answers, those nearest to the decision, and contradictions.

    The kinds take turns, so that each gets three and what one lacks goes to the others. Rows with an explanation go
    first. Right, wrong and contradictory answers take turns between the predicted labels, too, so that a frequent label
    does not fill the page.

    Returns:
        (title, [(prediction, row), ...]) of each kind that has any; no row stands twice.
    """
    row_of = {row.id: row for row in rows}
    surest = sorted(predictions, key=lambda p: (p.explanation is None, -abs(_margin(p, threshold)), p.id))
    pools = {
        RIGHT: _take_turns([p for p in surest if p.label is not None and p.label == p.predicted]),
        WRONG: _take_turns([p for p in surest if p.label is not None and p.label != p.predicted]),
        UNSURE: sorted(predictions, key=lambda p: (p.explanation is None, abs(_margin(p, threshold)), p.id)),
        CONTRADICTORY: _take_turns([p for p in surest if contradicts(p)]),
    }
    chosen: dict[str, list[tuple[Prediction, Row]]] = {kind: [] for kind in pools}
    shown: set[str] = set()
    # The rarest kind first: a contradiction may also be the surest wrong answer, and there are more of those.
    turns = sorted(pools, key=lambda kind: len(pools[kind]))
    waiting = {kind: iter(pools[kind]) for kind in turns}
    while waiting and len(shown) < NUM_EXAMPLES:
        for kind in list(waiting):
            prediction = next((p for p in waiting[kind] if p.id not in shown), None)
            if prediction is None:
                del waiting[kind]
            elif len(shown) < NUM_EXAMPLES:
                shown.add(prediction.id)
                chosen[kind].append((prediction, row_of[prediction.id]))
    return [(kind, of_kind) for kind, of_kind in chosen.items() if of_kind]


def to_example(prediction: Prediction, row: Row) -> Example:
    """What the page shows of a row: texts cut where they are long, shared words found."""
    free = prediction.free_explanation
    if (
        free is not None
        and (free.strip() or "") == (prediction.explanation or "").strip()
        and not contradicts(prediction)
    ):
        free = None
    given = prediction.explanation
    pieces = shared_pieces(row.text, [given or "", free or ""])
    return Example(
        row=row,
        prediction=prediction,
        text=excerpt(pieces),
        explanation=None if given is None else excerpt([Piece(given, None)]),
        free_explanation=None if free is None else excerpt([Piece(free, None)]),
        contradicts=contradicts(prediction),
    )


def contradicts(prediction: Prediction) -> bool:
    """Whether the model, left alone, opens with another label than the one decided on."""
    return prediction.free_verdict is not None and prediction.free_verdict != prediction.predicted


def _take_turns(ranked: list[Prediction]) -> list[Prediction]:
    """The same, taking turns between predicted labels."""
    names = sorted({p.predicted for p in ranked})
    turns = zip_longest(*([p for p in ranked if p.predicted == name] for name in names))
    return [p for turn in turns for p in turn if p is not None]


def _margin(prediction: Prediction, threshold: float | None) -> float:
    """How far a probability lies from tipping the decision, 0 to 1."""
    probabilities = list(prediction.probability.values())
    if threshold is not None and len(probabilities) == 2:
        return probabilities[1] - threshold
    first, second = sorted(probabilities, reverse=True)[:2]
    return first - second
