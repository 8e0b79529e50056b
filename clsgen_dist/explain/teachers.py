"""Which teacher a configuration asks for."""

from __future__ import annotations

import json
from collections.abc import Callable

from clsgen_dist.chat.interface import Chat
from clsgen_dist.chat.remembered import Memory, RememberedChat
from clsgen_dist.config.explain import Explain
from clsgen_dist.config.run import RunConfig
from clsgen_dist.explain.attempt import Explainer, TaughtReasons, WrittenReasons
from clsgen_dist.explain.chat_teacher import ChatTeacher
from clsgen_dist.explain.checks import Checker
from clsgen_dist.explain.memory import TeacherMemory
from clsgen_dist.explain.prompts import (
    blind_messages,
    guidance_of,
    reading_messages,
    reason_messages,
    request_words,
)
from clsgen_dist.explain.teacher import Teacher
from clsgen_dist.explain.watch import Watch
from clsgen_dist.integrity import fingerprint
from clsgen_dist.records import Row, RowSource

#: What each teacher is, for the report.
SENTENCES = {
    "column": "People wrote these reasons; the checks look at their words, and nobody was asked anything.",
    "evidence": "No language model wrote these reasons: a linear model on words and phrases, fitted on the training "
    "rows, names the phrases of each text that speak most for its label.",
    "endpoint": "A language model behind an OpenAI-compatible endpoint wrote these reasons.",
    "local": "A language model that ran on this project's own machines wrote these reasons.",
}


def check_teacher(explain: Explain) -> None:
    """Finds out, before any row is spent, whether the teacher can be asked.

    Raises:
        ConfigError: no key, unknown model, endpoint down, no such model here.
    """
    if explain.teacher == "endpoint":
        from clsgen_dist.chat.address import check_endpoint  # its client takes a second to import

        check_endpoint(explain)
    elif explain.teacher == "local":
        from clsgen_dist.chat.local_model import check_local  # imports transformers

        check_local(explain)


def make_explainer(config: RunConfig, train_rows: RowSource, memory: TeacherMemory, watch: Watch) -> Explainer:
    """The teacher with its checks.

    Args:
        config: the run.
        train_rows: labelled training rows, from the first, as often as asked.
        memory: answers that were given before.
        watch: who shows how many requests are in flight.
    """
    explain = config.explain
    fault_of = make_fault_of(config)
    if explain.teacher == "column":
        return WrittenReasons(explain, fault_of)
    if explain.teacher == "evidence":
        from clsgen_dist.explain.evidence import fit_evidence  # imports scikit-learn

        teacher: Teacher = fit_evidence(train_rows, config.task, seed=config.run.seed)
        return TaughtReasons(teacher, explain, fault_of)
    return make_chat_explainer(config, _make_chat(explain, memory, watch), memory)


def make_chat_explainer(config: RunConfig, chat: Chat, memory: Memory) -> Explainer:
    """A chat model as teacher; it is asked each thing once."""
    explain = config.explain
    # Everything that answers depend on beside the request itself.
    facts = [explain.teacher, explain.model, explain.extra_body]
    if explain.teacher == "local":  # other weights may come to stand in the same folder
        facts.append(fingerprint(str(explain.model)))
    remembered = RememberedChat(chat, memory, model=json.dumps(facts, sort_keys=True))
    return TaughtReasons(ChatTeacher(remembered, config.task, explain), explain, make_fault_of(config))


def make_fault_of(config: RunConfig) -> Callable[[str, Row], str | None]:
    """The checks of a reason's words."""
    asked = request_words(guidance_of(config.explain)) if config.explain.asks_a_model else ""
    checker = Checker(config.task, config.explain.checks, request=asked)
    return lambda reason, row: checker.fault_of(reason, text=row.text)


def _make_chat(explain: Explain, memory: TeacherMemory, watch: Watch) -> Chat:
    if explain.teacher == "local":
        from clsgen_dist.chat.local import LocalChat

        return LocalChat(explain)
    from clsgen_dist.chat.endpoint import EndpointChat

    chat = EndpointChat(explain, memory.usage)
    watch.in_flight = lambda: chat.in_flight
    return chat


def shown_prompts(config: RunConfig) -> dict[str, str]:
    """What a chat model is asked, with a mark in the text's place; empty for the other teachers."""
    if not config.explain.asks_a_model:
        return {}
    task, label = config.task, len(config.task.labels) - 1
    conversations = {
        "blind": blind_messages(task, "[TEXT]"),
        f"reason, of the label {task.labels[label]}": reason_messages(
            task, "[TEXT]", label, guidance_of(config.explain), None
        ),
        "reading": reading_messages(task, "[REASON]", 0),
    }
    return {name: "\n\n".join(message["content"] for message in turns) for name, turns in conversations.items()}
