"""The entries that inputs of the corpus go through, each the one that a user's input takes.

A door makes the input, lets the program read it and returns the name of the error and its message.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clsgen_dist.config.run import load_config
from clsgen_dist.config.sections import Data
from clsgen_dist.data.rows import read_rows
from clsgen_dist.errors import ClsGenError
from tests.hostile import makers
from tests.hostile.corpus import Case

LABELS = ["no", "yes"]


class Doors:
    """What several doors share, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened = contextlib.ExitStack()

    @functools.cached_property
    def bundle(self) -> Path:
        """A good bundle of a LoRA; cases change copies of it."""
        from tests.support.bundles import write_tiny_bundle

        return write_tiny_bundle(self.folder)

    @functools.cached_property
    def full_bundle(self) -> Path:
        """A good bundle that holds all weights."""
        from tests.support.bundles import write_tiny_bundle

        (self.folder / "full").mkdir()
        return write_tiny_bundle(self.folder / "full", **{"model.lora": None})

    @functools.cached_property
    def answers(self) -> Path:
        """Folder of the answers that the endpoint gives, word for word."""
        path = self.folder / "answers"
        path.mkdir()
        return path

    @functools.cached_property
    def endpoint(self) -> str:
        """Address of an endpoint that answers a message with the file of `answers` that the message names."""
        from tests.support.endpoint import serving

        return self._opened.enter_context(serving(raw=str(self.answers)))

    def close(self) -> None:
        self._opened.close()


def told(work: Callable[[], object]) -> tuple[str, str]:
    """Name and message of the error that some work ends with. Errors that are not the program's own pass through."""
    try:
        found = work()
    except ClsGenError as error:
        return type(error).__name__, str(error)
    return "none", f"it was taken as if all were well: {str(found)[:300]}"


def made(case: Case, folder: Path) -> Path:
    """Writes the input of a case; returns its place."""
    path = folder / case.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if case.content is not None:
        path.write_bytes(case.content)
    elif case.make is not None:
        getattr(makers, case.make)(path)
    return path


def config(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    path = made(case, folder)
    return told(lambda: load_config(path, case.more.get("overrides", ())))


def zero(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """A file of ZeRO settings, by way of the configuration that names it."""
    path = made(case, folder)
    (folder / "config.yaml").write_text(
        "run: {name: x}\ntask: {question: Q, labels: [a, b]}\ndata: {vignettes: {}}\nmodel: {from_scratch: {}}\n"
    )
    return told(lambda: load_config(folder / "config.yaml", ["--train.deepspeed", str(path)]))


def rows(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    path = made(case, folder)
    columns = Data(**case.more.get("columns", {}))
    labels = case.more.get("labels", LABELS)
    return told(lambda: list(read_rows(str(path), columns, labels)))


def survey(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """Rows that are each good, and bad together."""
    from clsgen_dist.sources import survey_splits
    from tests.support.tiny import tiny_config

    path = made(case, folder)
    settings: dict[str, Any] = {"data.train": str(path), **case.more.get("settings", {})}
    for split, text in case.more.get("splits", {}).items():
        (folder / f"{split}.jsonl").write_text(text)
        settings[f"data.{split}"] = str(folder / f"{split}.jsonl")
    return told(lambda: survey_splits(tiny_config(folder, **settings)))


def answers(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    from clsgen_dist.verbalize.answers import read_answers

    path = made(case, folder)
    return told(lambda: read_answers(path, case.more.get("labels", LABELS), sum_tolerance=0.05))


def spoken(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """An answer in words: what is expected is the cause why it holds no distribution."""
    from clsgen_dist.verbalize.parsing import parse_distribution

    assert case.content is not None
    text = case.content.decode("utf-8", "surrogatepass") * int(case.more.get("times", 1))
    said = parse_distribution(text, case.more.get("labels", LABELS), sum_tolerance=0.05)
    return "none" if said.fault is None else "fault", said.fault or str(said.probabilities)


def bundle(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """A bundle that was changed after it was written, and, where the case says `sealed`, given a fitting manifest."""
    import torch

    from clsgen_dist.bundle import load_bundle

    place = Path(shutil.copytree(doors.full_bundle if case.more.get("full") else doors.bundle, folder / "bundle"))
    change(case, place)
    return told(lambda: load_bundle(place, device=torch.device("cpu"), base=case.more.get("base")))


def calibrator(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """calibrator.json with other values at some of its places, under a manifest that fits it."""
    import torch

    from clsgen_dist.bundle import load_bundle

    place = Path(shutil.copytree(doors.bundle, folder / "bundle"))
    if case.content is not None:
        (place / "calibrator.json").write_bytes(case.content)
    elif case.make is not None:
        getattr(makers, case.make)(place / "calibrator.json")
    else:
        content = json.loads((place / "calibrator.json").read_text())
        makers.set_values(content, case.more.get("set", {}))
        for name in case.more.get("remove", ()):
            del content[name]
        (place / "calibrator.json").write_text(json.dumps(content))
    makers.seal_again(place)
    return told(lambda: load_bundle(place, device=torch.device("cpu")))


def change(case: Case, place: Path) -> None:
    """Sets values of JSON files, writes a file, calls a maker; then seals again where that is asked for."""
    for name, values in case.more.get("set", {}).items():
        content = json.loads((place / name).read_text())
        makers.set_values(content, values)
        (place / name).write_text(json.dumps(content))
    if case.content is not None:
        made(case, place)
    elif case.make is not None:
        getattr(makers, case.make)(place)
    if case.more.get("sealed"):
        makers.seal_again(place)
    for name, values in case.more.get("set_last", {}).items():
        content = json.loads((place / name).read_text())
        makers.set_values(content, values)
        (place / name).write_text(json.dumps(content))


def endpoint(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """An answer of an endpoint, byte for byte: an error, or why the completion holds no words."""
    from clsgen_dist.chat.endpoint import EndpointChat
    from clsgen_dist.chat.interface import Request
    from clsgen_dist.config.explain import Explain

    head = case.more.get("head", "HTTP/1.1 200 OK\ncontent-type: application/json")
    path = doors.answers / case.id
    if case.make is not None:
        getattr(makers, case.make)(path)
    else:
        body = case.content or b""
        length = case.more.get("length", len(body))
        lines = f"{head}\ncontent-length: {length}\n\n" if length is not None else f"{head}\n\n"
        path.write_bytes(lines.replace("\n", "\r\n").encode() + body)
    settings = Explain(
        teacher="endpoint",
        base_url=doors.endpoint,
        model="teacher",
        api_key_env=None,
        max_retries=0,
        timeout_seconds=20,
    )
    request = Request(messages=({"role": "user", "content": case.id},), temperature=0.0, max_tokens=8, seed=0)

    async def ask() -> Any:
        chat = EndpointChat(settings)
        try:
            return await chat.complete(request)
        finally:
            await chat.close()

    found: list[Any] = []
    error, message = told(lambda: found.append(asyncio.run(ask())))
    if not found:
        return error, message
    return ("fault", found[0].fault) if found[0].fault else ("none", found[0].text)


def listed(doors: Doors, case: Case, folder: Path) -> tuple[str, str]:
    """An endpoint that answers the question for its models with this."""
    from clsgen_dist.chat.endpoint import check_endpoint
    from clsgen_dist.config.explain import Explain
    from tests.support.endpoint import serving

    place = folder / "raw"
    place.mkdir()
    body = case.content or b""
    head = case.more.get("head", "HTTP/1.1 200 OK\ncontent-type: application/json")
    lines = f"{head}\ncontent-length: {len(body)}\n\n"
    (place / "models").write_bytes(lines.replace("\n", "\r\n").encode() + body)
    refused = b'{"error": {"code": "model_not_found", "message": "no"}}'
    (place / "Hello").write_bytes(b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n" % len(refused) + refused)
    with serving(raw=str(place)) as address:
        settings = Explain(teacher="endpoint", base_url=address, model="teacher", api_key_env=None)
        return told(lambda: check_endpoint(settings))


DOORS: dict[str, Callable[[Doors, Case, Path], tuple[str, str]]] = {
    "config": config,
    "zero": zero,
    "rows": rows,
    "survey": survey,
    "answers": answers,
    "spoken": spoken,
    "bundle": bundle,
    "calibrator": calibrator,
    "endpoint": endpoint,
    "listed": listed,
}
