"""Rows as people keep them (JSONL, CSV, Parquet, a Hugging Face data set) -> checked `Row`s, one at a time.

Reads in a stream, so memory does not grow with the number of rows. Messages name the file and the line, never the
text itself, which may be a patient's note.
"""

from __future__ import annotations

import csv
import json
import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clsgen_dist.config.run import label_text
from clsgen_dist.config.sections import Data
from clsgen_dist.errors import DataError
from clsgen_dist.records import Row

#: One raw record and where it stands, as "FILE:LINE".
Record = tuple[str, Mapping[str, Any]]

#: Characters a row's text may have; longer ones are a broken file rather than a document.
MAX_TEXT_CHARACTERS = 5_000_000

#: Characters of a subgroup's name; a longer one is a text, which does not belong into metrics.
MAX_SUBGROUP_CHARACTERS = 200

#: Subgroup of the rows that say nothing.
NO_SUBGROUP = "(none)"


def read_rows(source: str, columns: Data, labels: list[str], *, need_labels: bool = True) -> Iterator[tuple[str, Row]]:
    """Reads rows and checks each by itself.

    Args:
        source: path of a .jsonl, .csv or .parquet file, or a Hugging Face data set as NAME or NAME:SPLIT.
        columns: the names of the columns.
        labels: names of the labels in the order of their numbers.
        need_labels: whether a file without a column of labels is an error; each row may lack its label either way.

    Yields:
        Where the row stands, as "FILE:LINE", and the row.

    Raises:
        DataError: the file is missing, empty or broken, or a row has no text or an unknown label; names file and line.
    """
    to_row = _row_builder(columns, labels, need_labels)
    num_rows = 0
    for place, record in _records(source):
        num_rows += 1
        yield place, to_row(place, record, f"{Path(source).stem}-{num_rows}")
    if num_rows == 0:
        raise DataError(f"{source}: no rows in it")


def check_ids(rows: Sequence[Row], source: str) -> None:
    """Refuses rows of which two have one id. Raises DataError."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        if row.id in seen:
            raise DataError(f"{source}: rows {seen[row.id]} and {number} have the same id {row.id[:60]!r}")
        seen[row.id] = number


def _records(source: str) -> Iterator[Record]:
    path = Path(source)
    readers: dict[str, Callable[[Path], Iterator[Record]]] = {
        ".jsonl": read_jsonl,
        ".json": read_jsonl,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise DataError(f"{source}: is a folder; expected a .jsonl, .csv or .parquet file")
    if path.exists() and reader is None:
        raise DataError(f"{source}: unknown kind of file; expected .jsonl, .csv or .parquet")
    if reader is not None:
        if not path.exists():
            raise DataError(f"{source}: no such file")
        return reader(path)
    # A name on the Hub may hold a dot; it has an owner, and no folder of that name stands here.
    if source.startswith((".", "/", "~")) or (path.suffix and ("/" not in source or path.parent.is_dir())):
        raise DataError(f"{source}: no such file")
    return _hub(source)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path}:{number}: not UTF-8 (byte {error.start} of the line)") from None
                yield number, line
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_jsonl(path: Path) -> Iterator[Record]:
    """Reads JSON objects, one a line; blank lines are passed over.

    Yields:
        Where the object stands, as "FILE:LINE", and the object.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or a line is no JSON object; names file and line.
    """
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            raise DataError(f"{path}:{number}: not JSON ({reason}); expected one JSON object a line") from None
        except ValueError as error:  # an integer of thousands of digits
            raise DataError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, found {type(record).__name__}")
        if "\\ud" in line.lower() and _has_half_characters(record):
            raise DataError(f"{path}:{number}: not text: an escape such as \\ud83d without its second half")
        yield f"{path}:{number}", record


def _has_half_characters(record: Mapping[str, Any]) -> bool:
    """Whether a string holds half of a surrogate pair, which JSON can escape and UTF-8 cannot write."""
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(MAX_TEXT_CHARACTERS)
    reader = csv.DictReader((line for _, line in _lines(path)), strict=True)
    try:
        for record in reader:
            place = f"{path}:{reader.line_num}"
            if None in record or None in record.values():
                raise DataError(f"{place}: expected {len(reader.fieldnames or ())} columns, found another number")
            yield place, record
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: not CSV ({error})") from None


def _parquet(path: Path) -> Iterator[Record]:
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        number = 0
        for batch in file.iter_batches(batch_size=1024, use_threads=False):
            for record in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", record
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise DataError(f"{path}: not Parquet ({str(error).splitlines()[0]})") from None


def _hub(source: str) -> Iterator[Record]:
    import datasets  # heavy, and seldom needed

    name, _, split = source.partition(":")
    owner_and_name, config = name.split("/")[:2], "/".join(name.split("/")[2:])
    try:
        rows = datasets.load_dataset("/".join(owner_and_name), config or None, split=split or "train", streaming=True)
        for number, record in enumerate(rows, 1):
            yield f"{source}:{number}", record
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - the Hub client raises many kinds, none of them ours
        raise DataError(
            f"{source}: neither a file here nor a data set that the Hugging Face Hub gave "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from None


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
        identity = record.get(columns.id_column)
        group = record.get(columns.group_column) if columns.group_column else None
        return Row(
            id=fallback_id if identity in (None, "") else str(identity),
            text=_text(place, record, columns, fields),
            label=_label(place, record, columns, numbers) if need_labels or columns.label_column in record else None,
            explanation=_explanation(place, record, columns),
            group=None if group in (None, "") else str(group),
            true_probability=_probability(place, record, columns),
            subgroups=tuple((name, _subgroup(place, record, name)) for name in columns.subgroup_columns),
        )

    return build


def _column(place: str, record: Mapping[str, Any], name: str, setting: str) -> Any:
    if name not in record:
        raise DataError(f"{place}: no column {name!r} ({setting}); found {', '.join(map(str, list(record)[:12]))}")
    return record[name]


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


def _explanation(place: str, record: Mapping[str, Any], columns: Data) -> str | None:
    value = record.get(columns.explanation_column) if columns.explanation_column else None
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
