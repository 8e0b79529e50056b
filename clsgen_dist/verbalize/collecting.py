"""Who is asked, and all of its answers: those that are known from an earlier run, and the others."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from clsgen_dist.bundle import load_bundle
from clsgen_dist.chat.answers import AnswerMemory
from clsgen_dist.chat.interface import Chat, Completion
from clsgen_dist.chat.remembered import RememberedChat
from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.config.sections import Task
from clsgen_dist.config.verbalize import Verbalize
from clsgen_dist.errors import BundleError, ConfigError
from clsgen_dist.progress import Event, Listener
from clsgen_dist.records import Row
from clsgen_dist.sealed import model_hash, read_manifest
from clsgen_dist.verbalize.asking import ask_rows, guided
from clsgen_dist.verbalize.tokens import TokenReader, TokenReading

#: The splits that a model is asked about: what is fitted on, and what is measured on.
SPLITS_ASKED = ("calibration", "test")


@dataclass(frozen=True)
class Collected:
    """All that a model said.

    Attributes:
        asked: who was asked, for people.
        origin: what the answers depend on beside the rows: model and prompt.
        answers: split -> paraphrase -> answers in the order of the rows.
        readings: split -> what the tokens gave for each row; empty where they were not read.
    """

    asked: str
    origin: Mapping[str, str]
    answers: Mapping[str, list[list[Completion]]]
    readings: dict[str, list[TokenReading]] = field(default_factory=dict)


def check_asked(config: RunConfig, folder: RunFolder) -> None:
    """Finds out, before any row is spent, whether the model can be asked.

    Raises:
        ConfigError: no key, unknown model, endpoint down, no such model here, or no bundle of this run yet.
        BundleError: the bundle is altered.
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


def collect(config: RunConfig, folder: RunFolder, rows: Mapping[str, Sequence[Row]], listener: Listener) -> Collected:
    """Asks about all rows, or goes on with it.

    Args:
        config: the run.
        folder: its folder; the folder of verbalized results exists.
        rows: by split.
        listener: hears of progress.

    Raises:
        ConfigError, TeacherError: see `stage.verbalize_run`.
    """
    verbalize = guided(config.verbalize, config.task.labels)
    loaded = _load(config, folder)
    name = str(verbalize.model) if loaded is None else loaded.name
    model = json.dumps([verbalize.source, name, _identity(config, folder), verbalize.extra_body], sort_keys=True)
    origin = {"model": hashlib.sha256(model.encode()).hexdigest(), "prompt": _prompt_hash(config)}
    with closing(AnswerMemory(folder.verbalized / "answers.sqlite")) as memory:
        chat, num_at_once = _make_chat(verbalize, loaded, memory)
        remembered = RememberedChat(chat, memory, model=model)
        answers = asyncio.run(_ask_all(remembered, rows, config, verbalize, num_at_once, memory, listener))
        readings: dict[str, list[TokenReading]] = {}
        if loaded is not None and verbalize.token_probabilities:
            readings = _read_tokens(TokenReader(loaded, config.task), config.task, rows, memory, model, listener)
    who = {"bundle": "the language model of this run's bundle", "endpoint": name, "local": name}[verbalize.source]
    return Collected(who, origin, answers, readings)


async def _ask_all(
    chat: Chat,
    rows: Mapping[str, Sequence[Row]],
    config: RunConfig,
    verbalize: Verbalize,
    num_at_once: int,
    memory: AnswerMemory,
    listener: Listener,
) -> dict[str, list[list[Completion]]]:
    total = verbalize.num_prompts * sum(map(len, rows.values()))
    done = 0

    def heard(num_answers: int) -> None:
        nonlocal done
        done += num_answers
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
    memory: AnswerMemory,
    model: str,
    listener: Listener,
) -> dict[str, list[TokenReading]]:
    total, done = sum(map(len, rows.values())), 0
    readings: dict[str, list[TokenReading]] = {}
    for split, some in rows.items():
        readings[split] = []
        for row in some:
            key = hashlib.sha256(
                json.dumps(["tokens", model, task.question, task.labels, row.text]).encode()
            ).hexdigest()
            known = memory.recall(key)
            if known is None:
                reading = reader.read(row.text)
                text = json.dumps(reading)
                memory.remember(key, Completion(text=text, prompt_tokens=reading.num_tokens, completion_tokens=0))
            else:
                label_tokens, digit_expectation, mass, num_tokens = json.loads(known.text)
                reading = TokenReading(tuple(label_tokens), tuple(digit_expectation), mass, num_tokens)
            readings[split].append(reading)
            done += 1
            listener(Event("read tokens", done, total))
    return readings


def _load(config: RunConfig, folder: RunFolder) -> Any:
    """The model where its weights are here, else None."""
    if config.verbalize.source == "endpoint":
        return None
    from clsgen_dist.chat.local_model import LocalModel, load_local

    if config.verbalize.source == "local":
        return load_local(config.verbalize)
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bundle = load_bundle(folder.bundle, device=device, trust_remote_code=config.model.trust_remote_code)
    return LocalModel(bundle.model.backbone, bundle.tokenizer.tokenizer, str(folder.bundle), device.type)


def _make_chat(verbalize: Verbalize, loaded: Any, memory: AnswerMemory) -> tuple[Chat, int]:
    """Who is asked, and how many requests are worth sending at one time."""
    if loaded is None:
        from clsgen_dist.chat.endpoint import EndpointChat

        return EndpointChat(verbalize, memory.usage), 2 * verbalize.requests_in_flight
    from clsgen_dist.chat.local import LocalChat

    return LocalChat(verbalize, loaded), 2 * verbalize.batch_size


def _identity(config: RunConfig, folder: RunFolder) -> str:
    """What tells a bundle from one that stood in its place before."""
    if config.verbalize.source != "bundle":
        return ""
    return model_hash(read_manifest(folder.bundle))


def _prompt_hash(config: RunConfig) -> str:
    said = [config.task.question, config.task.labels, config.verbalize.prompt, config.verbalize.num_prompts]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
