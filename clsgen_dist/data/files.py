"""Records of files and of Hugging Face data sets, one at a time: JSONL, JSON, CSV, Parquet, or several files by a pattern.

Reads in a stream, so memory does not grow with the number of records. Messages name the file and the line, never the
text itself, which may be a patient's note.
"""

from __future__ import annotations

import csv
import glob
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clsgen_dist.data.json_document import document_objects, opens_document, unique_keys
from clsgen_dist.errors import DataError

#: One raw record and where it stands, as "FILE:LINE".
Record = tuple[str, Mapping[str, Any]]

#: Characters a row's text may have; longer ones are a broken file rather than a document.
MAX_TEXT_CHARACTERS = 5_000_000

#: Bytes of a line that are held in memory, at most.
MAX_LINE_BYTES = 8 * MAX_TEXT_CHARACTERS


def files_of(source: str) -> list[str]:
    """The files that a pattern names (data/*.csv), in the order of their names; any other source is one by itself."""
    if not re.search(r"[*?\[]", source) or Path(source).exists():
        return [source]
    return sorted(glob.glob(source))


def read_records(source: str) -> Iterator[Record]:
    """Reads the records of one source, which is no pattern.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file, or a Hugging Face data set as NAME or NAME:SPLIT.

    Yields:
        Where the record stands, as "FILE:LINE", and the record.

    Raises:
        DataError: the file is missing or broken; names file and line.
    """
    path = Path(source)
    readers: dict[str, Callable[[Path], Iterator[Record]]] = {
        ".jsonl": read_jsonl,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if path.is_dir():
        raise DataError(f"{source}: is a folder; expected a .jsonl, .json, .csv or .parquet file")
    if path.exists() and reader is None:
        raise DataError(f"{source}: unknown kind of file; expected .jsonl, .json, .csv or .parquet")
    if reader is not None:
        if not path.exists():
            raise DataError(f"{source}: no such file")
        _refuse_devices(path)
        return reader(path)
    # A name on the Hub may hold a dot; it has an owner, and no folder of that name stands here.
    if source.startswith((".", "/", "~")) or (path.suffix and ("/" not in source or path.parent.is_dir())):
        raise DataError(f"{source}: no such file")
    return _hub(source)


def _refuse_devices(path: Path) -> None:
    """Rows are read more than once, and some devices never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: is no plain file, but a pipe or a device; expected a file of rows")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    _refuse_devices(path)
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(raw) > MAX_LINE_BYTES:
                    raise DataError(f"{path}:{number}: a line of more than {MAX_LINE_BYTES:,} bytes")
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
            record = json.loads(line, object_pairs_hook=unique_keys)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = getattr(error, "msg", "nested too deeply")
            raise DataError(f"{path}:{number}: not JSON ({reason}); expected one JSON object a line") from None
        except ValueError as error:  # an integer of thousands of digits, or a key twice
            raise DataError(f"{path}:{number}: not JSON ({error})") from None
        yield _checked(f"{path}:{number}", line, record)


def _json(path: Path) -> Iterator[Record]:
    """JSON lines, or one document that holds an array of objects."""
    try:
        is_document = opens_document(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if not is_document:
        yield from read_jsonl(path)
        return
    for line, text, element in document_objects(path, max_characters=2 * MAX_TEXT_CHARACTERS):
        yield _checked(f"{path}:{line}", text, element)


def _checked(place: str, text: str, record: object) -> Record:
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected a JSON object, found {type(record).__name__}")
    if "\\ud" in text.lower() and _has_half_characters(record):
        raise DataError(f"{place}: not text: an escape such as \\ud83d without its second half")
    return place, record


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
        _refuse_same_columns(f"{path}:1", reader.fieldnames or ())
        for record in reader:
            place = f"{path}:{reader.line_num}"
            if None in record or None in record.values():
                raise DataError(f"{place}: expected {len(reader.fieldnames or ())} columns, found another number")
            yield place, record
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num}: not CSV ({error})") from None


def _refuse_same_columns(place: str, names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{place}: two columns are called {twice[0][:40]!r}; rename one of them")


#: What reading Parquet may raise: pyarrow's own errors, and Python's where a value has no counterpart in Python, as a
#: date in the year 3,000,000 or an unknown time zone.
_PARQUET_ERRORS = (OSError, ValueError, ArithmeticError, LookupError, TypeError, pa.ArrowException)


def _parquet(path: Path) -> Iterator[Record]:
    number = 0
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        _refuse_same_columns(str(path), file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=1024, use_threads=False):
            for record in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", record
    except _PARQUET_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        readable = "".join(letter if letter.isprintable() else "?" for letter in reason)
        raise DataError(f"{path}: not Parquet that can be read, after row {number} ({readable})") from None


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


