"""Tables that the library `datasets` reads: of the Hugging Face hub, or the user's own."""

import atexit
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from assay.data import labelled_images
from assay.data.hub_files import COMMIT
from assay.runs import input_files
from assay.runs.errors import ExitCode, JobError, one_line

FORMS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json"}
ROWS = 1000  # that are read at once


@dataclass(frozen=True)
class Source:
    """Where tables come from: `hub` with `revision` (and perhaps `configuration`), or `path`."""

    hub: str | None
    revision: str | None
    configuration: str | None
    path: Path | None

    def __str__(self) -> str:
        parts = (
            (self.hub, self.configuration)
            if self.hub
            else (labelled_images.shown(self.path or ""),)
        )
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Table:
    """A split of what was published.

    Attributes:
        rows: a `datasets.Dataset`.
        name: of the split, for messages.
        split: which one it is here; None for one that is to be divided.
    """

    rows: Any
    name: str
    split: str | None

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """A name for messages, and the fields, of each row."""
        number = 0
        for batch in self.rows.iter(batch_size=ROWS):
            columns = list(batch)
            for fields in zip(*batch.values(), strict=True):
                yield f"{self.name} row {number}", dict(zip(columns, fields, strict=True))
                number += 1


def tables(
    source: Source, splits: Mapping[str, str | None], columns: Collection[str]
) -> list[Table]:
    """Load the splits that a study names.

    Args:
        source: where they come from.
        splits: split here -> its name there; None for one that is a share of `train`.
        columns: that are needed; the others are not read.

    Raises:
        JobError: they cannot be loaded, or there is no such split or column.
    """
    _check(source)
    library = _library()
    library.disable_progress_bars()
    named = {split: name for split, name in splits.items() if name}
    if len({*named.values()}) < len(named):
        raise JobError(f"{source}: one split has two uses: {named}", ExitCode.DATA)
    try:
        found = _local(library, source.path) if source.path else _published(library, source, named)
    except (JobError, MemoryError):
        raise
    except Exception as error:  # datasets, huggingface_hub, pyarrow and httpx each have their own
        what = f"{source}: cannot be loaded ({one_line(error)})"
        raise JobError(what, ExitCode.DATA) from error
    for name in named.values():
        if name not in found:
            what = f"has no split {name!r}; its splits are {', '.join(map(repr, found))}"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
    divided = len(named) < len(splits)
    return [
        Table(
            _columns(source, found[name], columns),
            name,
            None if divided and split == "train" else split,
        )
        for split, name in named.items()
    ]


def shares_of(source: Source, **splits: tuple[str | None, float | None]) -> dict[str, float]:
    """The shares of those splits that are not published.

    Args:
        source: for messages.
        **splits: the name of a split there, and a share; one of them is None.

    Raises:
        JobError: both are, or none.
    """
    found = {}
    for split, (name, share) in splits.items():
        if (name is None) == (share is None):
            what = f"set either {split}, the name of a published split, or {split}_fraction"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
        if share is not None:
            found[split] = share
    return found


def label_names(table: Table, column: str) -> list[str] | None:
    """The names of the classes that a column counts; None where it holds the labels themselves."""
    return getattr(table.rows.features[column], "names", None)


def _check(source: Source) -> None:
    if (source.hub is None) == (source.path is None):
        raise JobError("set either hub, with its revision, or path", ExitCode.DATA)
    if source.path and (source.revision or source.configuration):
        raise JobError(f"{source}: revision and configuration go with hub only", ExitCode.DATA)
    if source.hub and not COMMIT.fullmatch(source.revision or ""):
        what = "revision must be a commit (40 hexadecimal digits): a branch or tag can change"
        raise JobError(f"{source}: {what}", ExitCode.DATA)


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        what = "this data set needs the library datasets, which is not installed: run"
        line = ".venv/bin/python -m pip install 'datasets>=4'"
        raise JobError(f"{what} {line}", ExitCode.DATA) from error
    return datasets


def _published(library: ModuleType, source: Source, named: Mapping[str, str]) -> dict[str, Any]:
    options = {"name": source.configuration, "revision": source.revision}
    known = library.get_dataset_split_names(
        source.hub, source.configuration, revision=source.revision
    )
    wanted = [name for name in named.values() if name in known]
    loaded = {name: library.load_dataset(source.hub, split=name, **options) for name in wanted}
    return {name: loaded.get(name) for name in known}


def _local(library: ModuleType, path: Path) -> dict[str, Any]:
    """What `save_to_disk` wrote, or files of one form, which are the split `train`."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        found = library.load_from_disk(str(path))
        return dict(found) if isinstance(found, library.DatasetDict) else {"train": found}
    files = input_files.expand(str(path))
    forms = {FORMS.get(file.suffix.lower()) for file in files}
    if len(forms) > 1 or None in forms:
        what = f"neither a folder of save_to_disk nor files of one form of {', '.join(FORMS)}"
        raise JobError(f"{labelled_images.shown(path)}: {what}", ExitCode.DATA)
    cache = tempfile.mkdtemp()  # a lasting one would be trusted after files have changed
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    names = [str(file) for file in files]
    return dict(library.load_dataset(forms.pop(), data_files={"train": names}, cache_dir=cache))


def _columns(source: Source, rows: Any, columns: Collection[str]) -> Any:
    for column in columns:
        if column not in rows.column_names:
            names = ", ".join(map(repr, rows.column_names))
            what = f"has no column {column!r}; its columns are {names}"
            raise JobError(f"{source}: {what}", ExitCode.DATA)
    return rows.select_columns(list(columns))
