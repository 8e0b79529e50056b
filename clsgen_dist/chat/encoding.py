"""Conversations as token ids, so that no words of a message can pass for the frame around them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from clsgen_dist.chat.interface import Message
from clsgen_dist.errors import TeacherError

#: Stands for the content of a turn while a chat template is rendered around it; words that no template changes.
_MARK = "@@clsgen-dist-turn-{}@@"


class Prompt(NamedTuple):
    """A conversation as token ids, and whether it ends within the model's thinking, as some templates do."""

    ids: list[int]
    opens_thinking: bool = False


class PromptEncoder:
    """Conversations -> token ids, by the tokenizer's chat template where it has one."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """Takes a tokenizer and the name of its model, for messages."""
        self._tokenizer = tokenizer
        self._name = name
        self._frames: dict[tuple[str, ...], list[str] | None] = {}

    def encode(self, messages: tuple[Message, ...]) -> Prompt:
        """Ids of a conversation, ready for the answer. No words of a message can end its turn.

        Raises:
            TeacherError: the chat template takes no such conversation.
        """
        roles = [message["role"] for message in messages]
        contents = [message["content"].strip() for message in messages]
        if not self._tokenizer.chat_template:
            opening = self._tokenizer("a")["input_ids"][:1]
            bos = [token for token in opening if token == self._tokenizer.bos_token_id]
            return Prompt(bos + self._ids("\n\n".join(contents) + "\nAnswer:", as_data=True))
        frame = self._frame(tuple(roles))
        if frame is None and roles[:2] == ["system", "user"]:  # some templates have no place for a system's turn
            roles, contents = roles[1:], ["\n\n".join(contents[:2]), *contents[2:]]
            frame = self._frame(tuple(roles))
        if frame is None:
            raise TeacherError(
                f"{self._name}: the chat template takes no conversation of the roles "
                f"{', '.join(roles)}, expected one for system, user and assistant; take another model"
            )
        ids = self._ids(frame[0])
        for content, after in zip(contents, frame[1:], strict=True):
            ids += self._ids(content, as_data=True) + self._ids(after)
        return Prompt(ids, opens_thinking=frame[-1].rfind("<think>") > frame[-1].rfind("</think>"))

    def _frame(self, roles: tuple[str, ...]) -> list[str] | None:
        """What the template writes before, between and after the contents; None where it refuses or loses some."""
        if roles not in self._frames:
            from jinja2 import TemplateError  # transformers renders with it

            turns = [{"role": role, "content": _MARK.format(number)} for number, role in enumerate(roles)]
            try:
                rendered = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            except TemplateError:
                rendered = ""
            parts = re.split(_MARK.format(r"(\d+)"), rendered)
            unchanged = parts[1::2] == [str(number) for number in range(len(roles))]
            self._frames[roles] = parts[::2] if unchanged else None
        return self._frames[roles]

    def _ids(self, text: str, *, as_data: bool = False) -> list[int]:
        """Token ids; `as_data` reads the names of special tokens as plain words."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=as_data)["input_ids"]
        return ids
