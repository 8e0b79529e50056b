"""A chat model in this process: a causal language model of transformers that answers waiting requests in batches.

Shape letters: B requests of a batch, T tokens, V vocabulary.

One thread owns model and tokenizer. It takes the requests that wait at the same time, pads them on the left and writes
all answers at once; each is drawn with its own random numbers and held to its own schema, so an answer does not depend
on its neighbours.
"""

from __future__ import annotations

import asyncio
import math
import queue
import random
import threading
import time
from concurrent.futures import Future
from typing import Any

from clsgen_dist.chat.encoding import Prompt, PromptEncoder
from clsgen_dist.chat.held import HeldAnswer, HeldBatch, SchemaHolder
from clsgen_dist.chat.interface import ENDED_EARLY, NO_WORDS, UNREADABLY_LONG, Completion, Request
from clsgen_dist.chat.local_model import LocalModel, load_local
from clsgen_dist.chat.thinking import without_thinking
from clsgen_dist.config.chat import ChatSettings
from clsgen_dist.errors import TeacherError

#: Longest wait of a batch for further requests; short beside the writing of an answer.
_GATHERING_SECONDS = 0.01

#: A request that waits, and where its answer goes.
_Waiting = tuple[Request, Future[Completion]]


class LocalChat:
    """Implements `Chat`. Requests may come from any event loop; the answer goes to the one that asked."""

    def __init__(self, settings: ChatSettings, loaded: LocalModel | None = None) -> None:
        """Takes a loaded model, or loads that of the settings.

        Raises:
            ConfigError: see `load_local`.
        """
        loaded = loaded or load_local(settings)
        from transformers import GenerationConfig

        self._model, self._device = loaded.model, loaded.device
        model, tokenizer = loaded.model, loaded.tokenizer
        own = model.generation_config.eos_token_id
        self._ends = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        self._pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        # The model's own settings of sampling, as top_k, would come on top of the request's.
        model.generation_config = GenerationConfig(eos_token_id=sorted(self._ends) or None, pad_token_id=self._pad)
        self._prompts = PromptEncoder(tokenizer, loaded.name)
        self._tokenizer, self._name = tokenizer, loaded.name
        self._holder: SchemaHolder | None = None
        self._context_tokens = getattr(model.config.get_text_config(), "max_position_embeddings", math.inf)
        self._section = settings.section
        self._batch_size = settings.batch_size
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="local-model", daemon=True)
        self._thread.start()

    async def complete(self, request: Request) -> Completion:
        """Answers one request, together with others that wait.

        Raises:
            TeacherError: the model ran out of memory or failed otherwise, or was closed; or it cannot be held to the
                schema.
        """
        if self._closing.is_set():
            raise TeacherError("the local model is closed")
        answer: Future[Completion] = Future()
        self._waiting.put((request, answer))
        return await asyncio.wrap_future(answer)

    async def close(self) -> None:
        """Ends the answers that are being written, and the thread; what waits fails."""
        self._closing.set()
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        import torch

        while batch := self._gather():
            failure: Exception | None = None
            answers: list[Completion] = []
            try:
                answers = self._answer([request for request, _ in batch])
            except torch.OutOfMemoryError:
                failure = TeacherError(
                    f"{self._section}.model: no memory for {len(batch)} answers at one time; lower "
                    f"{self._section}.batch_size or {self._section}.max_tokens, or take shorter texts"
                )
            except Exception as error:  # noqa: BLE001 - raised where it was asked
                failure = error
            if self._closing.is_set():  # its answers may have been cut short
                failure = TeacherError("the local model was closed before it had answered")
            for number, (_, answer) in enumerate(batch):
                if failure is None:
                    answer.set_result(answers[number])
                else:
                    answer.set_exception(failure)

    def _gather(self) -> list[_Waiting]:
        """The next batch, of requests that somebody still waits for; empty once the chat is closed and none is left."""
        batch: list[_Waiting] = []
        deadline: float | None = None
        while len(batch) < self._batch_size:
            try:
                waiting = self._waiting.get(timeout=deadline and max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if waiting is None:
                self._waiting.put(None)  # for the next one to find
                break
            if waiting[1].set_running_or_notify_cancel():
                batch.append(waiting)
                deadline = deadline or time.monotonic() + _GATHERING_SECONDS
        return batch

    def _answer(self, requests: list[Request]) -> list[Completion]:
        encoded = [self._prompts.encode(request.messages) for request in requests]
        fitting = [b for b, prompt in enumerate(encoded) if len(prompt.ids) < self._context_tokens]
        unread = Completion(text="", prompt_tokens=0, completion_tokens=0, fault=UNREADABLY_LONG)
        answers = [unread] * len(requests)
        if fitting and not self._closing.is_set():
            limits = [int(min(requests[b].max_tokens, self._context_tokens - len(encoded[b].ids))) for b in fitting]
            written = self._write([encoded[b].ids for b in fitting], [requests[b] for b in fitting], limits)
            for b, ids in zip(fitting, written, strict=True):
                answers[b] = self._completion(encoded[b], ids, is_held=requests[b].schema is not None)
        return answers

    def _write(self, prompts: list[list[int]], requests: list[Request], limits: list[int]) -> list[list[int]]:
        """Writes on from prompts. Returns the new ids of each, EOS included where it ended by itself.

        An answer that is held to a schema ends where it is whole, without EOS.
        """
        import torch
        from transformers import GenerationConfig

        held = HeldBatch([self._hold(request.schema) for request in requests], limits)
        width = max(map(len, prompts))
        ids_BT = torch.tensor([[self._pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output_BT = self._model.generate(
            input_ids=ids_BT.to(self._device),
            attention_mask=mask_BT.to(self._device),
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=max(limits)),
            logits_processor=[held, _Draw(requests)],
            stopping_criteria=[held.ended, _Limits(width, limits, self._closing)],
        )
        written = []
        for ids, limit, whole in zip(output_BT[:, width:].tolist(), limits, held.lengths(), strict=True):
            if whole is not None:
                written.append(ids[:whole])
                continue
            end = next((place + 1 for place, token in enumerate(ids) if token in self._ends), limit)
            written.append(ids[: min(end, limit)])
        return written

    def _hold(self, schema: dict[str, Any] | None) -> HeldAnswer | None:
        if schema is None:
            return None
        if self._holder is None:  # takes seconds for a large vocabulary
            self._holder = SchemaHolder(self._tokenizer, self._name)
        return self._holder.begin(schema)

    def _completion(self, prompt: Prompt, ids: list[int], *, is_held: bool) -> Completion:
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        # No thinking keeps to a schema, whatever the template opens.
        words = text.strip() if is_held else without_thinking("<think>" * prompt.opens_thinking + text)
        return Completion(
            text=words,
            prompt_tokens=len(prompt.ids),
            completion_tokens=len(ids),
            fault=None if words else NO_WORDS if ids[-1] in self._ends else ENDED_EARLY,
        )


class _Draw:
    """A logits processor that draws each row's token by itself, and leaves the greedy search no other one to take."""

    def __init__(self, requests: list[Request]) -> None:
        self._temperatures = [request.temperature for request in requests]
        self._draws = [random.Random(f"{request.seed} {request.messages}") for request in requests]

    def __call__(self, input_ids: Any, scores_BV: Any) -> Any:
        scores_BV = scores_BV.clone()
        for b, (temperature, draw) in enumerate(zip(self._temperatures, self._draws, strict=True)):
            if temperature > 0:
                cumulated_V = (scores_BV[b].float() / temperature).softmax(-1).double().cumsum(-1)
                token = int((cumulated_V <= draw.random() * cumulated_V[-1]).sum())
                scores_BV[b] = float("-inf")
                scores_BV[b, min(token, len(cumulated_V) - 1)] = 0.0
        return scores_BV


class _Limits:
    """A stopping criterion that ends each row at its own number of new tokens, and all of them on closing."""

    def __init__(self, width: int, limits: list[int], closing: threading.Event) -> None:
        self._width = width
        self._limits = limits
        self._closing = closing

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        num_new = input_ids.shape[1] - self._width
        return input_ids.new_tensor([self._closing.is_set() or num_new >= limit for limit in self._limits]).bool()
