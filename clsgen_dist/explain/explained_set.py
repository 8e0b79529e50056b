"""The explained set: every labelled row, with its reason or without one, and what was done to get it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig, leaves
from clsgen_dist.data.store import stored_rows, write_rows
from clsgen_dist.explain.memory import KEPT, Outcome, TeacherMemory
from clsgen_dist.explain.report import (
    MAX_EXAMPLES,
    ClassAgreement,
    ClassCauses,
    ClassCounts,
    Example,
    ExplainFacts,
    SplitCounts,
    Usage,
    write_explain_report,
)
from clsgen_dist.explain.rounds import first_counts
from clsgen_dist.integrity import check_unaltered, read_run_json, sha256_of, write_json
from clsgen_dist.records import EXPLAINED_SPLITS, UNLABELLED, Row


def write_explained_set(
    config: RunConfig,
    folder: RunFolder,
    memory: TeacherMemory,
    sources: Mapping[str, Any],
    *,
    made_by: Mapping[str, Any],
    teacher_sentence: str,
    causes: Mapping[str, str],
    prompts: Mapping[str, str],
) -> None:
    """Writes the explained splits, their manifest and the report; the set appears whole, by a rename.

    Args:
        config: the run.
        folder: its folder, with the labelled rows.
        memory: an outcome for every row.
        sources: facts of each split's labelled rows, see `sources.write_sources`.
        made_by: the settings that decide what the set is.
        teacher_sentence: what the teacher is.
        causes: what each cause means.
        prompts: name -> words as sent to the teacher.
    """
    staging = folder.path / ".explained.partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    tally = _Tally(config.task.labels)
    splits: dict[str, Any] = {}
    for split, source in sources.items():
        splits[split] = dict(source)
        if split in EXPLAINED_SPLITS:
            write_rows(staging / f"{split}.parquet", tally.walk(split, folder, memory))
            splits[split]["labelled_sha256"] = source["sha256"]
            splits[split]["sha256"] = sha256_of(staging / f"{split}.parquet")
            splits[split]["num_explained"] = tally.num_explained[split]
    facts = tally.facts(config, memory, teacher_sentence=teacher_sentence, causes=causes, prompts=prompts)
    write_json(
        staging / "manifest.json",
        {
            "teacher": config.explain.teacher,
            "model": config.explain.model,
            "labels": config.task.labels,
            "question": config.task.question,
            "made_by": dict(made_by),
            "settings": config.explain.model_dump(mode="json"),
            "prompts": dict(prompts),
            "usage": asdict(facts.usage),
            "classes": {s.name: [asdict(c) for c in s.classes] for s in facts.splits},
            "causes": [asdict(c) for c in facts.causes],
            "agreement": [asdict(a) for a in facts.agreement],
            "splits": splits,
        },
    )
    write_explain_report(staging / "explain_report.html", facts)
    shutil.rmtree(folder.explained, ignore_errors=True)
    os.replace(staging, folder.explained)


def read_explained_set(folder: RunFolder) -> dict[str, Any]:
    """What `write_explained_set` wrote of the set. Raises CheckpointError where it is not as that writes it."""
    parts = {"sha256": str, "num_explained": int}
    needed = {f"splits.{split}.{name}": kind for split in EXPLAINED_SPLITS for name, kind in parts.items()}
    return read_run_json(folder.manifest, {"made_by": dict, **needed})


def check_explained_set(folder: RunFolder) -> None:
    """Compares the explained splits with their manifest. Raises CheckpointError where one was altered."""
    splits = read_explained_set(folder)["splits"]
    for split in EXPLAINED_SPLITS:
        check_unaltered(folder.rows(split), splits[split]["sha256"])


class _Tally:
    """Counts rows while they are written."""

    def __init__(self, labels: list[str]) -> None:
        self._labels = labels
        self._rows_in: Counter[tuple[str, int]] = Counter()
        self._rows_out: Counter[tuple[str, int]] = Counter()
        self._given_up: Counter[tuple[int, str]] = Counter()
        self._refused: Counter[tuple[int, str]] = Counter()
        self._blind: Counter[tuple[int, str]] = Counter()
        self._examples: dict[str, list[Example]] = {"kept": [], "rescued": [], "given up": []}
        self.num_explained: Counter[str] = Counter()

    def walk(self, split: str, folder: RunFolder, memory: TeacherMemory) -> Iterator[Row]:
        """The rows of a split, each with its reason or without one."""
        outcomes = memory.outcomes(split)
        for number, row in enumerate(stored_rows(folder.labelled(split))):
            outcome = next(outcomes)
            label = UNLABELLED if row.label is None else row.label
            assert (outcome.number, outcome.label) == (number, label), "outcomes and rows are out of step"
            self._rows_in[split, label] += 1
            self._note(split, row, outcome)
            explained = replace(row, explanation=outcome.reason if outcome.status == KEPT else None)
            self._rows_out[split, UNLABELLED if explained.label is None else explained.label] += 1
            yield explained

    def _note(self, split: str, row: Row, outcome: Outcome) -> None:
        kept = outcome.status == KEPT
        self.num_explained[split] += kept
        if not kept and outcome.cause is not None:
            self._given_up[outcome.label, outcome.cause] += 1
        for cause in outcome.refused:
            self._refused[outcome.label, cause] += 1
        if outcome.asked_blind:
            agreement = "none" if outcome.blind is None else "agreed" if outcome.blind == row.label else "disagreed"
            self._blind[outcome.label, agreement] += 1
        status = "given up" if not kept else "rescued" if outcome.rescue else "kept"
        if row.label is not None and len(self._examples[status]) < MAX_EXAMPLES:
            self._examples[status].append(
                Example(
                    id=row.id,
                    label=self._labels[row.label],
                    text=row.text,
                    reason=outcome.reason,
                    status=status,  # type: ignore[arg-type]  # one of the three above
                    cause=outcome.cause,
                    num_attempts=outcome.attempts,
                )
            )

    def facts(
        self,
        config: RunConfig,
        memory: TeacherMemory,
        *,
        teacher_sentence: str,
        causes: Mapping[str, str],
        prompts: Mapping[str, str],
    ) -> ExplainFacts:
        """Everything that the report says."""
        explain = config.explain
        first = first_counts(memory)
        numbers = [*range(len(self._labels)), UNLABELLED]
        return ExplainFacts(
            run=config.run.name,
            question=config.task.question,
            labels=tuple(self._labels),
            teacher=explain.teacher,
            model=explain.model,
            teacher_sentence=teacher_sentence,
            splits=tuple(self._split_counts(split, numbers, memory, first) for split in first),
            causes=tuple(
                ClassCauses(label=self._name(k), rows=_of(self._given_up, k), attempts=_of(self._refused, k))
                for k in numbers
                if _of(self._given_up, k) or _of(self._refused, k)
            ),
            cause_sentences=causes,
            agreement=tuple(
                ClassAgreement(
                    label=self._name(k),
                    num_agreed=self._blind[k, "agreed"],
                    num_disagreed=self._blind[k, "disagreed"],
                    num_unanswered=self._blind[k, "none"],
                )
                for k in numbers
                if _of(self._blind, k)
            ),
            usage=Usage(
                num_requests=memory.num_answers,
                prompt_tokens=memory.usage.prompt_tokens,
                completion_tokens=memory.usage.completion_tokens,
                cost=memory.usage.cost(explain) if explain.input_price or explain.output_price else None,
            ),
            settings={f"explain.{name}": str(value) for name, value in leaves(explain.model_dump(mode="json"))},
            prompts=prompts,
            examples=tuple(example for some in self._examples.values() for example in some),
        )

    def _split_counts(
        self, split: str, numbers: list[int], memory: TeacherMemory, first: Mapping[str, Mapping[int, Any]]
    ) -> SplitCounts:
        after = memory.class_counts(split)
        classes = []
        for number in numbers:
            if number not in after:
                continue
            num_kept_first = first[split][number].num_kept
            classes.append(
                ClassCounts(
                    label=self._name(number),
                    num_rows_in=self._rows_in[split, number],
                    num_rows_out=self._rows_out[split, number],
                    num_kept_first=num_kept_first,
                    num_rescued=after[number].num_kept - num_kept_first,
                )
            )
        return SplitCounts(name=split, classes=tuple(classes))

    def _name(self, number: int) -> str | None:
        return None if number == UNLABELLED else self._labels[number]


def _of(counts: Counter[tuple[int, str]], number: int) -> dict[str, int]:
    """The counts of one class, the most frequent first, equal ones by name."""
    own = {name: count for (label, name), count in counts.items() if label == number}
    return dict(sorted(own.items(), key=lambda item: (-item[1], item[0])))
