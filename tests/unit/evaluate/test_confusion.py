"""Which labels are taken for which."""

from collections.abc import Callable
from dataclasses import replace

from clsgen_dist.evaluate.confusion import MAX_MISTAKES, count_confusions
from tests.support.evaluated import Split

ABC = ["a", "b", "c"]


def test_lines_are_true_labels_and_rows_without_one_are_left_out(make_split: Callable[..., Split]) -> None:
    (one, *_), _ = make_split(2, ABC, threshold=None)
    pairs = [("a", "a"), ("a", "b"), ("a", "b"), ("c", "a"), (None, "c")]
    confusion = count_confusions([replace(one, label=t, predicted=d) for t, d in pairs], ABC)
    assert confusion.num_rows_KK.tolist() == [[1, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert confusion.share(0, 1) == 2 / 3
    assert confusion.share(1, 1) == 0.0
    assert confusion.mistakes() == [("a", "b", 2), ("c", "a", 1)]


def test_many_labels_are_told_by_their_mistakes(make_split: Callable[..., Split]) -> None:
    labels = [f"label {n}" for n in range(11)]
    predictions, _ = make_split(600, labels, threshold=None)
    confusion = count_confusions(predictions, labels)
    assert not confusion.fits_a_table
    mistakes = confusion.mistakes()
    assert len(mistakes) == MAX_MISTAKES
    assert [count for *_, count in mistakes] == sorted((count for *_, count in mistakes), reverse=True)
    assert count_confusions([], labels[:10]).fits_a_table
