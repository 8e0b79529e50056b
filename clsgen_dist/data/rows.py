"""Records as people keep them (see `files`) -> checked `Row`s, one at a time.

Reads in a stream, so memory does not grow with the number of rows. Messages name the file and the line, never the
text itself, which may be a patient's note.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clsgen_dist.config.run import label_text
from clsgen_dist.config.sections import Data
from clsgen_dist.data.files import MAX_TEXT_CHARACTERS, files_of, read_records
from clsgen_dist.errors import DataError
from clsgen_dist.records import Row

#: Characters of a subgroup's name; a longer one is a text, which does not belong into metrics.
MAX_SUBGROUP_CHARACTERS = 200

#: Characters that a message tells of the name of a column.
_MOST_TOLD = 24

#: Subgroup of the rows that say nothing.
NO_SUBGROUP = "(none)"


def read_rows(source: str, columns: Data, labels: list[str], *, need_labels: bool = True) -> Iterator[tuple[str, Row]]:
    """Reads rows and checks each by itself.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file, a pattern of such paths (data/*.csv), or a Hugging Face
            data set as NAME or NAME:SPLIT.
        columns: the names of the columns.
        labels: names of the labels in the order of their numbers.
        need_labels: whether a file without a column of labels is an error; each row may lack its label either way.

    Yields:
        Where the row stands, as "FILE:LINE", and the row.

    Raises:
        DataError: the file is missing, empty or broken, or a row has no text or an unknown label; names file and line.
    """
    to_row = _row_builder(columns, labels, need_labels)
    names = files_of(source)
    if not names:
        raise DataError(f"{source}: no file of such a name")
    for name in names:
        num_rows = 0
        for place, record in read_records(name):
            num_rows += 1
            yield place, to_row(place, record, f"{Path(name).stem}-{num_rows}")
        if num_rows == 0:
            raise DataError(f"{name}: no rows in it")


def check_ids(rows: Sequence[Row], source: str) -> None:
    """Refuses rows of which two have one id. Raises DataError."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if row.id in seen:
            raise DataError(f"{source}: rows {seen[row.id]} and {number} have the same id {row.id[:40]!r}")
        seen[row.id] = number


def label_numbers(labels: Sequence[str]) -> dict[str, int]:
    """Number of a label by its name, and by its number as text.

    Where a name is itself a number and not its own, as of labels "1" to "5", names alone count: a file that numbers
    them from 0 would be read one off, without a word.
    """
    names = {name: number for number, name in enumerate(labels)}
    numbers = {label_text(number): number for number in range(len(labels))}
    if any(name.strip().lstrip("+-").isdigit() and numbers.get(name) != number for name, number in names.items()):
        return names
    return numbers | names


def _row_builder(columns: Data, labels: list[str], need_labels: bool) -> Callable[[str, Mapping[str, Any], str], Row]:
    numbers = label_numbers(labels)
    if columns.label_map is not None:
        numbers = {value: labels.index(name) for value, name in columns.label_map.items()}
    fields = [name for _, name, _, _ in string.Formatter().parse(columns.text_template or "") if name is not None]

    def build(place: str, record: Mapping[str, Any], fallback_id: str) -> Row:
        return Row(
            id=_name(place, record, columns.id_column, "id") or fallback_id,
            text=_text(place, record, columns, fields),
            label=_label(place, record, columns, numbers) if need_labels or columns.label_column in record else None,
            explanation=_reason(place, record, columns.explanation_column),
            references=tuple(
                reason for name in columns.reference_columns if (reason := _reason(place, record, name)) is not None
            ),
            group=_name(place, record, columns.group_column, "group"),
            true_probability=_probability(place, record, columns),
            subgroups=tuple((name, _subgroup(place, record, name)) for name in columns.subgroup_columns),
        )

    return build


def _name(place: str, record: Mapping[str, Any], column: str | None, what: str) -> str | None:
    """The id or group of a row; None where it has none, as pandas writes NaN for."""
    value = record.get(column) if column else None
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | dict | bytes):
        raise DataError(f"{place}: the {what} is {type(value).__name__}, expected a name or a number")
    return str(value)


def _column(place: str, record: Mapping[str, Any], name: str, setting: str) -> Any:
    if name not in record:
        raise DataError(f"{place}: no column {name!r} ({setting}); found {_found(list(map(str, record)))}")
    return record[name]


def _found(names: list[str]) -> str:
    """Names of columns, cut: where a file has no header, its first row is taken for them."""
    cut = ", ".join(_one_line(name) if len(name) <= _MOST_TOLD else f"{_one_line(name[:_MOST_TOLD])}..." for name in names[:12])
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        return f"{cut}; expected columns that are separated by commas"
    if any(len(name) > _MOST_TOLD for name in names):
        return f"{cut}; expected a header line with the names of the columns"
    return cut


def _one_line(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _text(place: str, record: Mapping[str, Any], columns: Data, fields: list[str]) -> str:
    if columns.text_template is None:
        text = _column(place, record, columns.text_column, "data.text_column")
    else:
        parts = {name: _column(place, record, name, "data.text_template") for name in fields}
        empty = [name for name, part in parts.items() if part is None]
        if empty:
            raise DataError(f"{place}: column {empty[0]!r} of data.text_template is empty")
        text = columns.text_template.format_map(parts)
    if not isinstance(text, str) or not text.strip():
        found = "nothing" if text is None or isinstance(text, str) else type(text).__name__
        raise DataError(f"{place}: a row without text: expected words in {columns.text_column!r}, found {found}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise DataError(f"{place}: the text has {len(text):,} characters, at most {MAX_TEXT_CHARACTERS:,} are read")
    return text


def _label(place: str, record: Mapping[str, Any], columns: Data, numbers: Mapping[str, int]) -> int | None:
    value = _column(place, record, columns.label_column, "data.label_column")
    if value is None or value == "":
        return None
    number = numbers.get(label_text(value))
    if number is None:
        raise DataError(
            f"{place}: unknown label {label_text(value)[:40]!r}; expected one of {', '.join(map(repr, numbers))} "
            "(task.labels, data.label_map)"
        )
    return number


def _reason(place: str, record: Mapping[str, Any], column: str | None) -> str | None:
    """What people wrote in a column, which a row may lack."""
    value = record.get(column) if column else None
    if value is not None and not isinstance(value, str):
        raise DataError(f"{place}: the explanation is {type(value).__name__}, expected text")
    return value.strip() or None if value is not None else None


def _subgroup(place: str, record: Mapping[str, Any], name: str) -> str:
    value = _column(place, record, name, "data.subgroup_columns")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NO_SUBGROUP
    if isinstance(value, list | dict):
        raise DataError(f"{place}: column {name!r} (data.subgroup_columns) holds a {type(value).__name__}, not a name")
    words = label_text(value).strip()
    if len(words) > MAX_SUBGROUP_CHARACTERS:
        raise DataError(
            f"{place}: column {name!r} (data.subgroup_columns) holds {len(words):,} characters, expected a name of at "
            f"most {MAX_SUBGROUP_CHARACTERS}"
        )
    return words or NO_SUBGROUP


def _probability(place: str, record: Mapping[str, Any], columns: Data) -> float | None:
    if columns.true_probability_column is None:
        return None
    value = _column(place, record, columns.true_probability_column, "data.true_probability_column")
    try:
        probability, found = float(value), str(value)[:40]
    except (TypeError, ValueError):
        probability, found = math.nan, type(value).__name__
    if not 0.0 <= probability <= 1.0:
        raise DataError(f"{place}: the true probability is {found}, expected a number from 0 to 1")
    return probability
