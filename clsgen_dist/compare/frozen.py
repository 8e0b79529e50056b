"""The rows of a comparison, written down once: whatever is drawn later, every arm and seed has the same ones.

Splits, the draw of rows and the explanations depend on the seed of the base; the seeds of the arms are others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from clsgen_dist.config.folder import RunFolder
from clsgen_dist.config.run import RunConfig
from clsgen_dist.records import SPLITS, Row, group_name

#: Field of a row -> its column. Names that no column of a user's has, as those of subgroups keep theirs.
COLUMNS = {
    "id": "_id",
    "text": "_text",
    "label": "_label",
    "explanation": "_explanation",
    "group": "_group",
    "true_probability": "_true_probability",
}


def reference_columns(config: RunConfig) -> list[str]:
    """Columns of the further references, as many as the rows were read with."""
    return [f"_reference_{number}" for number, _ in enumerate(config.data.reference_columns, 1)]


def frozen_file(folder: Path, split: str) -> Path:
    """Where the rows of a split stand, in the folder of a comparison."""
    return folder / "data" / f"{split}.jsonl"


def freeze_rows(config: RunConfig) -> None:
    """Writes the explained rows of a run folder as files that arms read; the same rows give the same bytes."""
    from clsgen_dist.data.store import stored_rows  # pyarrow

    folder, columns = RunFolder(config.folder), reference_columns(config)
    for split in SPLITS:
        path = frozen_file(Path(config.run.output_dir), split)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w", encoding="utf-8") as file:
            for row in stored_rows(folder.rows(split)):
                record = _record(row, config.task.labels) | dict(zip_longest(columns, row.references))
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        os.replace(unfinished, path)


def _record(row: Row, labels: list[str]) -> dict[str, Any]:
    known = {column: getattr(row, name) for name, column in COLUMNS.items()}
    return known | {"_label": None if row.label is None else labels[row.label], **dict(row.subgroups)}


def frozen_groups(folder: Path, split: str) -> dict[str, str]:
    """Name of the group of every frozen row, by the row's id."""
    return {line["_id"]: group_name(line["_id"], line["_group"]) for line in _lines(frozen_file(folder, split))}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
