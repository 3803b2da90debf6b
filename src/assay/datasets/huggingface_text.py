"""Texts of the Hugging Face hub, or of your own files that its library `datasets` reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from assay.data import hub_datasets, labelled_texts, splitting, text_tables
from assay.data.hub_datasets import Source, Table
from assay.data.messages import data_error
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    title="Texts of the Hugging Face hub",
    source="https://huggingface.co/datasets, or the user's own",
    licence="the one on its page",
    split="the published splits that the study names; otherwise by the SHA-256 of the texts "
    "(within each class, if there are labels); equal texts never come into two splits",
)
Splits = dict[str, dict[str, Any]]


def prepare(
    *,
    hub: str | None = None,
    revision: str | None = None,
    configuration: str | None = None,
    path: Path | None = None,
    train: str = "train",
    validation: str | None = None,
    test: str | None = None,
    validation_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    test_fraction: Annotated[float, Gt(0), Lt(1)] | None = None,
    text: str = "text",
    label: str | None = None,
    max_length: Annotated[int, Gt(0)] | None = None,
) -> tuple[Splits, DataInfo]:
    """Load texts, with or without labels; a row is a document, and blank ones are left out.

    Args:
        hub: repository on the hub, such as `ag_news`; not with `path`.
        revision: its commit, 40 hexadecimal digits; with `hub`.
        configuration: its configuration, if it has several.
        path: a folder that `save_to_disk` wrote, or files in Parquet, CSV or JSON Lines, which
            are one split named `train`.
        train: name of the published split for training.
        validation: name of the published split for validation, or `validation_fraction`.
        test: name of the published split for testing, or `test_fraction`.
        validation_fraction: fraction of `train` for validation.
        test_fraction: fraction of `train` for testing.
        text: the column with the texts.
        label: the column with the classes; leave it out for language modelling.
        max_length: number of tokens to which a text is truncated or padded; with `label`.

    Returns:
        Split -> {`text`: documents, `label` (with labels): int64 (n,)}, and the info.

    Raises:
        JobError: the data cannot be loaded, lacks a split or a column, or a row cannot be used.
    """
    source = Source(hub, revision, configuration, Path(path) if path else None)
    fractions = hub_datasets.fractions_of(
        source, validation=(validation, validation_fraction), test=(test, test_fraction)
    )
    names = {"train": train, "validation": validation, "test": test}
    tables = hub_datasets.load(source, names, [text, label] if label else [text])
    _check(source, tables[0], text, label, max_length)
    if label and max_length:
        examples = _examples(source, tables, text, label)
        return labelled_texts.collect(examples, fractions, max_length, str(source))
    return _without_labels(tables, text, fractions)


@dataclass(frozen=True)
class Documents:
    """A column of rows, which is read in each iteration, so that it need not fit into memory."""

    tables: Sequence[Table]
    column: str

    def __len__(self) -> int:
        return sum(len(table.rows) for table in self.tables)

    def __iter__(self) -> Iterator[str]:
        return (fields[self.column] for table in self.tables for _, fields in table.read())


def _check(
    source: Source, table: Table, text: str, label: str | None, max_length: int | None
) -> None:
    if (label is None) != (max_length is None):
        what = "label and max_length belong together: set both or none"
        raise JobError(f"{source}: {what}", ExitCode.DATA)
    dtype = getattr(table.rows.features[text], "dtype", "a list")
    if dtype not in ("string", "large_string"):
        what = f"the column {text!r} has {dtype}, not text: name another column"
        raise JobError(f"{source}: {what}", ExitCode.DATA)


def _examples(
    source: Source, tables: Sequence[Table], text: str, label: str
) -> list[labelled_texts.Example]:
    examples, problems = [], []
    for table in tables:
        names = hub_datasets.class_names(table, label)
        for name, fields in table.read():
            result = text_tables.example(fields[text], fields[label], names, table.split)
            if isinstance(result, str):
                problems.append(f"{name}: {result}")
            else:
                examples.append(result)
    if problems:
        remedy = "name splits whose rows all have a text and a label"
        raise data_error(str(source), "rows cannot be used", problems, remedy)
    return examples


def _without_labels(
    tables: Sequence[Table], text: str, fractions: Mapping[str, float]
) -> tuple[Splits, DataInfo]:
    """Split rows by their texts."""
    keys, fixed, positions = [], [], []  # a position is the index of a table and of its row
    for index, table in enumerate(tables):
        for row, (_, fields) in enumerate(table.read()):
            if (fields[text] or "").strip():
                keys.append(labelled_texts.key(fields[text]))
                fixed.append(table.split)
                positions.append((index, row))
    assigned = splitting.split_examples(keys, [0] * len(keys), fixed, fractions)
    splits: Splits = {}
    for split in SPLITS:
        rows: dict[int, list[int]] = {}
        for own, (index, row) in zip(assigned, positions, strict=True):
            if own == split:
                rows.setdefault(index, []).append(row)
        parts = [Table(tables[i].rows.select(rows[i]), tables[i].name, split) for i in sorted(rows)]
        splits[split] = {"text": Documents(parts, text)}
    blank = sum(len(table.rows) for table in tables) - len(keys)
    return splits, INFO | {"left_out": {"repeated": assigned.count(None), "empty": blank}}
