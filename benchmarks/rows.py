"""Rows of the benchmarks: e-SNLI (short), PubMedQA (long) or vignettes, as token ids that every side gets alike."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: Where rows of e-SNLI and PubMedQA may lie: CLSGEN_BENCH_DATA, data/ of this project, or beside it.
FILES = {"esnli": "esnli_binary_train.jsonl", "pubmedqa": "pubmedqa_train.jsonl"}
QUESTIONS = {
    "esnli": ("Does the premise entail the hypothesis, or contradict it?", ["contradiction", "entailment"]),
    "pubmedqa": ("Does the abstract answer the question with yes?", ["no", "yes"]),
    "vignettes": ("Does this patient need to be seen today?", ["no", "yes"]),
}


def find_file(name: str) -> Path | None:
    """The file of a set of rows, where it is on this machine."""
    places = [os.environ.get("CLSGEN_BENCH_DATA"), ROOT / "data", ROOT.parent / "shared" / "data"]
    found = (Path(place) / FILES[name] for place in places if place is not None)
    return next((path for path in found if path.is_file()), None)


def read_texts(name: str, num_rows: int) -> list[dict[str, Any]]:
    """The first rows with an explanation; a set shorter than that starts again.

    Vignettes stand in where the file of a set is absent, and each row says so in `source`.
    """
    path = None if name == "vignettes" else find_file(name)
    if path is None:
        return _vignettes(num_rows)
    with path.open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row.get("explanation") and row.get("label") in (0, 1)]
    return [rows[n % len(rows)] | {"source": name} for n in range(num_rows)]


def _vignettes(num_rows: int) -> list[dict[str, Any]]:
    from clsgen_dist.data.synthetic import vignettes

    return [
        {"text": row.text, "label": row.label, "explanation": row.explanation, "source": "vignettes"}
        for row in vignettes(num_rows, seed=0, split="train")
    ]


def tokenize(rows: list[dict[str, Any]], backbone: str) -> list[dict[str, Any]]:
    """Rows -> `prompt`, `completion`, `label`; the ids that a run of ours would train on."""
    from clsgen_dist.config.sections import Model, Task
    from clsgen_dist.data.tokens import RowTokenizer, load_tokenizer
    from clsgen_dist.records import Row

    question, labels = QUESTIONS[rows[0]["source"]]
    tokenizer = RowTokenizer(
        load_tokenizer(Model(name_or_path=backbone), backbone),
        Task(question=question, labels=labels),
        max_prompt_tokens=1024,
        max_explanation_tokens=128,
    )
    records = [
        Row(id=str(n), text=row["text"], label=row["label"], explanation=row["explanation"])
        for n, row in enumerate(rows)
    ]
    encoded = tokenizer.encode_rows(records)
    return [
        {"prompt": row.prompt.tolist(), "completion": row.completion.tolist(), "label": row.label} for row in encoded
    ]


def prompts(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A task for rows of any set, and the rows with the whole prompt that a classifier without a template needs."""
    from clsgen_dist.config.sections import Task
    from clsgen_dist.data.prompts import prompt_frame, split_frame

    question, labels = QUESTIONS[rows[0]["source"]]
    before, after = split_frame(prompt_frame(Task(question=question, labels=labels)))
    whole = [{"text": row["text"], "prompt_text": before + row["text"] + after} for row in rows]
    return {"question": question, "labels": labels}, whole
