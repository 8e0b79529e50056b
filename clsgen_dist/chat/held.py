"""Answers of a local model that are held to a JSON schema: of all tokens, only those can come next that keep to it.

Shape letters: B requests of a batch, T tokens, V vocabulary.

What a schema allows is worked out by llguidance, for tokens of any kind. One keyword is ours, `SUM`, as no JSON schema
can say what the numbers of an object sum to: with each number that was written, the schema of the rest is made anew, in
which no number is larger than what is left, and the last one is just that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from clsgen_dist.chat.interface import SUM
from clsgen_dist.errors import TeacherError

#: One spelling of each object, that of `json.dumps`. A small model that may write white space writes nothing else.
_SPELLING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
#: After "Answer:" a space comes first, as a token of its own or as the beginning of one.
_GRAMMAR = "start: / ?/ answer\nanswer: %json "
#: A key and its number, which is whole once something else follows.
_PAIR = re.compile(r'[{,]\s*+"(?:[^"\\]|\\.)*+"\s*+:\s*+(\d++)(?=[\s,}])')


class SchemaHolder:
    """Holds answers of one model to schemas."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """Takes a tokenizer and the name of its model, for messages.

        Raises:
            TeacherError: the tokenizer is none of the `tokenizers` library.
        """
        from llguidance import hf

        try:
            # Without slices, which speed up free text and take seconds to make.
            self._tokens = hf.from_tokenizer(tokenizer, slices=[])
        except Exception as error:  # noqa: BLE001 - a library in Rust, which raises many kinds
            raise TeacherError(
                f"{name}: its tokenizer cannot be held to a form ({error}), expected a fast one (tokenizer.json); take "
                "another model, or ask without verbalize.guided"
            ) from None
        self._name = name

    def begin(self, schema: dict[str, Any]) -> HeldAnswer:
        """An answer of which nothing is written yet.

        Raises:
            TeacherError: the schema asks for what cannot be held to.
        """
        return HeldAnswer(self, schema)

    def matcher(self, schema: dict[str, Any]) -> Any:
        """What may be written by a schema without `SUM`, from the beginning on.

        Raises:
            TeacherError: see `begin`.
        """
        import llguidance

        grammar = _GRAMMAR + json.dumps(schema | {"x-guidance": _SPELLING})
        matcher = llguidance.LLMatcher(self._tokens, grammar, log_level=0)
        if matcher.is_error():
            raise TeacherError(f"{self._name}: cannot be held to the schema {schema} ({matcher.get_error()})")
        return matcher

    def words(self, ids: list[int]) -> str:
        """What tokens say; half a letter at the end is left out."""
        said: bytes = self._tokens.decode_bytes(ids)
        return said.decode(errors="ignore")


class HeldAnswer:
    """One answer as far as it is written.

    Attributes:
        ended: whether it is whole.
    """

    def __init__(self, holder: SchemaHolder, schema: dict[str, Any]) -> None:
        """Takes the schema, which may have the keyword `SUM`."""
        self._holder = holder
        self._schema = {key: value for key, value in schema.items() if key != SUM}
        self._sum: int | None = schema.get(SUM)
        self._ids: list[int] = []
        self._num_numbers = 0
        self._matcher = holder.matcher(self._rest([]))
        self.ended = False

    @property
    def num_tokens(self) -> int:
        """Tokens that are written."""
        return len(self._ids)

    def allowed_V(self, num_tokens: int) -> Any:
        """Which of the tokens may come next: an array of V booleans."""
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        may_come = np.unpackbits(bits, bitorder="little")[:num_tokens]
        # A model may have more logits than its tokenizer has tokens.
        return np.pad(may_come, (0, num_tokens - len(may_come))).astype(bool)

    def take(self, token: int) -> None:
        """Goes on by a token, one of those that may come."""
        self._ids.append(token)
        taken = self._matcher.consume_token(token)
        assert taken, self._matcher.get_error()
        self.ended = self._matcher.is_stopped()
        if self._sum is None or self.ended:
            return
        numbers = _numbers(self._holder.words(self._ids))
        if len(numbers) > self._num_numbers:
            self._num_numbers = len(numbers)
            matcher = self._holder.matcher(self._rest(numbers))
            # It would not, if a single token ended one number and began the next; then their sum is not held.
            if matcher.consume_tokens(self._ids):
                self._matcher = matcher

    def _rest(self, numbers: list[int]) -> dict[str, Any]:
        """The schema, once the first numbers are written."""
        if self._sum is None:
            return self._schema
        left = max(0, self._sum - sum(numbers))
        fields = self._schema["properties"]
        next_ones = (
            {"const": left} if len(numbers) == len(fields) - 1 else {"type": "integer", "minimum": 0, "maximum": left}
        )
        values = [*({"const": number} for number in numbers), *[next_ones] * (len(fields) - len(numbers))]
        return self._schema | {"properties": dict(zip(fields, values, strict=True))}


class HeldBatch:
    """The answers of a batch: a logits processor, and with `ended` a stopping criterion.

    Rows without a schema are left as they are.
    """

    def __init__(self, answers: Sequence[HeldAnswer | None], limits: Sequence[int]) -> None:
        """Takes what each of the B rows is held to, None: to nothing; and the tokens that it may have, at most."""
        self._answers = answers
        self._limits = limits

    def __call__(self, input_ids: Any, scores_BV: Any) -> Any:
        import torch

        scores_BV = scores_BV.clone()
        for b, answer in enumerate(self._answers):
            if answer is not None and not answer.ended:
                allowed_V = torch.from_numpy(answer.allowed_V(scores_BV.shape[1]))
                scores_BV[b, ~allowed_V.to(scores_BV.device)] = float("-inf")
        return scores_BV

    def ended(self, input_ids_BT: Any, scores: Any, **options: Any) -> Any:
        """Takes the newest token of each row; says which rows are whole."""
        for answer, limit, token in zip(self._answers, self._limits, input_ids_BT[:, -1].tolist(), strict=True):
            # What comes after the limit is padding.
            if answer is not None and not answer.ended and answer.num_tokens < limit:
                answer.take(token)
        return input_ids_BT.new_tensor([answer is not None and answer.ended for answer in self._answers]).bool()

    def lengths(self) -> list[int | None]:
        """Tokens of each whole answer; None for the others."""
        return [answer.num_tokens if answer is not None and answer.ended else None for answer in self._answers]


def _numbers(words: str) -> list[int]:
    """The whole numbers at the beginning of an object, in the order in which they stand."""
    numbers, place = [], len(words) - len(words.lstrip())
    while match := _PAIR.match(words, place):
        numbers.append(int(match[1]))
        place = match.end()
    return numbers
