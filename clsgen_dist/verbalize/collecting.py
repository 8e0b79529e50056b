"""Who is asked, and all of its answers: those that are known from an earlier run, and the others."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from clsgen_dist.chat.answers import AnswerMemory
from clsgen_dist.chat.interface import Chat, Completion
from clsgen_dist.chat.local_model import LocalModel
from clsgen_dist.chat.remembered import RememberedChat, request_key
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Task
from clsgen_dist.config.verbalize import Verbalize
from clsgen_dist.data.tokens import RowTokenizer
from clsgen_dist.errors import BundleError, ConfigError
from clsgen_dist.integrity import fingerprint
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import Row
from clsgen_dist.sealed import model_hash, read_manifest
from clsgen_dist.verbalize.asking import ask_rows, distribution_request
from clsgen_dist.verbalize.tokens import TokenReader, TokenReading, token_messages


@dataclass(frozen=True)
class Asked:
    """Whoever is asked.

    Attributes:
        name: for people.
        identity: all that its answers depend on beside a request.
        loaded: the model, where its weights are here.
        taught: prompt and verdicts that it was trained on, of a bundle.
    """

    name: str
    identity: str
    loaded: LocalModel | None
    taught: RowTokenizer | None = None


@dataclass(frozen=True)
class Collected:
    """All that a model said.

    Attributes:
        origin: what the answers depend on beside the rows, as hashes: model and prompt.
        answers: split -> paraphrase -> answers in the order of the rows.
        readings: split -> what the tokens gave for each row; empty where they were not read.
    """

    origin: Mapping[str, str]
    answers: Mapping[str, list[list[Completion]]]
    readings: Mapping[str, list[TokenReading]] = field(default_factory=dict)


def check_asked(config: RunConfig, folder: RunFolder) -> None:
    """Finds out, before any row is read, whether the model can be asked.

    Raises:
        ConfigError: no key, unknown model, endpoint down, no such model here, or no bundle of this run yet.
        BundleError: the bundle is altered, or of another run.
    """
    verbalize = config.verbalize
    if verbalize.source == "endpoint":
        from clsgen_dist.chat.address import check_endpoint

        check_endpoint(verbalize)
    elif verbalize.source == "local":
        from clsgen_dist.chat.local_model import check_local

        check_local(verbalize)
    elif not folder.bundle.is_dir():
        raise ConfigError(
            f"verbalize.source is bundle, and {folder.bundle} does not exist; train first, or ask another model with "
            "verbalize.source local or endpoint"
        )
    else:
        manifest = read_manifest(folder.bundle)
        if manifest.get("run") != config.run.name:
            raise BundleError(f"{folder.bundle}: of run {manifest.get('run')!r}, expected {config.run.name!r}")


def load_asked(config: RunConfig, folder: RunFolder) -> Asked:
    """Makes the model ready, as far as it is here.

    Raises:
        ConfigError, BundleError: its weights or its tokenizer cannot be read.
    """
    verbalize = config.verbalize
    loaded: LocalModel | None
    taught = None
    if verbalize.source == "bundle":
        loaded, taught = _load_bundle(config, folder)
        # Its hash rather than its place: a run folder may be moved, and another bundle may come to stand there.
        facts: list[Any] = ["bundle", model_hash(read_manifest(folder.bundle))]
        name = "the language model of this run's bundle"
    else:
        from clsgen_dist.chat.local_model import load_local

        loaded = load_local(verbalize) if verbalize.source == "local" else None
        facts = [verbalize.source, verbalize.model, verbalize.extra_body]
        if loaded is not None:  # other weights may come to stand in the same folder
            facts.append(fingerprint(str(verbalize.model)))
        name = str(verbalize.model)
    return Asked(name, json.dumps(facts, sort_keys=True), loaded, taught)


def collect(
    config: RunConfig, folder: RunFolder, asked: Asked, rows: Mapping[str, Sequence[Row]], listener: Listener
) -> Collected:
    """Asks about all rows, or goes on with it.

    Args:
        config: the run.
        folder: its folder; the folder of verbalized results exists.
        asked: the model.
        rows: by split.
        listener: hears of progress.

    Raises:
        TeacherError: see `stage.verbalize_run`.
    """
    verbalize, loaded = config.verbalize, asked.loaded
    # Of an empty text: the prompts alone.
    requests = [distribution_request(config.task, "", verbalize, p) for p in range(verbalize.num_prompts)]
    origin = {
        "model": _hash(asked.identity),
        "prompt": _hash(json.dumps([request_key("", request) for request in requests])),
    }
    with closing(AnswerMemory(folder.verbalized / "answers.sqlite")) as memory:
        chat, num_at_once = _make_chat(verbalize, loaded, memory)
        remembered = RememberedChat(chat, memory, model=asked.identity)
        answers = asyncio.run(_ask_all(remembered, rows, config, num_at_once, memory, listener))
        readings: dict[str, list[TokenReading]] = {}
        if loaded is not None and verbalize.token_probabilities:
            readings = _read_tokens(
                TokenReader(loaded, config.task, asked.taught), config.task, rows, asked, memory, listener
            )
    return Collected(origin, answers, readings)


async def _ask_all(
    chat: Chat,
    rows: Mapping[str, Sequence[Row]],
    config: RunConfig,
    num_at_once: int,
    memory: AnswerMemory,
    listener: Listener,
) -> dict[str, list[list[Completion]]]:
    verbalize = config.verbalize
    total = verbalize.num_prompts * sum(map(len, rows.values()))
    done = 0

    def heard() -> None:
        nonlocal done
        done += 1
        note = f"{memory.usage.tokens:,} tokens"
        if verbalize.input_price or verbalize.output_price:
            note += f", cost {memory.usage.cost(verbalize):,.4f}"
        listener(Event("ask", done, total, note))

    try:
        return {
            split: await ask_rows(chat, some, config.task, verbalize, num_at_once=num_at_once, heard=heard)
            for split, some in rows.items()
        }
    finally:
        await chat.close()


def _read_tokens(
    reader: TokenReader,
    task: Task,
    rows: Mapping[str, Sequence[Row]],
    asked: Asked,
    memory: AnswerMemory,
    listener: Listener,
) -> dict[str, list[TokenReading]]:
    total, done = sum(map(len, rows.values())), 0
    readings: dict[str, list[TokenReading]] = {split: [] for split in rows}
    for split, some in rows.items():
        for row in some:
            said = ["tokens", asked.identity, task.labels, *token_messages(task, row.text)]
            if asked.taught is not None:  # its prompt is part of the identity
                said.append("by the prompt of the training")
            key = _hash(json.dumps(said, sort_keys=True))
            known = memory.recall(key)
            if known is None:
                reading = reader.read(row.text)
                memory.remember(
                    key,
                    Completion(text=json.dumps(reading), prompt_tokens=reading.num_tokens, completion_tokens=0),
                )
            else:
                label_tokens, digit_expectation, label_mass, num_tokens = json.loads(known.text)
                reading = TokenReading(tuple(label_tokens), tuple(digit_expectation), label_mass, num_tokens)
            readings[split].append(reading)
            done += 1
            listener(Event("read tokens", done, total))
    return readings


def _load_bundle(config: RunConfig, folder: RunFolder) -> tuple[LocalModel, RowTokenizer]:
    import torch

    from clsgen_dist.bundle import load_bundle

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trusted = config.model.trust_remote_code
    bundle = load_bundle(folder.bundle, device=device, trust_remote_code=trusted, with_decision=False)
    loaded = LocalModel(bundle.model.backbone, bundle.tokenizer.tokenizer, str(folder.bundle), device.type)
    return loaded, bundle.tokenizer


def _make_chat(verbalize: Verbalize, loaded: LocalModel | None, memory: AnswerMemory) -> tuple[Chat, int]:
    """Who is asked, and how many requests are worth sending at one time."""
    if loaded is None:
        from clsgen_dist.chat.endpoint import EndpointChat

        return EndpointChat(verbalize, memory.usage), 2 * verbalize.requests_in_flight
    from clsgen_dist.chat.local import LocalChat

    return LocalChat(verbalize, loaded), 2 * verbalize.batch_size


def _hash(words: str) -> str:
    return hashlib.sha256(words.encode()).hexdigest()
