"""Load tables with the library `datasets`: from the Hugging Face hub, or the user's own."""

import atexit
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from assay.data.hub_files import COMMIT
from assay.data.messages import printable
from assay.runs import input_files
from assay.runs.errors import ExitCode, JobError, one_line

FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json"}
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Source:
    """Where tables come from: `hub` with `revision` (and perhaps `configuration`), or `path`."""

    hub: str | None
    revision: str | None
    configuration: str | None
    path: Path | None

    def __str__(self) -> str:
        if not self.hub:
            return printable(self.path or "")
        return ", ".join(filter(None, (self.hub, self.configuration)))


@dataclass(frozen=True)
class Table:
    """A published split.

    Attributes:
        rows: a `datasets.Dataset`.
        name: name of the published split, for messages.
        split: the split in which all of its rows are; None if they are to be split.
    """

    rows: Any
    name: str
    split: str | None

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield a name for messages, and the fields, of each row."""
        number = 0
        for batch in self.rows.iter(batch_size=BATCH_ROWS):
            columns = list(batch)
            for fields in zip(*batch.values(), strict=True):
                yield f"{self.name} row {number}", dict(zip(columns, fields, strict=True))
                number += 1


def load(source: Source, splits: Mapping[str, str | None], columns: Collection[str]) -> list[Table]:
    """Load the splits that a study names.

    Args:
        source: where they come from.
        splits: split -> its published name; None for one that is a fraction of `train`.
        columns: those that are needed; the others are not read.

    Raises:
        JobError: they cannot be loaded, or there is no such split or column.
    """
    _check(source)
    library = _library()
    library.disable_progress_bars()
    named = {split: name for split, name in splits.items() if name}
    if len({*named.values()}) < len(named):
        raise JobError(f"{source}: one split is used twice: {named}", ExitCode.DATA)
    try:
        loaded = _local(library, source.path) if source.path else _hub(library, source, named)
    except (JobError, MemoryError):
        raise
    except Exception as error:  # datasets, huggingface_hub, pyarrow and httpx each have their own
        what = f"{source}: cannot be loaded ({one_line(error)})"
        raise JobError(what, ExitCode.DATA) from error
    for name in named.values():
        if name not in loaded:
            what = f"has no split {name!r}; its splits are {', '.join(map(repr, loaded))}"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
    divided = len(named) < len(splits)
    return [
        Table(
            _select(source, loaded[name], columns),
            name,
            None if divided and split == "train" else split,
        )
        for split, name in named.items()
    ]


def fractions_of(source: Source, **splits: tuple[str | None, float | None]) -> dict[str, float]:
    """Return the fractions of the splits that are not published.

    Args:
        source: for messages.
        **splits: the name of the published split, and a fraction; one of them is None.

    Raises:
        JobError: both or none are set.
    """
    fractions = {}
    for split, (name, fraction) in splits.items():
        if (name is None) == (fraction is None):
            what = f"set either {split}, the name of a published split, or {split}_fraction"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
        if fraction is not None:
            fractions[split] = fraction
    return fractions


def class_names(table: Table, column: str) -> list[str] | None:
    """Return the names of the classes whose indices a column has; None if it has the names."""
    return getattr(table.rows.features[column], "names", None)


def _check(source: Source) -> None:
    if (source.hub is None) == (source.path is None):
        raise JobError("set either hub, with its revision, or path", ExitCode.DATA)
    if source.path and (source.revision or source.configuration):
        what = "revision and configuration need hub: leave them out"
        raise JobError(f"{source}: {what}", ExitCode.DATA)
    if source.hub and not COMMIT.fullmatch(source.revision or ""):
        what = "revision must be a commit (40 hexadecimal digits): a branch or tag can change"
        raise JobError(f"{source}: {what}", ExitCode.DATA)


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        what = "this data set needs the library datasets, which is not installed: run"
        command = ".venv/bin/python -m pip install 'datasets>=4'"
        raise JobError(f"{what} {command}", ExitCode.DATA) from error
    return datasets


def _hub(library: ModuleType, source: Source, named: Mapping[str, str]) -> dict[str, Any]:
    options = {"name": source.configuration, "revision": source.revision}
    published = library.get_dataset_split_names(
        source.hub, source.configuration, revision=source.revision
    )
    names = [name for name in named.values() if name in published]
    loaded = {name: library.load_dataset(source.hub, split=name, **options) for name in names}
    return {name: loaded.get(name) for name in published}


def _local(library: ModuleType, path: Path) -> dict[str, Any]:
    """Load the output of `save_to_disk`, or files of one format, which are the split `train`."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        loaded = library.load_from_disk(str(path))
        return dict(loaded) if isinstance(loaded, library.DatasetDict) else {"train": loaded}
    files = input_files.expand(str(path))
    formats = {FORMATS.get(file.suffix.lower()) for file in files}
    if len(formats) > 1 or None in formats:
        what = f"neither the output of save_to_disk nor files of one format of {', '.join(FORMATS)}"
        raise JobError(f"{printable(path)}: {what}", ExitCode.DATA)
    cache = tempfile.mkdtemp()  # a permanent one would be used even after the files have changed
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    names = [str(file) for file in files]
    return dict(library.load_dataset(formats.pop(), data_files={"train": names}, cache_dir=cache))


def _select(source: Source, rows: Any, columns: Collection[str]) -> Any:
    for column in columns:
        if column not in rows.column_names:
            names = ", ".join(map(repr, rows.column_names))
            what = f"has no column {column!r}; its columns are {names}"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
    return rows.select_columns(list(columns))
