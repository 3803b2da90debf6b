"""Prepare: get a data set, check it and write its splits."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from assay import plugins
from assay.data import downloads, split_files
from assay.jobs.job import Job, run
from assay.runs import artifacts, atomic_files, execution
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError
from assay.runs.execution import Execution

Splits = dict[str, dict[str, Any]]


def prepare(
    settings: dict[str, Any],
    output: Path,
    tokenizer: Path | None = None,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Get a data set, check it against what its file states, and write its splits.

    Args:
        settings: JSON with `dataset` (its `name` and its own settings) and, for text, `tokenizer`.
        output: folder of the run.
        tokenizer: folder of other prepared data, whose tokenizer is used.
        digest: hash that the workflow expects of this run.
        execution: how the job is carried out; it changes no result.
    """
    parents = {"tokenizer": tokenizer} if tokenizer else {}
    run(_prepare, "prepare", settings, parents, None, output, digest, execution)


def _prepare(job: Job) -> None:
    options = dict(job.settings["dataset"])
    name = options.pop("name")
    dataset = plugins.load("dataset", name)
    if job.execution.data_folder:
        os.environ[downloads.DATA_FOLDER] = job.execution.data_folder
    with _temporary_folder(job.resume_folder) as folder, job.ledger.spend("data"):
        result = dataset.prepare(**options)
        splits, changes = result if isinstance(result, tuple) else (result, {})
        info = _completed(dataset.INFO | changes, splits, name)
        if info.is_text:
            splits, changes = _tokenized(job, splits, info, folder)
            info |= changes
        with job.ledger.spend("write"):
            for split, fields in splits.items():
                split_files.write(job.output, split, fields)
    job.metrics = {f"{split}_examples": info.examples[split] for split in artifacts.SPLITS}
    job.extra["info"] = info.to_record()
    print(f"prepare: {name}, " + ", ".join(f"{k} {v}" for k, v in job.metrics.items()), flush=True)


@contextmanager
def _temporary_folder(resume_folder: Path) -> Iterator[Path]:
    """Put temporary files below `resume_folder`: the system's folder may be too small for them."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=resume_folder) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def _completed(info: DataInfo, splits: Splits, name: str) -> DataInfo:
    """Check the splits against the info, on which planning relies, and add what it lacks.

    Raises:
        JobError: they differ, or a split is missing or empty.
    """
    where = plugins.path("dataset", name).name
    if set(splits) != set(artifacts.SPLITS):
        what = f"prepare() must return the splits {artifacts.SPLITS}, not {tuple(splits)}"
        raise JobError(f"{where}: {what}", ExitCode.DATA)
    info = _checked(info, "examples", {key: _length(each) for key, each in splits.items()}, where)
    if empty := [split for split, count in info.examples.items() if not count]:
        raise JobError(f"{name}: the {empty[0]} split is empty: give it more data", ExitCode.DATA)
    if "label" in splits["train"]:
        needed = ["classes", "max_length"] if info.is_text else ["classes"]
        if missing := [key for key in needed if getattr(info, key) is None]:
            what = f"prepare() returned labels, which need {' and '.join(missing)}"
            raise JobError(f"{where}: {what}: set them in INFO", ExitCode.DATA)
        fewest = int(np.bincount(splits["train"]["label"], minlength=info.classes).min())
        info = _checked(info, "labels_per_class", fewest, where)
    if "image" in splits["train"]:
        info |= {"shape": splits["train"]["image"].shape[1:]}
    return info if info.title else info | {"title": name}


def _checked(info: DataInfo, key: str, value: Any, where: str) -> DataInfo:
    """Return the info with a value, unless it states another."""
    stated = getattr(info, key)
    if stated and stated != value:
        what = f"INFO has {key}={stated}, but the data that prepare() returned has {value}"
        raise JobError(f"{where}: {what}: correct INFO or prepare()", ExitCode.DATA)
    return info | {key: value}


def _length(fields: dict[str, Any]) -> int:
    lengths = {len(column) for column in fields.values()}
    if len(lengths) != 1:
        raise JobError(f"the fields of a split differ in length: {sorted(lengths)}", ExitCode.DATA)
    return lengths.pop()


def _tokenized(
    job: Job, splits: Splits, info: DataInfo, folder: Path
) -> tuple[Splits, dict[str, Any]]:
    from assay.data import tokenization, tokenized_splits  # slow to import

    path = _write_tokenizer(job, splits["train"]["text"])
    return tokenized_splits.tokenize(tokenization.read(path), splits, info.max_length, folder)


def _write_tokenizer(job: Job, texts: Iterable[str]) -> Path:
    """Train the tokenizer of the settings, or copy that of a parent, into the run's folder."""
    path = job.output / artifacts.TOKENIZER
    if "tokenizer" in job.parents:
        content = job.file("tokenizer", artifacts.TOKENIZER).read_bytes()
    else:
        options = dict(job.settings["tokenizer"])
        tokenizer = plugins.load("tokenizer", options.pop("name")).train(texts, **options)
        content = tokenizer.to_str().encode()
    atomic_files.write(path, content)
    return path


if __name__ == "__main__":
    auto_cli(prepare, as_positional=False)
