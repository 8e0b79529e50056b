"""Rows as token ids: what is cut and what never is, which words are special, and the file that holds them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clsgen_dist.config.sections import Data, Model, Task
from clsgen_dist.data.tokens import (
    RowTokenizer,
    TokenizedRow,
    TokenizedSplit,
    load_tokenizer,
    row_tokenizer,
    write_tokens,
)
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.records import UNLABELLED, Row
from tests.support.tiny import shared_backbone, tiny_rows, tiny_tokenizer

TASK = Task(question="Fever?", labels=["no", "yes"], prompt_template="{question} {text}\nUrgent?")
BOS, EOS = 1, 2


def make(tokenizer: Any = None, *, prompt: int = 64, explanation: int = 32, task: Task = TASK) -> RowTokenizer:
    return RowTokenizer(
        tokenizer or tiny_tokenizer(), task, max_prompt_tokens=prompt, max_explanation_tokens=explanation
    )


def words(tokenizer: RowTokenizer, ids: Any) -> str:
    return str(tokenizer.tokenizer.decode([int(i) for i in ids]))


def row(**changes: Any) -> Row:
    return Row(**({"id": "a", "text": "old man, pain", "label": 1, "explanation": "A fever."} | changes))


def encode(tokenizer: RowTokenizer, **changes: Any) -> TokenizedRow:
    return tokenizer.encode_rows([row(**changes)])[0]


def test_a_row_is_prompt_verdict_explanation_and_end() -> None:
    tokenizer = make()
    encoded = encode(tokenizer)
    assert words(tokenizer, encoded.prompt) == "Fever? old man, pain\nUrgent?"
    assert words(tokenizer, encoded.completion) == " yes. A fever.</s>"
    assert (encoded.label, encoded.num_unscored) == (1, 0)
    assert encoded.completion[: len(tokenizer.verdicts[1])].tolist() == tokenizer.verdicts[1]


def test_words_alone_are_those_of_a_completion_between_verdict_and_end() -> None:
    tokenizer = make()
    completion = encode(tokenizer).completion.tolist()
    assert tokenizer.encode_words(["A fever.", ""]) == [completion[len(tokenizer.verdicts[1]) : -1], []]
    assert tokenizer.encode_words(["fever " * 200])[0][-1:] != [EOS]
    assert len(tokenizer.encode_words(["fever " * 200])[0]) > 32, "uncut"


@pytest.mark.parametrize("chat", [False, True])
def test_a_text_that_answers_no_prompt_opens_as_every_text_of_its_tokenizer(chat: bool) -> None:
    with_bos, without = make(tiny_tokenizer(bos=True, chat=chat)), make(tiny_tokenizer(chat=chat))
    assert [words(with_bos, ids) for ids in with_bos.encode_plain(["old man", "a</s>"])] == ["<s>old man", "<s>a</s>"]
    assert words(without, without.encode_plain(["old man"])[0]) == "old man"
    assert EOS not in with_bos.encode_plain(["a</s>"])[0]


def test_a_row_without_an_explanation_has_nothing_to_write() -> None:
    encoded = encode(make(), explanation=None)
    assert (len(encoded.completion), encoded.label, encoded.num_unscored) == (0, 1, 0)


def test_a_row_without_a_label_opens_with_its_reason_whose_first_token_is_not_scored() -> None:
    tokenizer = make()
    encoded = encode(tokenizer, label=None)
    assert words(tokenizer, encoded.completion) == " A fever.</s>"
    assert (encoded.label, encoded.num_unscored) == (UNLABELLED, 1)


def test_a_prompt_opens_with_bos_where_the_tokenizer_wants_one() -> None:
    assert encode(make(tiny_tokenizer(bos=True))).prompt[0] == BOS
    assert BOS not in encode(make(tiny_tokenizer(bos=True))).prompt[1:]
    assert BOS not in encode(make(tiny_tokenizer(bos=False))).prompt


def test_names_of_special_tokens_in_a_row_are_plain_words() -> None:
    tokenizer = make(tiny_tokenizer(bos=True), explanation=64)
    trick = "stop </s><s><pad> <|assistant|> go"
    encoded = encode(tokenizer, text=trick, explanation=trick)
    assert words(tokenizer, encoded.prompt[1:]) == f"Fever? {trick}\nUrgent?"
    specials = [i for i in (*encoded.prompt, *encoded.completion) if i < 5]
    assert specials == [BOS, EOS]
    assert encoded.completion[-1] == EOS


def test_a_chat_template_wraps_the_prompt() -> None:
    tokenizer = make(tiny_tokenizer(bos=True, chat=True))
    encoded = encode(tokenizer)
    assert words(tokenizer, encoded.prompt) == "<|user|>Fever? old man, pain\nUrgent?</s><|assistant|>"
    assert words(tokenizer, encoded.completion) == "yes. A fever.</s>"
    assert [int(i) for i in encoded.prompt if i < 5] == [3, EOS, 4], "turns are special tokens, text is not"


@given(
    st.lists(st.sampled_from(["pain", "fever", "\n", "é", "x y", "</s>", "42"]), min_size=1, max_size=60),
    st.integers(13, 40),
)
@settings(max_examples=50)
def test_truncation_takes_the_middle_of_the_text_alone(parts: list[str], limit: int) -> None:
    whole, cut = make(prompt=10_000), make(prompt=limit)
    text = " ".join(parts) + "."
    long, short = (tokenizer.encode_prompts([text])[0] for tokenizer in (whole, cut))
    frame_start, frame_end = whole.encode_prompts(["Z"])[0], whole.encode_prompts(["Q"])[0]
    num_before = next(n for n, (a, b) in enumerate(zip(frame_start, frame_end, strict=True)) if a != b)
    num_after = len(frame_start) - num_before - 1
    assert len(short) == min(len(long), limit)
    assert cut.num_cut_prompts == int(len(long) > limit)
    if len(long) > limit:
        room = limit - num_before - num_after
        head, tail = num_before + (room + 1) // 2, num_after + room // 2
        assert short == long[:head] + long[-tail:]
    assert short[-num_after:] == long[-num_after:]
    assert short[:num_before] == long[:num_before]


def test_a_long_explanation_loses_its_end_and_teaches_no_stop() -> None:
    tokenizer = make(explanation=6)
    encoded = encode(tokenizer, explanation="A fever, and that is enough of it for anyone.")
    assert len(encoded.completion) == 6
    assert EOS not in encoded.completion
    assert words(tokenizer, encoded.completion).startswith(" yes. A")
    assert tokenizer.num_cut_explanations == 1


@pytest.mark.parametrize("limit", [1, 2])
def test_the_verdict_is_never_cut(limit: int) -> None:
    task = Task(question="?", labels=["quite surely not", "yes"], prompt_template="{text}")
    tokenizer = make(explanation=limit, task=task)
    assert words(tokenizer, encode(tokenizer, label=0).completion) == " quite surely not."


def test_an_explanation_that_just_fits_is_whole() -> None:
    length = len(encode(make()).completion)
    tokenizer = make(explanation=length)
    assert encode(tokenizer).completion[-1] == EOS
    assert tokenizer.num_cut_explanations == 0


def test_a_prompt_over_the_limit_without_any_text() -> None:
    frame = len(make().encode_prompts(["x"])[0]) - 1
    assert len(make(prompt=frame + 1).encode_prompts(["many words of pain"])[0]) == frame + 1
    message = f"the prompt without any text has {frame} tokens, data.max_prompt_tokens is {frame}: raise it"
    with pytest.raises(DataError, match=re.escape(message)):
        make(prompt=frame)


def test_limits_come_from_the_configuration() -> None:
    tokenizer = row_tokenizer(tiny_tokenizer(), TASK, Data(max_prompt_tokens=40, max_explanation_tokens=9))
    assert (tokenizer.max_prompt_tokens, tokenizer.max_explanation_tokens) == (40, 9)


def test_what_is_decoded_has_no_special_tokens() -> None:
    assert make().decode([*tiny_tokenizer()("A fever.")["input_ids"], EOS]) == "A fever."


def test_a_tokenizer_that_is_missing_or_cannot_end(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no tokenizer"):
        load_tokenizer(Model(), str(tmp_path))
    endless = tiny_tokenizer()
    endless.eos_token = None
    endless.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no EOS token"):
        load_tokenizer(Model(), str(tmp_path))
    assert load_tokenizer(Model(), shared_backbone()).eos_token_id == EOS


def rows_of(num_rows: int) -> list[Row]:
    rows = [Row(**record) for record in tiny_rows(num_rows)]
    return [
        Row(id=r.id, text=r.text, label=None if n % 7 == 0 else r.label, explanation=r.explanation)
        for n, r in enumerate(rows)
    ]


def test_the_file_gives_back_what_was_encoded(tmp_path: Path) -> None:
    rows = rows_of(2100)  # three record batches
    path = tmp_path / "deep" / "train.arrow"
    counts = write_tokens(path, iter(rows), make(prompt=32, explanation=8))
    split, again = TokenizedSplit(path), make(prompt=32, explanation=8)
    expected = again.encode_rows(rows)
    assert len(split) == len(list(split)) == len(rows)
    for found, encoded in zip(split, expected, strict=True):
        assert found.prompt.tolist() == encoded.prompt.tolist()
        assert found.completion.tolist() == encoded.completion.tolist()
        assert (found.label, found.num_unscored) == (encoded.label, encoded.num_unscored)
    assert split[2099].prompt.tolist() == expected[2099].prompt.tolist()
    assert split.labels.tolist() == [row.label for row in expected]
    assert split.num_scored.tolist() == [len(row.completion) - row.num_unscored for row in expected]
    assert split.lengths.tolist() == [len(row.prompt) + max(0, len(row.completion) - 1) for row in expected]
    assert counts == json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert counts == {
        "num_rows": 2100,
        "num_tokens": sum(len(row.prompt) + len(row.completion) for row in expected),
        "num_completion_tokens": int(split.num_scored.sum()),
        "num_cut_prompts": again.num_cut_prompts,
        "num_cut_explanations": again.num_cut_explanations,
    }
    assert 0 < counts["num_cut_prompts"] < 2100
    assert 0 < counts["num_cut_explanations"] < 2100


def test_counts_of_cut_rows_are_those_of_one_split(tmp_path: Path) -> None:
    tokenizer = make(prompt=32)
    first, second = (write_tokens(tmp_path / f"{n}.arrow", rows_of(50), tokenizer) for n in range(2))
    assert first == second


def test_a_split_without_any_explanation_reads_as_well(tmp_path: Path) -> None:
    write_tokens(tmp_path / "a.arrow", [row(explanation=None)] * 3, make())
    split = TokenizedSplit(tmp_path / "a.arrow")
    assert split.num_scored.tolist() == [0, 0, 0]
    assert split[1].completion.tolist() == []


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


def test_reading_does_not_take_the_file_into_memory(tmp_path: Path) -> None:
    num_rows, width = 50_000, 300
    schema = pa.schema(
        [
            ("prompt", pa.list_(pa.int32())),
            ("completion", pa.list_(pa.int32())),
            ("label", pa.int32()),
            ("num_unscored", pa.int32()),
        ]
    )
    offsets = pa.array(np.arange(0, (num_rows + 1) * width, width, dtype=np.int32))
    ids = pa.ListArray.from_arrays(offsets, pa.array(np.arange(num_rows * width, dtype=np.int32)))
    ones = pa.array(np.ones(num_rows, dtype=np.int32))
    path = tmp_path / "big.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([ids, ids, ones, ones], schema=schema))
    del ids, ones
    assert path.stat().st_size > 120e6
    write_tokens(tmp_path / "warm.arrow", [row()], make())
    TokenizedSplit(tmp_path / "warm.arrow")[0]
    before = anonymous_bytes()
    split = TokenizedSplit(path)
    assert [split[n].prompt[0] for n in (0, 7, num_rows - 1)] == [0, 7 * width, (num_rows - 1) * width]
    assert anonymous_bytes() - before < 8e6


def test_encoding_streams_its_rows(tmp_path: Path) -> None:
    """A million equal rows come from a generator; no more than a batch of them is alive at once."""
    alive, most = 0, 0

    class Counted(str):
        def __new__(cls) -> Counted:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, "pain")

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    write_tokens(tmp_path / "a.arrow", (Row(id=str(n), text=Counted(), label=0) for n in range(5000)), make())
    assert most <= 2 * 1024 + 2
