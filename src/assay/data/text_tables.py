"""Read tables of texts with class labels: CSV, TSV and JSON Lines."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from assay.data.labelled_texts import Example
from assay.data.messages import data_error, printable
from assay.runs.errors import ExitCode, JobError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
MAX_FIELD_CHARACTERS = 2**31 - 1  # the default of csv is 131,072
MAX_COLUMNS_LISTED = 8

Row = tuple[int, Any, Any]  # line, text, label


def read(path: Path, text: str, label: str, split: str | None) -> list[Example]:
    """Read a table in UTF-8.

    The first line of CSV and TSV has the column names, and fields are quoted as by Excel and
    pandas. Each line of JSON Lines is an object.

    Args:
        path: its extension says its format: .csv, .tsv, .jsonl or .ndjson.
        text: the column with the texts.
        label: the column with the labels: texts, whole numbers or booleans.
        split: of the examples, if it is fixed.

    Raises:
        JobError: it cannot be read, lacks a column, or rows lack a text or a label.
    """
    examples, problems = [], []
    try:
        for line, *values in _rows(path, text, label):
            result = example(*values, None, split)
            if isinstance(result, str):
                problems.append(f"line {line}: {result}")
            else:
                examples.append(result)
    except UnicodeDecodeError as error:
        raise _error(path, "is not text in UTF-8: save it in UTF-8") from error
    if problems:
        raise data_error(printable(path), "rows cannot be used", problems, "correct or remove them")
    if not examples:
        raise _error(path, "has no rows: add some")
    return examples


def _rows(path: Path, text: str, label: str) -> Iterator[Row]:
    if not path.is_file():
        raise _error(path, "there is no such file: correct the path, or create the file")
    extension = path.suffix.lower()
    if extension in DELIMITERS:
        return _delimited(path, text, label, DELIMITERS[extension])
    if extension in JSON_LINES:
        return _json_lines(path, text, label)
    known = ", ".join((*DELIMITERS, *JSON_LINES))
    raise _error(path, f"its name must end with the extension of its format, one of {known}")


def _delimited(path: Path, text: str, label: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise _error(path, "is empty: its first line must have the column names")
            indices = [_index(path, header, column) for column in (text, label)]
            for fields in reader:
                if fields and len(fields) != len(header):
                    what = f"{len(fields)} fields, but there are {len(header)} columns"
                    raise _error(path, f"line {reader.line_num} has {what}: quote fields")
                if fields:
                    yield reader.line_num, *(fields[index] for index in indices)
        except csv.Error as error:
            raise _error(path, f"line {reader.line_num} cannot be read ({error})") from error


def _index(path: Path, header: Sequence[str], column: str) -> int:
    if header.count(column) == 1:
        return header.index(column)
    what = "several columns" if column in header else "no column"
    raise _error(path, f"has {what} named {column!r}; its columns are {_listed(header)}")


def _json_lines(path: Path, text: str, label: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _error(path, f"line {number} is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise _error(path, f"line {number} is not a JSON object such as {{{text!r}: ...}}")
            for column in (text, label):
                if column not in row:
                    what = f"line {number} has no key {column!r}; its keys are {_listed(row)}"
                    raise _error(path, what)
            yield number, row[text], row[label]


def example(text: Any, label: Any, names: Sequence[str] | None, split: str | None) -> Example | str:
    """Return an example of a row's two values, or what is wrong with them.

    Args:
        text: a text that is not blank.
        label: as in `class_name`.
        names: as in `class_name`.
        split: the split, if it is fixed.
    """
    if not isinstance(text, str):
        return "no text" if text is None else "the text is not a string"
    if not text.strip():
        return "no text"
    name = class_name(label, names)
    if name is None:
        return "no label, or one that is neither a text nor a whole number"
    if not (_is_unicode(text) and _is_unicode(name)):
        return "it has half a surrogate pair, which is not a character"
    return Example(text, name, split)


def class_name(label: Any, names: Sequence[str] | None) -> str | None:
    """Return the name of a label's class; None for an invalid label.

    Args:
        label: a text, a whole number or a boolean.
        names: of the classes, if the label is the index of one.
    """
    if names is not None and label is not None:
        return names[label] if 0 <= label < len(names) else None
    if not isinstance(label, str | int):
        return None
    return (str(label).lower() if isinstance(label, bool) else str(label).strip()) or None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed(columns: Any) -> str:
    names = [repr(name) for name in columns]
    return ", ".join(names[:MAX_COLUMNS_LISTED]) + (
        ", ..." if len(names) > MAX_COLUMNS_LISTED else ""
    )


def _error(path: Path, what: str) -> JobError:
    return JobError(f"{printable(path)}: {what}", ExitCode.DATA)
