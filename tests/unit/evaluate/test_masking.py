"""Label names and the verdict's words are hidden, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsgen_dist.config.sections import Task
from clsgen_dist.evaluate.masking import LabelMask, says_something


def hide(labels: list[str], text: str, template: str = "{label}.") -> str:
    """What is left of a text, single-spaced."""
    mask = LabelMask(Task(question="Which?", labels=labels, verdict_template=template))
    return " ".join(mask.hide(text).split())


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("This CONTRADICTS the premise.", "this the premise."),
        ("A contradiction, contradictory and contradicted.", "a , and ."),
        ("It is non-contradictory.", "it is ."),
        ("It doesn't entail that; it is not an entailment.", "it that; it is ."),
        ("There is no contradiction", "there is"),
        ("A man is not a woman.", "a man is not a woman."),
        ("The contract and the tail of entries", "the contract and the tail of entries"),
    ],
)
def test_plain_words_are_hidden_in_their_forms_with_what_negates_them(text: str, left: str) -> None:
    assert hide(["contradiction", "entailment"], text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("No.", "."),
        ("No, because she has no fever", ", because she has no fever"),
        ("The answer is no", "the answer is"),
        ("no-one saw it; yes", "no-one saw it;"),
        ("There was no difference between the groups.", "there was no difference between the groups."),
        ("yes no no yes", ""),
    ],
)
def test_a_name_that_is_an_ordinary_word_stays_where_it_is_one(text: str, left: str) -> None:
    assert hide(["no", "yes"], text) == left


@pytest.mark.parametrize(
    ("labels", "text", "left"),
    [
        (["routine", "urgent"], "Urgently needed, not urgent", "needed,"),
        (["not urgent", "urgent"], "It is not urgent: non-urgent, urgent", "it is : ,"),
        (["partly_true", "true"], "Partly true, a true story. That is true.", ", a true story. that is ."),
        (["0", "1"], "1 patient of 10 got label 1.", "1 patient of 10 got label ."),
        (["sci/tech", "world"], "A Sci/Tech item, worldwide", "a item,"),
        (["sadness", "joy"], "sad words, joyless; joy", "sad words, joyless;"),
        (["否", "是"], "是。因为发烧", "。因为发烧"),
        (["R\u00c9FUT\u00c9", "soutenu"], "re\u0301fute\u0301 par le texte", "par le texte"),
    ],
)
def test_names_of_other_kinds(labels: list[str], text: str, left: str) -> None:
    assert hide(labels, text) == left


def test_words_of_the_verdict_are_hidden_wherever_they_stand() -> None:
    found = hide(["no", "yes"], "Answer: yes. Grounds: the fever is the answer.", "Answer: {label}. Grounds:")
    assert found == ": . : the fever is the ."


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", False), ("the answer is", False), ("... clearly, so.", False), ("it is 40", True), ("发烧", True)],
)
def test_empty_words_alone_give_no_reason(text: str, expected: bool) -> None:
    assert says_something(text) is expected


#: What a label may hold: no line ends, other control characters or halves of a surrogate pair.
LETTERS = st.characters(exclude_categories=("C", "Zl", "Zp"))


@given(text=st.text(max_size=80), label=st.text(LETTERS, min_size=1, max_size=12).filter(str.strip))
def test_any_text_and_any_label_can_be_hidden(text: str, label: str) -> None:
    other = "x" if label.strip().casefold() != "x" else "z"
    LabelMask(Task(question="Which?", labels=[label, other])).hide(f"{text} {label} {text}")
