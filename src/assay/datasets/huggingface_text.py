"""Texts of the Hugging Face hub, or of files of the user's own that its library reads."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt, Lt

from assay.data import labelled_images, labelled_texts, splitting, text_tables
from assay.data.hub_datasets import Source, Table, label_names, shares_of, tables
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    title="Texts of the Hugging Face hub",
    source="https://huggingface.co/datasets, or the user's own",
    licence="the one that its page names",
    split="the published splits that the study names, else by the SHA-256 of the texts (within "
    "each class, where there are labels); equal texts never come into two splits",
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
    """Load texts, with labels or without; a row is a document, and empty ones are left out.

    Args:
        hub: id on the hub, such as `ag_news`; left out where there is a `path`.
        revision: its commit, 40 hexadecimal digits; with `hub`.
        configuration: of those that it has; left out where there is one.
        path: a folder that `save_to_disk` wrote, or files in Parquet, CSV or JSON Lines, which
            are one split named `train`.
        train: name of the split for training.
        validation: name of the one for validation; left out where it is a share of `train`.
        test: name of the one for testing; likewise.
        validation_fraction: of `train`.
        test_fraction: of `train`.
        text: the column with the texts.
        label: the column with the classes; left out for language modelling.
        max_length: how many tokens of a text count; with `label`.

    Returns:
        Split -> {`text`: documents, `label` (with labels): int64 (n,)}, and the info.

    Raises:
        JobError: it cannot be loaded, lacks a split or a column, or a row cannot be used.
    """
    source = Source(hub, revision, configuration, Path(path) if path else None)
    shares = shares_of(
        source, validation=(validation, validation_fraction), test=(test, test_fraction)
    )
    names = {"train": train, "validation": validation, "test": test}
    found = tables(source, names, [text, label] if label else [text])
    _check(source, found[0], text, label, max_length)
    if label and max_length:
        examples = _examples(source, found, text, label)
        return labelled_texts.collect(examples, shares, max_length, str(source))
    return _divided(found, text, shares)


@dataclass(frozen=True)
class Documents:
    """A column of rows, read each time: it need not fit into memory."""

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
        what = "label and max_length go together: set both or none"
        raise JobError(f"{source}: {what}", ExitCode.DATA)
    kind = getattr(table.rows.features[text], "dtype", "a list")
    if kind not in ("string", "large_string"):
        raise JobError(f"{source}: the column {text!r} holds {kind}, no text", ExitCode.DATA)


def _examples(
    source: Source, tables: Sequence[Table], text: str, label: str
) -> list[labelled_texts.Example]:
    examples, faults = [], []
    for table in tables:
        names = label_names(table, label)
        for where, fields in table.read():
            example = text_tables.example(fields[text], fields[label], names, table.split)
            if isinstance(example, str):
                faults.append(f"{where}: {example}")
            else:
                examples.append(example)
    if faults:
        advice = "choose splits whose rows all have a text and a label"
        raise labelled_images.fault(str(source), "rows cannot be used", faults, advice)
    return examples


def _divided(
    tables: Sequence[Table], text: str, shares: Mapping[str, float]
) -> tuple[Splits, DataInfo]:
    """Rows without labels, divided by their texts."""
    keys, given, places = [], [], []
    for table_number, table in enumerate(tables):
        for row, (_, fields) in enumerate(table.read()):
            if (fields[text] or "").strip():
                keys.append(labelled_texts.key(fields[text]))
                given.append(table.split)
                places.append((table_number, row))
    parts = splitting.divide(keys, [0] * len(keys), given, shares)
    splits: Splits = {}
    for split in SPLITS:
        chosen = [
            Table(table.rows.select(rows), table.name, split)
            for number, table in enumerate(tables)
            if (
                rows := [
                    row
                    for part, (place, row) in zip(parts, places, strict=True)
                    if part == split and place == number
                ]
            )
        ]
        splits[split] = {"text": Documents(chosen, text)}
    left_out = {
        "repeated": parts.count(None),
        "empty": sum(len(t.rows) for t in tables) - len(keys),
    }
    return splits, INFO | {"left_out": left_out}
