"""Tables of texts with labels: CSV, TSV and JSON Lines, read row by row."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from assay.data import labelled_images
from assay.data.labelled_texts import Example
from assay.runs.errors import ExitCode, JobError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
LONGEST_FIELD = 2**31 - 1  # characters; csv takes 131,072 by default
COLUMNS_SHOWN = 8

Row = tuple[int, Any, Any]  # line, text, label


def read(path: Path, text: str, label: str, split: str | None) -> list[Example]:
    """Read a table in UTF-8.

    CSV and TSV name their columns in the first line, and quote as Excel and pandas do. JSON Lines
    has an object on each line.

    Args:
        path: its ending tells its form: .csv, .tsv, .jsonl or .ndjson.
        text: the column with the texts.
        label: the column with the labels: texts, whole numbers or truth values.
        split: of its examples, where that is fixed.

    Raises:
        JobError: it cannot be read, lacks a column, or rows lack a text or a label.
    """
    examples, faults = [], []
    try:
        for line, *fields in _rows(path, text, label):
            found = example(*fields, None, split)
            if isinstance(found, str):
                faults.append(f"line {line}: {found}")
            else:
                examples.append(found)
    except UnicodeDecodeError as error:
        raise _fault(path, "is no text in UTF-8: save it in UTF-8") from error
    if faults:
        what = "rows cannot be used"
        raise labelled_images.fault(
            labelled_images.shown(path), what, faults, "mend or remove them"
        )
    if not examples:
        raise _fault(path, "has no row")
    return examples


def _rows(path: Path, text: str, label: str) -> Iterator[Row]:
    if not path.is_file():
        raise _fault(path, "is no file")
    ending = path.suffix.lower()
    if ending in DELIMITERS:
        return _delimited(path, text, label, DELIMITERS[ending])
    if ending in JSON_LINES:
        return _json_lines(path, text, label)
    known = ", ".join((*DELIMITERS, *JSON_LINES))
    raise _fault(path, f"its name must end with the form that it has: one of {known}")


def _delimited(path: Path, text: str, label: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise _fault(path, "is empty: its first line must name the columns")
            places = [_place(path, header, column) for column in (text, label)]
            for fields in reader:
                if fields and len(fields) != len(header):
                    what = f"{len(fields)} fields, but there are {len(header)} columns"
                    raise _fault(path, f"line {reader.line_num} has {what}: quote fields")
                if fields:
                    yield reader.line_num, *(fields[place] for place in places)
        except csv.Error as error:
            raise _fault(path, f"line {reader.line_num} cannot be read ({error})") from error


def _place(path: Path, header: Sequence[str], column: str) -> int:
    if header.count(column) == 1:
        return header.index(column)
    how = "several columns" if column in header else "no column"
    raise _fault(path, f"has {how} named {column!r}; its columns are {_named(header)}")


def _json_lines(path: Path, text: str, label: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _fault(path, f"line {number} is no JSON ({error})") from error
            if not isinstance(row, dict):
                raise _fault(path, f"line {number} is no JSON object such as {{{text!r}: ...}}")
            for column in (text, label):
                if column not in row:
                    what = f"line {number} has no key {column!r}; its keys are {_named(row)}"
                    raise _fault(path, what)
            yield number, row[text], row[label]


def example(text: Any, label: Any, names: Sequence[str] | None, split: str | None) -> Example | str:
    """An example of a row's two values, or what is wrong with them.

    Args:
        text: a text that is not empty.
        label: a text, a whole number or a truth value.
        names: of the classes, where the label is the number of one.
        split: where it is fixed.
    """
    if not isinstance(text, str):
        return "no text" if text is None else "its text is none"
    if not text.strip():
        return "no text"
    name = class_name(label, names)
    if name is None:
        return "no label, or one that is neither a text nor a whole number"
    if not (_is_unicode(text) and _is_unicode(name)):
        return "it holds half a surrogate pair, which is no character"
    return Example(text, name, split)


def class_name(label: Any, names: Sequence[str] | None) -> str | None:
    """The name of a label's class; None for what is no label.

    Args:
        label: a text, a whole number or a truth value.
        names: of the classes, where the label is the number of one.
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


def _named(columns: Any) -> str:
    names = [repr(name) for name in columns]
    return ", ".join(names[:COLUMNS_SHOWN]) + (", ..." if len(names) > COLUMNS_SHOWN else "")


def _fault(path: Path, what: str) -> JobError:
    return JobError(f"{labelled_images.shown(path)}: {what}", ExitCode.DATA)
