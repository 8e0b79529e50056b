"""The thinking of reasoning models."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clsgen_dist.chat.thinking import without_thinking


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Fever is high.", "Fever is high."),
        ("<think>Let me see.</think>\n\nFever is high.", "Fever is high."),
        ("<think></think>Fever.", "Fever."),
        ("<THINK>a\nb</Think> Fever.", "Fever."),
        ("<thinking>a</thinking>Fever.", "Fever."),
        ("<think >a</think >Fever.", "Fever."),
        ("Fever. <think>a</think> High. <think>b</think>", "Fever.\nHigh."),
        ("<think>I go on and on", ""),
        ("Fever. <think>I go on", "Fever."),
        # The opening tag stood in the prompt.
        ("Let me see.</think> Fever.", "Fever."),
        ("a</think>b</think> Fever.", "Fever."),
        # A model that thinks about tags.
        ("<think>may I say <think> here?</think> Fever.", "Fever."),
        ("<think>a <think>b</think> c</think> Fever.", "Fever."),
        ("<think>a</think>", ""),
        ("", ""),
        # Words that only look like it.
        ("I think <b>so</b>; <thinker>, < think>", "I think <b>so</b>; <thinker>, < think>"),
    ],
)
def test_thinking_is_cut_out(answer: str, words: str) -> None:
    assert without_thinking(answer) == words


_PIECES = st.sampled_from(["<think>", "</think>", "<Thinking>", "</thinking>", "<think", ">", "</", "think", " ", "\n"])


@given(st.lists(_PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_no_tag_is_ever_left(answer: str) -> None:
    words = without_thinking(answer)
    assert not re.search(r"</?think(ing)?[ \t]*>", words, re.IGNORECASE)
    assert without_thinking(words) == words


@given(
    st.text(alphabet=st.characters(exclude_characters="<>")), st.text(alphabet=st.characters(exclude_characters="<>"))
)
def test_words_after_thinking_stay_whole(thinking: str, words: str) -> None:
    assert without_thinking(f"<think>{thinking}</think>{words}") == words.strip()
    assert without_thinking(f"{thinking}</think>{words}") == words.strip()
