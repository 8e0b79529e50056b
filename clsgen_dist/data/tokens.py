"""Rows -> token ids, once, into an Arrow file that every rank maps into memory.

A sequence is [BOS] prompt | verdict, explanation, EOS. A prompt over its limit loses tokens from the middle of the
text, never from the question or the end of the prompt; an explanation over its limit loses its end, never the
verdict. Both are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from clsgen_dist.config.sections import Data, Model, Task
from clsgen_dist.data import prompts
from clsgen_dist.errors import ConfigError, DataError
from clsgen_dist.records import UNLABELLED, Row

_SCHEMA = pa.schema(
    [
        ("prompt", pa.list_(pa.int32())),
        ("completion", pa.list_(pa.int32())),
        ("label", pa.int32()),
        ("num_unscored", pa.int32()),
    ]
)
_ROWS_A_BATCH = 1024


class TokenizerLike(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    eos_token_id: int | None
    bos_token_id: int | None
    chat_template: Any

    def __call__(self, text: Any, **options: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...
    def decode(self, token_ids: Any, **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One row as token ids.

    Attributes:
        prompt: ids of the prompt, BOS included; the head reads at the last one.
        completion: ids of verdict, explanation and EOS; empty where the row has no explanation.
        label: number of the label, or UNLABELLED.
        num_unscored: tokens at the start of `completion` that carry no loss.
    """

    prompt: np.ndarray
    completion: np.ndarray
    label: int
    num_unscored: int


def load_tokenizer(model: Model, folder: str) -> TokenizerLike:
    """Loads the tokenizer of a backbone.

    Raises:
        ConfigError: there is none, or it has no EOS token.
    """
    from transformers import AutoTokenizer  # heavy; the rest of this module works with any tokenizer

    try:
        tokenizer: TokenizerLike = AutoTokenizer.from_pretrained(
            folder, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.name_or_path: {folder} has no tokenizer ({str(error).splitlines()[0]})") from None
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model.name_or_path: the tokenizer of {folder} has no EOS token, so no explanation can end")
    return tokenizer


class RowTokenizer:
    """Turns texts into prompts and labels with explanations into completions, for one task and one tokenizer."""

    def __init__(self, tokenizer: TokenizerLike, task: Task, *, max_prompt_tokens: int, max_explanation_tokens: int):
        """Raises DataError if question, label names and template alone do not fit into `max_prompt_tokens`."""
        self.tokenizer = tokenizer
        self.task = task
        self.max_prompt_tokens = max_prompt_tokens
        self.max_explanation_tokens = max_explanation_tokens
        self.num_cut_prompts = 0
        self.num_cut_explanations = 0
        assert tokenizer.eos_token_id is not None  # load_tokenizer refuses a tokenizer without
        self.eos = tokenizer.eos_token_id
        frame = prompts.prompt_frame(task)
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": frame}]
            try:
                frame = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # noqa: BLE001 - a template is a program in a sandbox, and may raise anything
                reason = (str(error) or type(error).__name__).splitlines()[0][:200]
                raise ConfigError(f"model.name_or_path: the tokenizer's chat template fails ({reason})") from None
        before, after = prompts.split_frame(frame)
        self._before = self._ids([before])[0]
        self._after = self._ids([after])[0]
        # What opens every text of a tokenizer; a chat template writes it by itself.
        self.bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None and _adds_bos(tokenizer) else None
        if not tokenizer.chat_template and self.bos is not None:
            self._before = [self.bos, *self._before]
        if len(self._before) + len(self._after) >= max_prompt_tokens:
            raise DataError(
                f"the prompt without any text has {len(self._before) + len(self._after)} tokens, "
                f"data.max_prompt_tokens is {max_prompt_tokens}: raise it, or shorten task.question or prompt_template"
            )
        # A chat turn starts on a fresh line, a plain prompt ends in the middle of one.
        self._lead = "" if tokenizer.chat_template else " "
        self.verdicts = [self._ids([self._lead + prompts.verdict(task, k)])[0] for k in range(len(task.labels))]

    @property
    def text_room(self) -> int:
        """Tokens of a text that fit into a prompt; a longer one is cut."""
        return self.max_prompt_tokens - len(self._before) - len(self._after)

    def count_text_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of some texts by themselves, uncut."""
        return [len(ids) for ids in self._ids(texts, as_data=True)]

    def encode_prompts(self, texts: list[str]) -> list[list[int]]:
        """Ids of the prompts of some texts, each at most `max_prompt_tokens` long."""
        room = self.text_room
        encoded = []
        for ids in self._ids(texts, as_data=True):
            if len(ids) > room:
                self.num_cut_prompts += 1
                ids = ids[: (room + 1) // 2] + ids[len(ids) - room // 2 :]
            encoded.append(self._before + ids + self._after)
        return encoded

    def encode_rows(self, rows: list[Row]) -> list[TokenizedRow]:
        """Ids of some rows. A row without explanation has no completion; one without label opens without verdict."""
        explanations = self.encode_words([row.explanation or "" for row in rows])
        encoded = []
        for row, prompt, explanation in zip(
            rows, self.encode_prompts([r.text for r in rows]), explanations, strict=True
        ):
            completion = self._completion(row.label, explanation) if row.explanation else []
            label = UNLABELLED if row.label is None else row.label
            # Without a verdict, the first word of the reason must not be learnt as how an answer opens.
            num_unscored = int(bool(completion) and row.label is None)
            encoded.append(TokenizedRow(np.array(prompt), np.array(completion, dtype=np.int64), label, num_unscored))
        return encoded

    def encode_words(self, explanations: list[str]) -> list[list[int]]:
        """Ids of explanations as they stand after a verdict, without EOS and uncut; none where there are no words."""
        return self._ids([" " + words if words else "" for words in explanations], as_data=True)

    def encode_plain(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts that answer no prompt, each after BOS where the tokenizer puts one there."""
        opening = [self.bos] if self.bos is not None else []
        return [opening + ids for ids in self._ids(texts, as_data=True)]

    def decode(self, ids: list[int]) -> str:
        """The words of generated ids, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _completion(self, label: int | None, explanation: list[int]) -> list[int]:
        opening = self.verdicts[label] if label is not None else []
        whole = [*opening, *explanation, self.eos]
        if len(whole) <= self.max_explanation_tokens:
            return whole
        self.num_cut_explanations += 1  # no EOS: a cut reason must not teach to stop there
        return whole[: max(self.max_explanation_tokens, len(opening))]

    def _ids(self, texts: list[str], *, as_data: bool = False) -> list[list[int]]:
        """Token ids; `as_data` reads the names of special tokens as plain words, so no text can end a turn."""
        if not texts:  # a rank without a row; tokenizers refuse an empty list
            return []
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=as_data)[
            "input_ids"
        ]
        return ids


def _adds_bos(tokenizer: TokenizerLike) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids[:1] == [tokenizer.bos_token_id])


def row_tokenizer(tokenizer: TokenizerLike, task: Task, data: Data) -> RowTokenizer:
    """The RowTokenizer of a configuration."""
    return RowTokenizer(
        tokenizer,
        task,
        max_prompt_tokens=data.max_prompt_tokens,
        max_explanation_tokens=data.max_explanation_tokens,
    )


def write_tokens(path: Path, rows: Iterable[Row], tokenizer: RowTokenizer) -> dict[str, int]:
    """Tokenises a split into an Arrow file; returns counts, which also stand in the file.

    Returns:
        num_rows, num_tokens, num_completion_tokens, num_cut_prompts, num_cut_explanations.
    """
    cut_before = (tokenizer.num_cut_prompts, tokenizer.num_cut_explanations)
    stream = iter(rows)
    batches = iter(lambda: list(islice(stream, _ROWS_A_BATCH)), [])
    counts = write_tokenized(path, (tokenizer.encode_rows(some) for some in batches))
    counts["num_cut_prompts"] = tokenizer.num_cut_prompts - cut_before[0]
    counts["num_cut_explanations"] = tokenizer.num_cut_explanations - cut_before[1]
    path.with_suffix(".json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
    return counts


def write_tokenized(path: Path, batches: Iterable[list[TokenizedRow]]) -> dict[str, int]:
    """Writes rows that are tokenised already, as `TokenizedSplit` reads them.

    Returns:
        num_rows, num_tokens, num_completion_tokens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(("num_rows", "num_tokens", "num_completion_tokens"), 0)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for encoded in batches:
            columns = {name: [getattr(row, name) for row in encoded] for name in _SCHEMA.names}
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=_SCHEMA))
            counts["num_rows"] += len(encoded)
            counts["num_tokens"] += sum(len(row.prompt) + len(row.completion) for row in encoded)
            counts["num_completion_tokens"] += sum(len(row.completion) - row.num_unscored for row in encoded)
    return counts


class TokenizedSplit:
    """A tokenised split, mapped into memory: reading a row costs its own bytes and no more.

    Attributes:
        lengths: tokens that a row brings into a micro-batch, shape (N,), int64.
        num_scored: language-model loss tokens of a row, shape (N,), int64.
        labels: numbers of the labels, shape (N,), int32.
    """

    def __init__(self, path: Path):
        source = pa.memory_map(str(path))
        self._table = pa.ipc.open_file(source).read_all()
        prompt, completion = (_list_lengths(self._table[name]) for name in ("prompt", "completion"))
        self.labels = self._table["label"].to_numpy()
        self.num_scored = completion - self._table["num_unscored"].to_numpy()
        # The last completion token is predicted, never read.
        self.lengths = prompt + np.maximum(completion - 1, 0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> TokenizedRow:
        row = self._table.slice(index, 1)
        prompt, completion = (row[name].chunk(0).flatten().to_numpy() for name in ("prompt", "completion"))
        return TokenizedRow(prompt, completion, row["label"][0].as_py(), row["num_unscored"][0].as_py())

    def __iter__(self) -> Iterator[TokenizedRow]:
        return (self[index] for index in range(len(self)))


def _list_lengths(column: pa.ChunkedArray) -> np.ndarray:
    offsets = [np.diff(chunk.offsets.to_numpy()) for chunk in column.chunks]
    return np.concatenate(offsets).astype(np.int64) if offsets else np.zeros(0, np.int64)
